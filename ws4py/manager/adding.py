"""The figures of several processes, added up. A process's figures are what :func:`look` returns: fit for JSON."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

from ws4py.manager.manager import WebSocketManager
from ws4py.manager.metrics import METRICS, Adding
from ws4py.manager.ranking import SortKey, take_connections

__all__ = ["add_stats", "add_tables", "look"]

STATES: Final = ("running", "stopping", "failed", "new", "stopped")
"""Of several states of managers the first one here is that of all."""

_ROWS: Final[Mapping[str, Callable[[Mapping[str, Any]], float]]] = {
    "messages": lambda row: row["messages_received"] + row["messages_sent"],
    "bytes": lambda row: row["bytes_received"] + row["bytes_sent"],
    "inbox": lambda row: row["inbox_messages"],
    "outbox": lambda row: row["outbox_bytes"],
    "round_trip": lambda row: -1.0 if row["round_trip"] is None else row["round_trip"],
}
"""By what rows are put in order, where it is not the field of the key's name."""


def look(manager: WebSocketManager, top: int = 0, keys: Sequence[SortKey] = ()) -> dict[str, Any]:
    """Return the figures of a manager: its snapshot, and for each key so many connections with the most of that.

    :raises ValueError: for another key.
    """
    found = take_connections(manager.source(), top, keys)
    return {
        "stats": manager.stats().as_dict(),
        "tables": {key: [row.as_dict() for row in rows] for key, rows in zip(keys, found, strict=True)},
    }


def add_stats(figures: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return one snapshot for all: each value is the sum, or the greatest, as the table of metrics says.

    :param figures: of each process, by its number; of one at least.
    """
    stats = [item["stats"] for item in figures.values()]
    total: dict[str, Any] = copy.deepcopy(stats[0])
    for metric in METRICS:
        for path in metric.paths.values():
            *parents, name = path.split(".")
            _within(total, parents)[name] = _added(metric.adding, [_within(one, parents)[name] for one in stats])
    total["workers"]["size"] = sum(one["workers"]["size"] for one in stats)  # which are the idle and the busy ones
    total["time"] = max(one["time"] for one in stats)
    total["state"] = min((one["state"] for one in stats), key=STATES.index)
    return total


def add_tables(figures: Mapping[str, Mapping[str, Any]], top: int) -> dict[str, list[dict[str, Any]]]:
    """Return the tables of all, each row with the number of its ``process``."""
    tables: dict[str, list[dict[str, Any]]] = {}
    for process, item in figures.items():
        for key, rows in item["tables"].items():
            tables.setdefault(key, []).extend({**row, "process": process} for row in rows)
    for key, rows in tables.items():
        rows.sort(key=_ROWS.get(key) or itemgetter(key), reverse=True)
        del rows[top:]
    return tables


def _within(figures: Any, names: list[str]) -> Any:
    for name in names:
        figures = figures[name]
    return figures


def _added(adding: Adding, values: list[Any]) -> Any:
    if adding == "merge":
        return {
            "bounds": values[0]["bounds"],
            "buckets": [sum(numbers) for numbers in zip(*(value["buckets"] for value in values), strict=True)],
            "sum": sum(value["sum"] for value in values),
        }
    if isinstance(values[0], Mapping):
        names = dict.fromkeys(name for value in values for name in value)
        return {name: _added(adding, [value.get(name, 0) for value in values]) for name in sorted(names)}
    if isinstance(values[0], bool):
        return all(values)
    return max(values) if adding == "max" else sum(values)

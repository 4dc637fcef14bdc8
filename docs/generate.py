"""Makes what the documentation says about single metrics and limits, from the code that has them::

    python docs/generate.py

The table in ``stats.rst`` comes from :data:`ws4py.manager.metrics.METRICS`; ``stats.schema.json`` comes from the
classes of :mod:`ws4py.manager.snapshot` and :mod:`ws4py.manager.ranking`, their docstrings, and the texts of the
metrics. The table in ``limits.rst`` comes from :data:`ws4py.limits.RULES`, the one in ``servers.rst`` from the tests
that show what it says.
"""

from __future__ import annotations

import json
import re
import sys
import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Final, get_args, get_origin, get_type_hints

from ws4py import _HOMES as HOMES
from ws4py.limits import RULES, Limits
from ws4py.manager import WebSocketManager
from ws4py.manager.metrics import METRICS
from ws4py.manager.ranking import ConnectionSnapshot
from ws4py.manager.snapshot import HistogramSnapshot, TrafficSnapshot

FOLDER: Final = Path(__file__).parent
PAGE: Final = FOLDER / "stats.rst"
LIMITS: Final = FOLDER / "limits.rst"
REFERENCE: Final = FOLDER / "reference.rst"
SERVERS: Final = FOLDER / "servers.rst"
SCHEMA: Final = FOLDER / "stats.schema.json"

BEGIN: Final = ".. The table is made by docs/generate.py.\n\n"
END: Final = "\n.. Here it ends.\n"

STATES: Final = ("new", "running", "stopping", "stopped", "failed")
SHARED: Final[dict[Any, str]] = {TrafficSnapshot: "traffic", HistogramSnapshot: "histogram"}
NUMBER: Final = {"type": "integer", "minimum": 0}
PATTERNS: Final = {"connections.closed": "^([0-9]{4}|[34]xxx)$", "connections.refused": "^[0-9]([0-9]{2}|xx)$"}
"""The keys of mappings that are empty at first."""

TYPES: Final[dict[Any, dict[str, Any]]] = {
    bool: {"type": "boolean"},
    int: NUMBER,
    float: {"type": "number", "minimum": 0},
    str: {"type": "string"},
}


# --- the schema -------------------------------------------------------------------------------------------------------


def texts_of(kind: Any, prefix: str) -> dict[str, str]:
    """Return what is said about the attributes of a dataclass: by its metric, by its class, or by the docstring."""
    hints = get_type_hints(kind)
    texts = {name: (hint.__doc__ or "").partition("\n")[0] for name, hint in hints.items() if is_dataclass(hint)}
    text = re.sub(r":\w+:`~?([^`]*)`|``", r"\1", kind.__doc__)
    for name, words in re.findall(r":ivar (\w+): (.*?)(?=\n\s*:|\Z)", text, re.DOTALL):
        texts[name] = " ".join(words.split())
    for metric in METRICS:
        parent, _, name = metric.paths.get((), "").rpartition(".")
        if parent == prefix.rstrip("."):
            texts[name] = metric.text
    return texts


def describe(kind: Any, value: Any, path: str) -> dict[str, Any]:
    """Return the schema of a value.

    :param kind: its type.
    :param value: as it is in a new manager's snapshot, where the keys of mappings are not in their types.
    :param path: where it is in the snapshot.
    """
    if is_dataclass(kind):
        return {"$ref": f"#/$defs/{SHARED[kind]}"} if kind in SHARED else describe_class(kind, value, f"{path}.")
    if path == "state":
        return {"enum": list(STATES)}
    if get_origin(kind) is types.UnionType:
        known, _ = get_args(kind)
        return {**TYPES[known], "type": [TYPES[known]["type"], "null"]}
    if get_origin(kind) is tuple:
        return {"type": "array", "items": TYPES[get_args(kind)[0]]}
    if get_origin(kind) is not Mapping:
        return TYPES[kind]
    if not value:
        return {"type": "object", "propertyNames": {"pattern": PATTERNS[path]}, "additionalProperties": NUMBER}
    return closed_object(dict.fromkeys(value, NUMBER))


def describe_class(kind: Any, value: Any, prefix: str) -> dict[str, Any]:
    """Return the schema of a dataclass."""
    texts = texts_of(kind, prefix)
    hints = get_type_hints(kind)
    properties = {}
    for field in fields(kind):
        found = describe(hints[field.name], getattr(value, field.name, None), f"{prefix}{field.name}")
        properties[field.name] = {"description": texts[field.name], **found}
    return closed_object(properties)


def closed_object(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of an object that has just these."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def make_schema() -> str:
    """Return the schema of ``stats.json``, and, among its definitions, of ``connections.json``."""
    snapshot = WebSocketManager().stats()
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The statistics of ws4py, as stats.json serves them",
        "description": "A manager at one moment. Counters count since the manager was made.",
        **describe_class(type(snapshot), snapshot, ""),
        "$defs": {
            "traffic": describe_class(TrafficSnapshot, snapshot.received, "traffic."),
            "histogram": describe_class(HistogramSnapshot, snapshot.loop_lag, "histogram."),
            "connections": {
                "description": "What connections.json serves.",
                "type": "array",
                "items": {"$ref": "#/$defs/connection"},
            },
            "connection": describe_class(ConnectionSnapshot, None, "connection."),
        },
    }
    return json.dumps(schema, indent=2) + "\n"


# --- the tables -------------------------------------------------------------------------------------------------------


def make_metrics() -> str:
    """Return the table of the metrics, in reStructuredText."""
    rows = [("metric", "labels", "processes", "what it is")]
    for metric in METRICS:
        name = f"ws4py_{metric.name}" + ("_total" if metric.kind == "counter" else "")
        labels = ", ".join(metric.labels) or ("le" if metric.kind == "histogram" else "\\")
        rows.append((name, labels, metric.adding, metric.text))
    return draw(rows)


def make_limits() -> str:
    """Return the table of the limits."""
    defaults = Limits()
    rows = [("limit", "default", "what happens past it")]
    for name, rule in RULES.items():
        value = getattr(defaults, name)
        if value is None:
            text = rule.unset
        elif rule.kind == "bytes":
            text = f"{value >> 20} MiB"
        else:
            text = f"{value:g} s" if rule.kind == "seconds" else str(value)
        rows.append((name, text, rule.past))
    return draw(rows)


def make_names() -> str:
    """Return the table of what can be imported from the package itself."""
    rows = [("name", "where it is described")]
    for name, home in sorted(HOMES.items()):
        rows.append((f"``{name}``", f":py:obj:`{home}.{name}`"))
    return draw(rows)


def make_servers() -> str:
    """Return the table of the servers that know nothing of websockets."""
    if str(FOLDER.parent) not in sys.path:
        sys.path.append(str(FOLDER.parent))
    from tests.doors.servers import rows

    return draw(rows())


def draw(rows: Sequence[tuple[str, ...]]) -> str:
    """Return a table; the first row is its head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    rule = "  ".join("=" * width for width in widths)
    return "\n".join([rule, lines[0], rule, *lines[1:], rule, ""])


def replaced(path: Path, table: str) -> str:
    """Return the text of a page with its table made anew.

    :raises ValueError: if it does not say where the table is.
    """
    before, begin, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} has no place for a table")
    return f"{before}{BEGIN}{table}{END}{after}"


def made() -> dict[Path, str]:
    """Return the files, with what is to be in them."""
    return {
        PAGE: replaced(PAGE, make_metrics()),
        LIMITS: replaced(LIMITS, make_limits()),
        REFERENCE: replaced(REFERENCE, make_names()),
        SERVERS: replaced(SERVERS, make_servers()),
        SCHEMA: make_schema(),
    }


def main() -> None:
    """Write them."""
    for path, text in made().items():
        path.write_text(text)


if __name__ == "__main__":
    main()

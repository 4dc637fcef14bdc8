"""The figures of several processes, added up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.helpers import EchoRecorder, Stage
from ws4py.manager.adding import add_stats, add_tables, look
from ws4py.manager.ranking import SORT_KEYS


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the places of all values that are none of several."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from leaves(item, f"{path}.{name}" if path else name)
    else:
        yield path, value


NOT_ADDED = {"time", "state", "uptime", "broker.connected"}


def test_every_number_of_a_snapshot_is_added(stage: Stage) -> None:
    """Or the greatest is taken, or it is none that can be."""
    manager = stage.manager()
    _, peer = stage.connect(manager, EchoRecorder)
    peer.send(peer.text("hello"))
    peer.receive()
    figures = look(manager)
    one = dict(leaves(figures["stats"]))
    total = dict(leaves(add_stats({"1": figures, "2": json.loads(json.dumps(figures)), "3": figures})))
    assert total.keys() == one.keys()
    for path, value in one.items():
        if path in NOT_ADDED or path.startswith("build.") or path.endswith(".bounds") or "largest" in path:
            assert total[path] == value, path
        elif isinstance(value, list):
            assert total[path] == [3 * number for number in value], path
        else:
            assert total[path] == pytest.approx(3 * value), path
    assert total["received.messages.text"] == 3


def test_what_only_one_has(stage: Stage) -> None:
    first, second = (look(stage.manager()) for _ in range(2))
    first["stats"]["connections"]["closed"] = {"1000": 1, "4xxx": 2}
    second["stats"]["connections"]["closed"] = {"1000": 3, "1001": 4}
    first["stats"]["outbox"]["largest_bytes"] = 5
    second["stats"] |= {"state": "stopping", "time": first["stats"]["time"] + 1}
    total = add_stats({"1": first, "2": second})
    assert total["connections"]["closed"] == {"1000": 4, "1001": 4, "4xxx": 2}
    assert total["outbox"]["largest_bytes"] == 5
    assert total["state"] == "running"
    assert total["time"] == second["stats"]["time"]
    assert first["stats"]["connections"]["closed"] == {"1000": 1, "4xxx": 2}


@pytest.mark.parametrize("key", SORT_KEYS)
def test_the_first_connections_of_all_are_the_first_of_each(stage: Stage, key: Any) -> None:
    figures = {}
    for process in ("1", "2"):
        manager = stage.manager()
        for messages in (1, 2):
            _, peer = stage.connect(manager, EchoRecorder)
            for _ in range(messages * int(process)):
                peer.send(peer.text("hello"))
                peer.receive()
        figures[process] = look(manager, 10, [key])
    rows = add_tables(figures, 3)[key]
    assert len(rows) == 3
    for process in figures:
        own = [{name: value for name, value in row.items() if name != "process"} for row in rows
               if row["process"] == process]  # fmt: skip
        assert own == figures[process]["tables"][key][: len(own)]
    if key == "messages":
        assert [row["messages_received"] for row in rows] == [4, 2, 2]

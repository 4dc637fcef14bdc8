"""The checker finds nothing where nothing is wrong, and what is wrong in brokers that are broken on purpose."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.checker.faults import Nemesis, Processes, serving
from tests.checker.recording import Report
from tests.checker.running import run
from tests.redis_server import RedisServer
from ws4py.broker import History, MemoryBroker, Position, Publication, Retention

pytestmark = pytest.mark.timeout(180)


def run_with(broker: MemoryBroker, seconds: float = 3.0) -> Report:
    with serving(broker) as ports:
        return run(ports, seconds, "1", lambda: threading.Event().wait(0.1), bound=5.0)


def test_a_broker_in_memory() -> None:
    report = run_with(MemoryBroker())
    assert report.violations == []
    assert report.counts["resumes"] == report.counts["recovered"] > 10
    assert report.counts["epochs"] == 1


@pytest.mark.parametrize(
    "faults", ["", "kill,roll,stop,clients", "pause,restart,flush"], ids=["none", "ours", "Redis'"]
)
def test_processes_over_redis(own_redis: RedisServer, faults: str) -> None:
    """Without a fault of Redis all who resume are recovered."""
    processes = Processes(own_redis, 3)
    nemesis = Nemesis(processes, faults.split(",") if faults else [], "1")
    try:
        report = run(processes.ports, 8.0, "1", nemesis.act)
    finally:
        processes.close()
    assert report.violations == []
    assert report.counts["resumes"] > 10
    if faults != "pause,restart,flush":
        assert report.counts["recovered"] == report.counts["resumes"]
        assert report.counts["epochs"] == 1


# --- broken on purpose ------------------------------------------------------------------------------------------------


class Liar(MemoryBroker):
    """Says that all is there when the oldest is missing."""

    def history(self, topic: str, retention: Retention, since: Position | None = None, last: int = 0) -> History:
        history = super().history(topic, retention, since, last)
        if history.recovered and len(history.publications) > 1:
            return history._replace(publications=history.publications[1:])
        return history


class Amnesiac(MemoryBroker):
    """Forgets what it has now and then, and goes on in the same epoch, from the beginning."""

    def __init__(self) -> None:
        super().__init__()
        self._published = 0

    def publish(self, publication: Publication, retention: Retention | None = None, key: str | None = None) -> None:
        super().publish(publication, retention, key)
        self._published += 1
        record = self._histories._records.get(publication.topic)
        if record is not None and self._published % 200 == 0:
            record.publications.clear()
            record.offset = 0


class Repeater(MemoryBroker):
    """Knows no keys, so what is published again comes again."""

    def publish(self, publication: Publication, retention: Retention | None = None, key: str | None = None) -> None:
        super().publish(publication, retention)


class Haunted(MemoryBroker):
    """Lets nobody leave."""

    def leave(self, topic: str, name: str) -> None:
        pass


@pytest.mark.parametrize("broken", [Liar, Amnesiac, Repeater, Haunted])
def test_what_is_broken_is_found(broken: Any) -> None:
    assert run_with(broken()).violations != []

"""The pure engine by itself: its end, which nothing that was left to it may keep from coming."""

from __future__ import annotations

import logging

import pytest

from ws4py.backends.threads import Threads
from ws4py.engine import Engine


def test_what_raises_at_its_end_keeps_nothing_else_from_being_done(caplog: pytest.LogCaptureFixture) -> None:
    backend = Threads()
    engine = Engine(backend, lambda owner: None, lambda owner, connection: None)
    engine.open(backend.make_poller(engine.wake), backend.make_wakeup())
    done: list[str] = []

    def fails() -> None:
        raise RuntimeError("a signal handler has sent too late, say")

    engine.ask(fails)
    engine.ask(lambda: done.append("the next"))
    with caplog.at_level(logging.ERROR, logger="ws4py"):
        engine.close()
    assert done == ["the next"]
    assert "sent too late" in caplog.text

"""When Pings are due, and who counts as dead. The times are made up."""

from __future__ import annotations

import pytest

from ws4py.keepalive import DEAD, NOTHING, PING, Keepalive

INTERVAL, TIMEOUT = 30.0, 20.0


def pinged(now: float = 0.0) -> Keepalive:
    """A keepalive that has sent a Ping an interval after ``now``."""
    keepalive = Keepalive(now)
    assert keepalive.act(now + INTERVAL, INTERVAL, TIMEOUT, now) is PING
    return keepalive


def payload_of(keepalive: Keepalive) -> bytes:
    assert keepalive.payload is not None
    return keepalive.payload


def test_a_ping_is_due_after_an_interval() -> None:
    keepalive = Keepalive(100.0)
    assert keepalive.due(INTERVAL, TIMEOUT) == 130.0
    assert keepalive.act(129.9, INTERVAL, TIMEOUT, 100.0) is NOTHING
    assert keepalive.payload is None
    assert keepalive.act(130.0, INTERVAL, TIMEOUT, 100.0) is PING
    assert keepalive.waiting


def test_bytes_from_the_peer_put_no_ping_off() -> None:
    assert Keepalive(0.0).act(INTERVAL, INTERVAL, TIMEOUT, INTERVAL) is PING


def test_the_next_ping_is_an_interval_after_the_last() -> None:
    keepalive = pinged()
    assert keepalive.ponged(INTERVAL + 5, payload_of(keepalive))
    assert keepalive.due(INTERVAL, TIMEOUT) == 2 * INTERVAL


def test_without_an_interval_nothing_is_due() -> None:
    keepalive = Keepalive(0.0)
    assert keepalive.due(None, TIMEOUT) is None
    assert keepalive.act(1e9, None, TIMEOUT, 0.0) is NOTHING


def test_who_says_nothing_is_dead_after_the_timeout() -> None:
    keepalive = pinged()
    assert keepalive.due(INTERVAL, TIMEOUT) == INTERVAL + TIMEOUT
    assert keepalive.act(INTERVAL + TIMEOUT - 0.1, INTERVAL, TIMEOUT, 0.0) is NOTHING
    assert keepalive.act(INTERVAL + TIMEOUT, INTERVAL, TIMEOUT, 0.0) is DEAD


def test_without_a_timeout_nobody_is_dead() -> None:
    keepalive = pinged()
    assert keepalive.due(INTERVAL, None) is None
    assert keepalive.act(1e9, INTERVAL, None, 0.0) is NOTHING


def test_bytes_after_the_ping_give_as_long_again_each_time() -> None:
    keepalive = pinged()
    assert keepalive.act(50.0, INTERVAL, TIMEOUT, 31.0) is NOTHING
    assert keepalive.due(INTERVAL, TIMEOUT) == 70.0
    assert keepalive.act(70.0, INTERVAL, TIMEOUT, 50.0) is NOTHING
    assert keepalive.act(90.0, INTERVAL, TIMEOUT, 69.0) is DEAD


def test_a_pong_measures_the_latency() -> None:
    keepalive = pinged()
    assert keepalive.latency is None
    assert keepalive.ponged(INTERVAL + 0.25, payload_of(keepalive))
    assert keepalive.latency == pytest.approx(0.25)
    assert not keepalive.waiting


def test_a_pong_that_comes_twice_is_passed_over() -> None:
    keepalive = pinged()
    keepalive.ponged(INTERVAL + 1, payload_of(keepalive))
    assert keepalive.ponged(INTERVAL + 9, payload_of(keepalive))  # it is no Pong of the application's
    assert keepalive.latency == pytest.approx(1.0)


@pytest.mark.parametrize("payload", [b"", b"of the application"])
def test_another_pong_answers_nothing(payload: bytes) -> None:
    keepalive = pinged()
    assert not keepalive.ponged(INTERVAL + 1, payload)
    assert keepalive.waiting
    assert not Keepalive(0.0).ponged(1.0, payload)

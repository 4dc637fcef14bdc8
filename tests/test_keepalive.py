"""Keepalive: when a Ping is due, and when a peer counts as dead. The clock is a number."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ws4py.framing import MAX_CONTROL_PAYLOAD
from ws4py.keepalive import Keepalive, Verdict

DEAD, NOTHING, PING = Verdict.DEAD, Verdict.NOTHING, Verdict.PING
INTERVAL, TIMEOUT = 30.0, 10.0


def pinged(at: float = 130.0) -> Keepalive:
    """Return a keepalive whose first Ping has just gone out; it began one interval before."""
    keepalive = Keepalive(at - INTERVAL)
    assert act(keepalive, at) is PING
    return keepalive


def act(keepalive: Keepalive, now: float, heard_at: float = 0.0) -> Verdict:
    return keepalive.act(now, INTERVAL, TIMEOUT, heard_at)


def payload(keepalive: Keepalive) -> bytes:
    assert keepalive.payload is not None
    return keepalive.payload


# --- Pings ------------------------------------------------------------------------------------------------------------


def test_the_first_ping_is_due_after_an_interval() -> None:
    keepalive = Keepalive(100.0)
    assert keepalive.due(INTERVAL, TIMEOUT) == 130.0
    assert act(keepalive, 129.9) is NOTHING
    assert keepalive.payload is None
    assert not keepalive.waiting
    assert act(keepalive, 130.0) is PING
    assert keepalive.waiting
    assert 0 < len(payload(keepalive)) <= MAX_CONTROL_PAYLOAD


def test_the_next_ping_is_due_an_interval_after_the_last_one_however_long_its_pong_took() -> None:
    keepalive = pinged(130.0)
    keepalive.ponged(138.0, payload(keepalive))
    assert keepalive.due(INTERVAL, TIMEOUT) == 160.0
    assert act(keepalive, 159.9) is NOTHING
    assert act(keepalive, 160.0) is PING


def test_a_ping_that_went_out_late_moves_the_next() -> None:
    keepalive = Keepalive(100.0)
    assert act(keepalive, 135.0) is PING
    keepalive.ponged(135.1, payload(keepalive))
    assert keepalive.due(INTERVAL, TIMEOUT) == 165.0


def test_bytes_of_the_peer_are_no_reason_to_leave_a_ping_out() -> None:
    keepalive = Keepalive(100.0)
    assert act(keepalive, 130.0, heard_at=129.9) is PING


def test_without_an_interval_no_ping_is_due() -> None:
    keepalive = Keepalive(100.0)
    assert keepalive.due(None, TIMEOUT) is None
    assert keepalive.act(1e9, None, TIMEOUT, 0.0) is NOTHING


def test_an_interval_may_come_and_go() -> None:
    keepalive = Keepalive(100.0)
    assert keepalive.act(500.0, None, TIMEOUT, 0.0) is NOTHING
    assert keepalive.act(500.0, INTERVAL, TIMEOUT, 0.0) is PING
    assert keepalive.due(None, TIMEOUT) == 510.0, "what was asked is still to be answered"
    assert keepalive.act(510.0, None, TIMEOUT, 0.0) is DEAD


def test_pings_can_be_told_apart() -> None:
    keepalive = pinged(130.0)
    first = payload(keepalive)
    keepalive.ponged(130.1, first)
    act(keepalive, 160.0)
    assert payload(keepalive) != first


# --- Pongs ------------------------------------------------------------------------------------------------------------


def test_a_pong_tells_the_latency() -> None:
    keepalive = pinged(130.0)
    assert keepalive.latency is None
    assert keepalive.ponged(130.25, payload(keepalive))
    assert not keepalive.waiting
    assert keepalive.latency == 0.25


def test_a_pong_of_another_payload_answers_no_ping_of_ours() -> None:
    keepalive = pinged()
    for other in (b"", b"other", payload(keepalive) + b"x", payload(keepalive)[:-1]):
        assert not keepalive.ponged(131.0, other)
    assert keepalive.waiting
    assert keepalive.latency is None


def test_a_pong_before_any_ping_is_not_ours() -> None:
    keepalive = Keepalive(100.0)
    assert not keepalive.ponged(101.0, b"")
    assert keepalive.latency is None


def test_a_pong_that_comes_twice_changes_nothing() -> None:
    keepalive = pinged(130.0)
    keepalive.ponged(130.25, payload(keepalive))
    assert keepalive.ponged(137.0, payload(keepalive)), "it is still an answer to our Ping, not to the application's"
    assert keepalive.latency == 0.25
    assert keepalive.due(INTERVAL, TIMEOUT) == 160.0


def test_a_pong_to_an_earlier_ping_does_not_answer_the_last() -> None:
    keepalive = pinged(130.0)
    early = payload(keepalive)
    keepalive.ponged(130.1, early)
    act(keepalive, 160.0)
    assert not keepalive.ponged(161.0, early)
    assert keepalive.waiting


# --- the dead ---------------------------------------------------------------------------------------------------------


def test_a_silent_peer_is_dead_after_the_timeout_not_before() -> None:
    keepalive = pinged(130.0)
    assert keepalive.due(INTERVAL, TIMEOUT) == 140.0
    assert act(keepalive, 139.9, heard_at=129.0) is NOTHING
    assert act(keepalive, 140.0, heard_at=129.0) is DEAD


def test_bytes_that_came_before_the_ping_do_not_count() -> None:
    assert act(pinged(130.0), 140.0, heard_at=129.99) is DEAD


def test_a_peer_that_sends_something_has_as_long_again() -> None:
    keepalive = pinged(130.0)
    assert act(keepalive, 140.0, heard_at=131.0) is NOTHING
    assert keepalive.waiting, "its Pong is still due"
    assert keepalive.due(INTERVAL, TIMEOUT) == 150.0
    assert act(keepalive, 149.9, heard_at=131.0) is NOTHING
    assert act(keepalive, 150.0, heard_at=131.0) is DEAD, "nothing has come meanwhile"


def test_a_message_that_takes_long_on_its_way_keeps_its_peer_alive_until_the_pong_gets_through() -> None:
    keepalive = pinged(130.0)
    for now in range(140, 540, 10):
        assert act(keepalive, float(now), heard_at=now - 1.0) is NOTHING, now
    assert keepalive.ponged(531.0, payload(keepalive))
    assert keepalive.latency == 401.0
    assert act(keepalive, 531.0) is PING, "the last one is more than an interval ago"


def test_who_does_not_read_gives_no_peer_up() -> None:
    keepalive = pinged(130.0)
    for now in (140.0, 150.0, 160.0):
        assert act(keepalive, now, heard_at=now) is NOTHING
    assert act(keepalive, 170.0, heard_at=100.0) is DEAD


def test_without_a_timeout_nobody_is_dead_and_one_ping_waits_for_its_pong() -> None:
    keepalive = pinged(130.0)
    assert keepalive.due(INTERVAL, None) is None
    assert keepalive.act(1e9, INTERVAL, None, 0.0) is NOTHING
    assert keepalive.ponged(1e9, payload(keepalive))
    assert keepalive.act(1e9, INTERVAL, None, 0.0) is PING


def test_no_timeout_at_all_means_at_once() -> None:
    keepalive = pinged(130.0)
    assert keepalive.act(130.0, INTERVAL, 0.0, 0.0) is DEAD


@pytest.mark.parametrize("early", [0.0, 1.0, 29.9])
def test_one_who_acts_too_early_changes_nothing(early: float) -> None:
    keepalive = Keepalive(100.0)
    assert act(keepalive, 100.0 + early) is NOTHING
    assert keepalive.due(INTERVAL, TIMEOUT) == 130.0


Step = tuple[float, str]
STEPS = st.lists(
    st.tuples(st.floats(0.0, 60.0), st.sampled_from(["act", "pong", "stale pong", "bytes"])), min_size=1, max_size=60
)


@given(STEPS, st.floats(0.5, 50.0), st.floats(0.5, 50.0))
def test_in_any_order_of_events(steps: Iterable[Step], interval: float, timeout: float) -> None:
    now = heard_at = 1000.0
    keepalive = Keepalive(now)
    pinged_at, looked_at, answered = now, now, True
    for pause, step in steps:
        now += pause
        if step == "bytes":
            heard_at = now
        elif step == "pong":
            heard_at = now
            if keepalive.payload is not None:
                assert keepalive.ponged(now, payload(keepalive))
                answered = True
        elif step == "stale pong":
            heard_at = now
            assert not keepalive.ponged(now, b"stale pong")
        else:
            due = keepalive.due(interval, timeout)
            assert due is not None
            verdict = keepalive.act(now, interval, timeout, heard_at)
            assert now >= due or verdict is NOTHING
            if verdict is PING:
                assert answered, "one Ping at a time"
                assert now >= pinged_at + interval
                pinged_at, looked_at, answered = now, now, False
            elif verdict is DEAD:
                assert not answered
                assert now >= looked_at + timeout, "it had all its time"
                assert heard_at < looked_at, "it was silent all the time"
                return
            elif not answered and now >= due:
                looked_at = now
        assert keepalive.waiting is not answered

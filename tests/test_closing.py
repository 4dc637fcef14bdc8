"""The closing handshake as a table: what each event makes of each state, and what is sent."""

from __future__ import annotations

import pytest

from ws4py.closing import CLOSED, CLOSING, CONNECTING, TRANSITIONS, Closing, Event, State
from ws4py.messaging import CloseCode, CloseControlMessage

NORMAL = CloseControlMessage(CloseCode.NORMAL_CLOSURE, "bye")
AWAY = CloseControlMessage(CloseCode.GOING_AWAY, "away")
WRONG = CloseControlMessage(CloseCode.PROTOCOL_ERROR, "wrong")

EVENTS = {
    Event.SENT: lambda closing: closing.send(NORMAL),
    Event.RECEIVED: lambda closing: closing.receive(AWAY),
    Event.FAILED: lambda closing: closing.fail(WRONG),
    Event.LOST: lambda closing: closing.lose(),
}


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("event", list(EVENTS))
def test_every_event_in_every_state(state: State, event: Event) -> None:
    closing = Closing(state)
    EVENTS[event](closing)
    assert closing.state is TRANSITIONS.get((state, event), state)


def test_no_state_is_left_for_an_earlier_one() -> None:
    assert all(after >= before for (before, _), after in TRANSITIONS.items())
    assert not [event for state, event in TRANSITIONS if state is CLOSED]


def test_only_the_first_close_is_sent() -> None:
    closing = Closing()
    assert closing.may_send
    assert closing.send(NORMAL)
    assert not closing.send(AWAY)
    assert (closing.sent, closing.state, closing.may_send) == (NORMAL, CLOSING, False)


@pytest.mark.parametrize("state", [CONNECTING, CLOSED])
def test_no_close_is_sent_before_the_beginning_or_after_the_end(state: State) -> None:
    closing = Closing(state)
    assert not closing.send(NORMAL)
    assert closing.sent is None


def test_the_reply_echoes_the_code_once() -> None:
    closing = Closing()
    closing.receive(AWAY)
    assert closing.may_send  # the answers to earlier messages go first
    reply = closing.reply()
    assert reply is not None
    assert (reply.code, reply.reason) == (CloseCode.GOING_AWAY, b"")
    assert closing.reply() is None
    assert not closing.may_send


def test_an_empty_close_has_an_empty_reply() -> None:
    closing = Closing()
    closing.receive(CloseControlMessage(CloseCode.NO_STATUS_RECEIVED))
    reply = closing.reply()
    assert reply is not None
    assert reply.data == b""
    assert closing.outcome[0] == CloseCode.NO_STATUS_RECEIVED


def test_who_has_sent_a_close_owes_none() -> None:
    closing = Closing()
    closing.send(NORMAL)
    closing.receive(AWAY)
    assert closing.reply() is None
    assert (closing.sent, closing.received) == (NORMAL, AWAY)
    assert closing.outcome == (CloseCode.GOING_AWAY, b"away")


def test_what_was_wrong_is_said_and_the_rest_passed_over() -> None:
    closing = Closing()
    closing.fail(WRONG)
    assert closing.read_ended
    closing.receive(AWAY)
    closing.fail(AWAY)
    assert closing.received is None
    assert closing.reply() is WRONG
    assert closing.outcome[0] == CloseCode.ABNORMAL_CLOSURE


def test_after_the_peers_close_nothing_can_be_wrong() -> None:
    closing = Closing()
    closing.receive(AWAY)
    closing.fail(WRONG)
    assert closing.due is None
    assert closing.outcome == (CloseCode.GOING_AWAY, b"away")


def test_nothing_is_sent_to_who_is_gone() -> None:
    closing = Closing()
    closing.receive(AWAY)
    closing.lose()
    assert closing.reply() is None
    assert closing.outcome == (CloseCode.GOING_AWAY, b"away")


def test_who_vanishes_has_1006() -> None:
    closing = Closing()
    closing.lose()
    assert (closing.state, closing.read_ended, closing.may_send) == (CLOSED, True, False)
    assert closing.outcome == (CloseCode.ABNORMAL_CLOSURE, "Going away")


@pytest.mark.parametrize("client", [False, True])
def test_the_server_ends_tcp_after_the_peers_close(client: bool) -> None:
    closing = Closing()
    closing.send(NORMAL)
    assert not closing.ends_tcp(client)
    closing.receive(AWAY)
    assert closing.ends_tcp(client) is not client

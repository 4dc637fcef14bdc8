"""The closing handshake: what is sent, once, what is read, and who ends TCP."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ws4py.closing import TRANSITIONS, Closing, Event, State
from ws4py.messaging import CloseCode, CloseControlMessage

CLIENT, SERVER = True, False
roles = pytest.mark.parametrize("client", [CLIENT, SERVER], ids=["client", "server"])

NORMAL = CloseControlMessage(1000, "bye")
AWAY = CloseControlMessage(1001, "away")
EMPTY = CloseControlMessage(None)
WRONG = CloseControlMessage(CloseCode.PROTOCOL_ERROR, "a frame is not masked")


# --- the states -------------------------------------------------------------------------------------------------------


def test_the_states_have_the_numbers_of_ready_state_in_browsers() -> None:
    assert [(state.name, int(state)) for state in State] == [
        ("CONNECTING", 0),
        ("OPEN", 1),
        ("CLOSING", 2),
        ("CLOSED", 3),
    ]


def test_no_event_leads_back() -> None:
    assert all(after >= before for (before, _), after in TRANSITIONS.items())


def test_only_the_opening_handshake_opens() -> None:
    assert [key for key, after in TRANSITIONS.items() if after is State.OPEN] == [(State.CONNECTING, Event.OPENED)]


def test_nothing_happens_to_what_is_closed() -> None:
    assert not [key for key in TRANSITIONS if key[0] is State.CLOSED]


def test_tcp_may_end_at_any_time() -> None:
    living = set(State) - {State.CLOSED}
    assert {before for (before, event), _ in TRANSITIONS.items() if event is Event.LOST} == living
    assert all(after is State.CLOSED for (_, event), after in TRANSITIONS.items() if event is Event.LOST)


EVENTS: dict[Event, Callable[[Closing], object]] = {
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


def test_before_the_opening_handshake_is_done_there_is_nothing_to_close() -> None:
    closing = Closing(State.CONNECTING)
    assert not closing.send(NORMAL)
    closing.receive(NORMAL)
    closing.fail(WRONG)
    assert (closing.state, closing.sent, closing.received, closing.due) == (State.CONNECTING, None, None, None)
    assert closing.reply() is None


def test_before_the_opening_handshake_is_done_nothing_may_be_sent() -> None:
    assert not Closing(State.CONNECTING).may_send


def test_a_connection_that_never_opened_may_be_lost() -> None:
    closing = Closing(State.CONNECTING)
    closing.lose()
    assert closing.state is State.CLOSED
    assert closing.outcome[0] == 1006


def test_an_open_connection_sends_and_reads() -> None:
    closing = Closing()
    assert closing.state is State.OPEN
    assert closing.may_send
    assert not closing.read_ended
    assert closing.reply() is None, "nothing calls for a Close"


# --- this side begins -------------------------------------------------------------------------------------------------


@roles
def test_this_side_begins(client: bool) -> None:
    closing = Closing()
    assert closing.send(NORMAL)
    assert closing.sent is NORMAL
    assert closing.state is State.CLOSING
    assert not closing.may_send, "nothing follows a Close (section 5.5.1)"
    assert not closing.read_ended, "the peer may still send messages, and is to send its Close"
    assert not closing.ends_tcp(client), "the peer's Close is still on its way"
    closing.receive(CloseControlMessage(1000, "you, too"))
    assert closing.read_ended
    assert closing.reply() is None, "a Close is the answer to the first one, not to an answer"
    assert closing.ends_tcp(client) is (client is SERVER)
    assert closing.outcome == (1000, b"you, too")
    closing.lose()
    assert closing.state is State.CLOSED
    assert closing.outcome == (1000, b"you, too")


def test_only_the_first_close_is_sent() -> None:
    closing = Closing()
    assert closing.send(NORMAL)
    assert not closing.send(AWAY)
    assert closing.sent is NORMAL


@roles
def test_tcp_that_ends_before_the_answer_is_abnormal(client: bool) -> None:
    closing = Closing()
    closing.send(NORMAL)
    closing.lose()
    assert closing.state is State.CLOSED
    assert closing.read_ended
    code, reason = closing.outcome
    assert code == 1006
    assert isinstance(reason, str)
    assert not closing.ends_tcp(client)


# --- the peer begins --------------------------------------------------------------------------------------------------


@roles
@pytest.mark.parametrize("close", [NORMAL, AWAY, CloseControlMessage(4711, "mine")], ids=["1000", "1001", "4711"])
def test_the_peer_begins_and_its_code_is_echoed(client: bool, close: CloseControlMessage) -> None:
    closing = Closing()
    closing.receive(close)
    assert closing.received is close
    assert closing.state is State.CLOSING
    assert closing.read_ended, "nothing that follows a Close is looked at"
    assert closing.may_send, "answers to the messages before the Close may still go out"
    reply = closing.reply()
    assert reply is not None
    assert (reply.code, reply.reason) == (close.code, b"")
    assert closing.sent is reply
    assert not closing.may_send
    assert closing.ends_tcp(client) is (client is SERVER)
    assert closing.outcome == (close.code, close.reason)


def test_a_close_without_a_code_is_answered_by_one_without() -> None:
    closing = Closing()
    closing.receive(EMPTY)
    reply = closing.reply()
    assert reply is not None
    assert reply.data == b"", "1005 is never on the wire (section 7.4.1)"
    assert closing.outcome == (1005, b"")


def test_a_close_is_answered_once() -> None:
    closing = Closing()
    closing.receive(NORMAL)
    assert closing.reply() is not None
    assert closing.reply() is None


def test_the_application_may_answer_itself() -> None:
    closing = Closing()
    closing.receive(NORMAL)
    assert closing.send(AWAY)
    assert closing.reply() is None
    assert closing.sent is AWAY
    assert closing.outcome == (1000, b"bye"), "it is told what the peer has sent"


def test_a_second_close_of_the_peer_is_passed_over() -> None:
    closing = Closing()
    closing.receive(NORMAL)
    closing.receive(AWAY)
    assert closing.received is NORMAL


def test_what_is_wrong_behind_the_peers_close_is_passed_over() -> None:
    closing = Closing()
    closing.receive(NORMAL)
    closing.fail(WRONG)
    assert closing.due is None
    reply = closing.reply()
    assert reply is not None
    assert reply.code == 1000


def test_both_begin_at_once() -> None:
    closing = Closing()
    closing.send(AWAY)
    closing.receive(NORMAL)
    assert closing.reply() is None
    assert closing.ends_tcp(SERVER)
    assert closing.outcome == (1000, b"bye")


# --- a rule is broken -------------------------------------------------------------------------------------------------


@roles
def test_a_broken_rule_fails_the_connection(client: bool) -> None:
    closing = Closing()
    closing.fail(WRONG)
    assert closing.state is State.CLOSING
    assert closing.read_ended, "nothing more is read (section 7.1.7)"
    assert closing.may_send, "answers to what was right may still go out"
    assert closing.reply() is WRONG
    assert closing.reply() is None
    assert not closing.may_send
    assert not closing.ends_tcp(client), "the Close could be destroyed by an RST, were the peer's bytes not read"
    assert closing.outcome == (1006, "a frame is not masked"), "the peer has sent no Close (section 7.1.5)"


def test_the_first_rule_that_is_broken_counts() -> None:
    closing = Closing()
    closing.fail(WRONG)
    closing.fail(CloseControlMessage(1009))
    assert closing.reply() is WRONG


def test_a_close_behind_what_was_wrong_is_passed_over() -> None:
    closing = Closing()
    closing.fail(WRONG)
    closing.receive(NORMAL)
    assert closing.received is None
    assert closing.outcome[0] == 1006


def test_a_rule_broken_after_our_close_ends_reading_and_sends_nothing() -> None:
    closing = Closing()
    closing.send(NORMAL)
    closing.fail(WRONG)
    assert closing.read_ended
    assert closing.reply() is None
    assert closing.sent is NORMAL
    assert closing.outcome == (1006, "a frame is not masked")


# --- the end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["nothing", "received", "failed"])
def test_nothing_is_sent_or_read_when_tcp_has_ended(before: str) -> None:
    closing = Closing()
    if before == "received":
        closing.receive(NORMAL)
    elif before == "failed":
        closing.fail(WRONG)
    told = closing.outcome
    closing.lose()
    assert not closing.may_send
    assert closing.read_ended
    assert closing.reply() is None
    assert not closing.send(AWAY)
    closing.receive(AWAY)
    closing.fail(CloseControlMessage(1009))
    closing.lose()
    assert closing.sent is None
    assert closing.outcome == told


def test_a_lost_connection_is_told_in_words_of_ours() -> None:
    closing = Closing()
    closing.lose()
    code, reason = closing.outcome
    assert code == 1006
    assert isinstance(reason, str)
    assert reason


# --- any order --------------------------------------------------------------------------------------------------------

STEPS: dict[str, Callable[[Closing, CloseControlMessage], object]] = {
    "send": Closing.send,
    "receive": Closing.receive,
    "fail": Closing.fail,
    "reply": lambda closing, close: closing.reply(),
    "lose": lambda closing, close: closing.lose(),
}


@given(st.lists(st.sampled_from(sorted(STEPS)), max_size=12), st.sampled_from([State.CONNECTING, State.OPEN]))
def test_in_any_order_one_close_is_sent_and_one_thing_ends_reading(steps: list[str], state: State) -> None:
    closing = Closing(state)
    out = []  # what would be on the wire
    for number, step in zip(itertools.count(3000), steps, strict=False):
        close = CloseControlMessage(number)
        before = closing.state, closing.received, closing.due, closing.read_ended, closing.may_send
        result = STEPS[step](closing, close)
        if result is True:
            out.append(close)
        elif isinstance(result, CloseControlMessage):
            out.append(result)
        assert closing.state >= before[0]
        assert closing.read_ended >= before[3], "reading does not begin again"
        assert closing.may_send <= before[4], "sending does not begin again, and nothing here opens"
        if before[3]:
            assert (closing.received, closing.due) == before[1:3]
    assert len(out) <= 1
    assert out == ([] if closing.sent is None else [closing.sent])
    assert closing.received is None or closing.due is None
    if closing.state is State.OPEN:
        assert (closing.sent, closing.received, closing.due) == (None, None, None)
    if "lose" in steps:
        assert closing.state is State.CLOSED

"""How long a message may take to come. The clock is a number."""

from __future__ import annotations

import pytest

from ws4py.deadline import MessageDeadline, watch_message

TIMEOUT = 120.0
KIB = 1024


class Incoming:
    """What a stream says of a message that is coming."""

    def __init__(self, message: int = 1) -> None:
        self.messages_begun = message
        self.more = False
        self.unfinished = True


def test_a_message_that_has_begun_has_a_deadline_until_it_ends() -> None:
    stream = Incoming()
    deadline = watch_message(stream, None, 1000.0, TIMEOUT)
    assert deadline is not None
    assert watch_message(stream, deadline, 1050.0, TIMEOUT) is deadline
    stream.unfinished = False
    assert watch_message(stream, deadline, 1060.0, TIMEOUT) is None


def test_the_next_message_has_a_deadline_of_its_own() -> None:
    stream = Incoming()
    first = watch_message(stream, None, 1000.0, TIMEOUT)
    stream.messages_begun = 2
    second = watch_message(stream, first, 1100.0, TIMEOUT)
    assert second is not None
    assert second is not first
    assert not second.is_late(1219.0, 0)
    assert second.is_late(1220.0, 0)


def test_what_waits_to_be_decoded_is_not_the_peers_fault() -> None:
    stream = Incoming()
    stream.more = True
    assert watch_message(stream, MessageDeadline(1000.0, TIMEOUT, 1), 1100.0, TIMEOUT) is None


def test_without_a_timeout_there_is_no_deadline() -> None:
    assert watch_message(Incoming(), None, 1000.0, None) is None


def test_a_message_is_late_at_its_deadline_and_looked_at_before() -> None:
    deadline = MessageDeadline(1000.0, TIMEOUT, 1)
    assert deadline.due == 1030.0
    for now in (1030.0, 1060.0, 1090.0):
        assert not deadline.is_late(now, 0)
    assert deadline.due == 1120.0
    assert deadline.is_late(1120.0, 0)


@pytest.mark.parametrize(("rate", "late"), [(KIB - 1, True), (KIB, False)])
def test_a_message_that_comes_fast_may_take_longer(rate: int, late: bool) -> None:
    deadline = MessageDeadline(1000.0, TIMEOUT, 1)
    for seconds in (30, 60, 90):
        deadline.is_late(1000.0 + seconds, rate * seconds)
    assert deadline.is_late(1120.0, rate * 120) is late


def test_a_time_in_which_nothing_was_read_does_not_count() -> None:
    deadline = MessageDeadline(1000.0, TIMEOUT, 1)
    deadline.postpone(500.0)
    assert deadline.due == 1530.0
    assert not deadline.is_late(1619.0, 0)
    assert deadline.is_late(1620.0, 0)

"""How much a peer may send in a second: without a socket, and with the time passed in."""

from __future__ import annotations

from ws4py.framing import FIN, OPCODE_PING, OPCODE_TEXT
from ws4py.limits import Limits
from ws4py.rate import Excess, make_rate
from ws4py.streaming import Stream

MESSAGE = bytes((FIN | OPCODE_TEXT, 1)) + b"x"
PING = bytes((FIN | OPCODE_PING, 0))
EVERYTHING = {"frames": 100, "messages": 100, "size": 1 << 20}


def test_where_nothing_is_limited_nothing_is_counted() -> None:
    assert make_rate(Limits()) is None


def test_so_many_come_in_a_second_and_the_others_are_kept() -> None:
    stream = Stream(expect_masking=False)
    rate = make_rate(Limits(max_messages_per_second=3))
    assert rate is not None
    assert len(rate.receive(stream, 10.9, MESSAGE + PING, **EVERYTHING)) == 2
    assert rate.excess(stream) is None
    assert len(rate.receive(stream, 10.99, MESSAGE, **EVERYTHING)) == 1
    assert rate.excess(stream) is None, "as many as may"
    assert len(rate.receive(stream, 11.0, MESSAGE * 3, **EVERYTHING)) == 3
    assert rate.excess(stream) is None
    assert rate.receive(stream, 11.5, MESSAGE, **EVERYTHING) == []
    assert rate.excess(stream) == Excess("max_messages_per_second", "Too many messages a second")
    assert len(rate.receive(stream, 12.0, b"", **EVERYTHING)) == 1


def test_the_callers_own_limits_hold_too() -> None:
    stream = Stream(expect_masking=False)
    rate = make_rate(Limits(max_messages_per_second=10))
    assert rate is not None
    assert len(rate.receive(stream, 1.0, MESSAGE * 5, frames=2, messages=100, size=100)) == 2
    assert rate.excess(stream) is None
    assert len(rate.receive(stream, 1.0, b"", frames=100, messages=1, size=100)) == 1

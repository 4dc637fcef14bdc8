"""What waits to be sent."""

from __future__ import annotations

import pytest

from tests.helpers import start_thread
from tests.manager.test_faults import signals
from ws4py.broker.buffer import OVERHEAD, Buffer, Outgoing
from ws4py.exc import BrokerError


def outgoing(text: str) -> Outgoing:
    return Outgoing(b"", 1, text.encode())


def texts(batch: list[Outgoing]) -> list[str]:
    return [item.payload.decode() for item in batch]


def test_what_is_put_is_taken_in_order_and_in_parts() -> None:
    buffer = Buffer(1 << 20)
    for text in "abcde":
        buffer.put(outgoing(text))
    assert texts(buffer.take(2, 1 << 20)) == ["a", "b"]
    assert texts(buffer.take(9, OVERHEAD + 2)) == ["c", "d"]
    assert texts(buffer.take(9, 1)) == ["e"]
    assert len(buffer) == 5


def test_it_is_full_until_what_was_taken_is_settled() -> None:
    buffer = Buffer(2 * (OVERHEAD + 1), "raise")
    buffer.put(outgoing("a"))
    buffer.put(outgoing("b"))
    batch = buffer.take(2, 1 << 20)
    with pytest.raises(BrokerError, match="wait already"):
        buffer.put(outgoing("c"))
    buffer.settle(batch)
    buffer.put(outgoing("d"))
    assert texts(buffer.take(2, 1 << 20)) == ["d"]
    assert (buffer.size, buffer.dropped) == (OVERHEAD + 1, 0)


def test_the_oldest_make_room() -> None:
    buffer = Buffer(2 * (OVERHEAD + 1))
    for text in "abcde":
        buffer.put(outgoing(text))
    assert texts(buffer.take(9, 1 << 20)) == ["d", "e"]
    assert buffer.dropped == 3


def test_one_that_is_larger_than_all_the_room_is_not_kept_out() -> None:
    buffer = Buffer(10)
    buffer.put(outgoing("a"))
    buffer.put(outgoing("b" * 1000))
    assert texts(buffer.take(9, 1 << 20)) == ["b" * 1000]


def test_what_is_urgent_comes_first_and_is_not_counted() -> None:
    buffer = Buffer(1 << 20)
    buffer.put(outgoing("a"))
    for text in ("old probe", "probe"):
        buffer.put_urgent(Outgoing(b"", 1, text.encode(), urgent=True))
    batch = buffer.take(9, 1 << 20)
    assert texts(batch) == ["probe", "a"]
    assert len(buffer) == 1
    buffer.settle(batch)
    assert (len(buffer), buffer.size) == (0, 0)


def test_who_takes_waits_until_something_is_there_or_it_is_closed() -> None:
    buffer = Buffer(1 << 20)
    task = start_thread(buffer.take, 9, 1 << 20)
    buffer.put(outgoing("a"))
    batch = task.result()
    assert isinstance(batch, list)
    assert texts(batch) == ["a"]
    task = start_thread(buffer.take, 9, 1 << 20)
    buffer.close()
    assert task.result() == []
    with pytest.raises(BrokerError, match="closed"):
        buffer.put(outgoing("b"))


def test_flush_waits_for_what_was_put_before() -> None:
    buffer = Buffer(1 << 20)
    assert buffer.flush(0.0)
    buffer.put(outgoing("a"))
    assert not buffer.flush(0.0)
    task = start_thread(buffer.flush, 10.0)
    batch = buffer.take(9, 1 << 20)
    buffer.put(outgoing("b"))
    buffer.settle(batch)
    assert task.result() is True
    buffer.drop_all()
    assert buffer.flush(0.0)
    assert buffer.dropped == 1


def test_a_signal_handler_may_put() -> None:
    buffer = Buffer(1 << 30)
    put = 0

    def handle() -> None:
        nonlocal put
        put += 1
        buffer.put(outgoing("theirs"))

    taken: list[str] = []
    with signals(handle):
        for number in range(3000):
            buffer.put(outgoing(f"ours {number}"))
    while len(buffer) > len(taken):
        taken += texts(buffer.take(100, 1 << 20))
    assert taken.count("theirs") == put
    assert [text for text in taken if text != "theirs"] == [f"ours {number}" for number in range(3000)]
    assert buffer.size == sum(len(text) + OVERHEAD for text in taken)


@pytest.mark.parametrize("arguments", [(0,), (-1,), (1, "drop_newest")])
def test_what_can_not_be(arguments: tuple[int]) -> None:
    with pytest.raises(ValueError, match=r"buffer|when_full"):
        Buffer(*arguments)

"""The outbox of a connection: whatever is taken, written in parts or thrown away, the peer reads whole frames."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ws4py.engine import outbox as module
from ws4py.engine.outbox import Outbox

LAST = b"\x88\x02\x03\xe8"


def frame(number: int, size: int) -> bytes:
    """A frame that can be told from others."""
    return bytes([0x82, size]) + bytes([number]) * size


def write(outbox: Outbox, wire: bytearray, most: int = 1 << 30) -> None:
    """Write a piece, or the beginning of it."""
    piece = outbox.take()
    if piece is None:
        return
    wire += piece[:most]
    if len(piece) <= most:
        outbox.taken()
    else:
        outbox.left(most)


def write_all(outbox: Outbox, wire: bytearray) -> None:
    while outbox.waiting:
        write(outbox, wire)
    assert outbox.empty
    assert outbox.size == 0


def test_frames_that_wait_are_one_piece() -> None:
    outbox = Outbox()
    frames = [frame(number, 10) for number in range(5)]
    for item in frames:
        outbox.append(item)
    assert outbox.size == 60
    assert outbox.take() == b"".join(frames)
    assert outbox.size == 0
    assert not outbox.taken()


def test_nothing_is_taken_while_something_is_written() -> None:
    outbox = Outbox()
    outbox.append(frame(1, 3))
    assert outbox.take() is not None
    outbox.append(frame(2, 3))
    assert outbox.take() is None
    assert outbox.taken()
    assert outbox.take() == frame(2, 3)


def test_a_large_frame_is_a_piece_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WRITE_SIZE", 50)
    outbox = Outbox()
    for item in (large := frame(1, 60), frame(2, 3), frame(3, 3)):
        outbox.append(item)
    assert outbox.take() is large  # not copied
    assert outbox.taken()
    assert outbox.take() == frame(2, 3) + frame(3, 3)


def test_what_is_given_up_in_the_midst_of_a_frame_ends_with_that() -> None:
    outbox, wire = Outbox(), bytearray()
    for number in range(3):
        outbox.append(frame(number, 10))
    write(outbox, wire, 15)
    outbox.give_up(LAST)
    write_all(outbox, wire)
    assert wire == frame(0, 10) + frame(1, 10) + LAST


def test_what_is_cleared_while_it_is_written_does_not_come_back() -> None:
    outbox = Outbox()
    outbox.append(frame(1, 10))
    outbox.take()
    outbox.clear()
    outbox.left(3)
    assert outbox.empty
    assert outbox.size == 0


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 100)),
        st.tuples(st.just("write"), st.integers(0, 500)),
        st.tuples(st.just("take"), st.integers(0, 500)),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(steps=STEPS, given_up_after=st.none() | st.integers(0, 60))
def test_any_order_of_steps(steps: list[tuple[str, int]], given_up_after: int | None) -> None:
    outbox, wire = Outbox(), bytearray()
    frames: list[bytes] = []
    given_up = False
    taken: Any = None
    for number, (step, size) in enumerate(steps):
        if step == "append" and not given_up:
            frames.append(frame(number, size))
            outbox.append(frames[-1])
        elif taken is not None:  # the write that was begun ends
            wire += taken[:size]
            outbox.taken() if len(taken) <= size else outbox.left(size)
            taken = None
        elif step == "take":
            taken = outbox.take()
        elif step == "write":
            write(outbox, wire, size)
        if number == given_up_after:
            outbox.give_up(LAST)
            given_up = True
    if taken is not None:
        wire += taken
        outbox.taken()
    write_all(outbox, wire)
    whole = b"".join(frames)
    if not given_up:
        assert wire == whole
        return
    assert wire.endswith(LAST)
    sent = bytes(wire[: -len(LAST)])
    ends = {len(b"".join(frames[:count])) for count in range(len(frames) + 1)}
    assert whole.startswith(sent)
    assert len(sent) in ends

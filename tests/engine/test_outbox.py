"""The outbox: frames in their order, whatever part of them the socket takes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ws4py.engine import outbox as module
from ws4py.engine.outbox import Outbox
from ws4py.framing import FIN, OPCODE_BINARY, OPCODE_CLOSE, build_frame

KEY = b"\x01\x02\x03\x04"


def frame(size: int = 3, key: bytes | None = None, mark: int = 7) -> bytes:
    """Return a frame with a payload of so many bytes, each of which is the mark."""
    return build_frame(FIN | OPCODE_BINARY, bytes([mark]) * size, key)


CLOSE = build_frame(FIN | OPCODE_CLOSE, b"\x03\xf5")


def take(outbox: Outbox) -> bytes:
    """Take what there must be."""
    output = outbox.take()
    assert output is not None
    return bytes(output)


def write_all(outbox: Outbox) -> bytes:
    """Write all that is left, to a socket that takes all."""
    wire = b""
    while outbox.waiting:
        wire += take(outbox)
        outbox.taken()
    assert outbox.empty
    assert outbox.size == 0
    return wire


def test_a_new_one_is_empty() -> None:
    outbox = Outbox()
    assert outbox.empty
    assert not outbox.waiting
    assert outbox.size == 0
    assert outbox.take() is None


def test_one_frame_is_taken_as_it_is() -> None:
    outbox, message = Outbox(), frame()
    outbox.append(message)
    assert outbox.waiting
    assert outbox.size == len(message)
    assert outbox.take() is message, "nothing is copied"
    assert outbox.size == 0
    assert not outbox.empty, "it is being written"
    assert not outbox.waiting
    assert not outbox.taken()
    assert outbox.empty


def test_small_frames_are_taken_together() -> None:
    outbox = Outbox()
    frames = [frame(size) for size in range(10)]
    for item in frames:
        outbox.append(item)
    assert take(outbox) == b"".join(frames)
    assert not outbox.taken()


def test_frames_are_joined_up_to_a_size() -> None:
    outbox = Outbox()
    large = frame(module.WRITE_SIZE)
    for _ in range(3):
        outbox.append(large)
    for more in (True, True, False):
        assert outbox.take() is large, "nothing is copied"
        assert outbox.taken() is more
    for _ in range(4):
        outbox.append(frame(module.WRITE_SIZE // 3))
    assert len(take(outbox)) <= module.WRITE_SIZE * 4 // 3


def test_one_writer_at_a_time() -> None:
    outbox = Outbox()
    outbox.append(frame())
    assert outbox.take() is not None
    outbox.append(frame())
    assert outbox.waiting
    assert outbox.take() is None
    assert outbox.taken(), "more has come meanwhile"
    assert take(outbox) == frame()


def test_what_is_being_written_does_not_count() -> None:
    outbox = Outbox()
    outbox.append(frame(10))
    outbox.take()
    outbox.append(frame(20))
    assert outbox.size == len(frame(20))
    outbox.left(4)
    assert outbox.size == len(frame(20)) + len(frame(10)) - 4


def test_what_is_left_waits_again_before_the_others() -> None:
    outbox = Outbox()
    outbox.append(frame(10, mark=1))
    wire = take(outbox)[:4]
    outbox.append(frame(10, mark=2))
    outbox.left(4)
    assert outbox.waiting
    wire += take(outbox)[:3]
    outbox.left(3)
    wire += write_all(outbox)
    assert wire == frame(10, mark=1) + frame(10, mark=2)


def test_a_socket_that_takes_nothing_changes_nothing() -> None:
    outbox = Outbox()
    outbox.append(frame())
    outbox.take()
    outbox.left(0)
    assert outbox.size == len(frame())
    assert write_all(outbox) == frame()


# --- to give up -------------------------------------------------------------------------------------------------------


def test_what_waits_is_thrown_away() -> None:
    outbox = Outbox()
    outbox.append(frame(1))
    outbox.append(frame(2))
    outbox.give_up(CLOSE)
    assert outbox.size == len(CLOSE)
    assert write_all(outbox) == CLOSE


def test_of_an_empty_one() -> None:
    outbox = Outbox()
    outbox.give_up(CLOSE)
    assert outbox.waiting
    assert write_all(outbox) == CLOSE


@pytest.mark.parametrize("key", [None, KEY], ids=["server", "client"])
@pytest.mark.parametrize("size", [0, 5, 125, 126, 65535, 65536])
def test_a_frame_that_has_begun_is_ended(size: int, key: bytes | None) -> None:
    begun, other = frame(size, key), frame(size, key, mark=8)
    outbox = Outbox()
    outbox.append(begun)
    outbox.append(other)
    outbox.take()
    outbox.left(1)
    outbox.give_up(CLOSE)
    assert outbox.size == len(begun) - 1 + len(CLOSE)
    assert write_all(outbox) == begun[1:] + CLOSE


@pytest.mark.parametrize("key", [None, KEY], ids=["server", "client"])
@pytest.mark.parametrize("size", [0, 5, 125, 126, 65535, 65536])
def test_a_frame_that_begins_while_it_is_given_up_is_ended(size: int, key: bytes | None) -> None:
    begun = frame(size, key)
    outbox = Outbox()
    for mark in (1, 2):
        outbox.append(begun if mark == 1 else frame(size, key, mark))
    outbox.take()
    outbox.give_up(CLOSE)
    assert outbox.size == len(CLOSE)
    outbox.left(1)
    assert outbox.size == len(begun) - 1 + len(CLOSE)
    assert write_all(outbox) == begun[1:] + CLOSE


def test_between_two_frames_nothing_is_kept() -> None:
    for late in (False, True):
        outbox = Outbox()
        outbox.append(frame(5))
        outbox.append(frame(6))
        outbox.take()
        if late:
            outbox.give_up(CLOSE)
        outbox.left(len(frame(5)))
        if not late:
            outbox.give_up(CLOSE)
        assert outbox.size == len(CLOSE)
        assert write_all(outbox) == CLOSE


def test_what_was_all_written_meanwhile_is_gone() -> None:
    outbox = Outbox()
    outbox.append(frame(5))
    outbox.take()
    outbox.give_up(CLOSE)
    assert outbox.taken()
    assert take(outbox) == CLOSE
    outbox.left(0)
    assert write_all(outbox) == CLOSE


def test_the_last_frame_itself_may_be_written_in_parts() -> None:
    outbox = Outbox()
    outbox.append(frame(5))
    outbox.take()
    outbox.give_up(CLOSE)
    outbox.left(2)
    assert take(outbox) == frame(5)[2:]
    outbox.taken()
    for _ in CLOSE[:-1]:
        outbox.take()
        outbox.left(0)
        outbox.take()
        outbox.left(1)
    assert write_all(outbox) == CLOSE[-1:]


def test_giving_up_twice_keeps_the_later_last_frame_and_what_has_begun() -> None:
    other = build_frame(FIN | OPCODE_CLOSE, b"\x03\xe9")
    for writing in (False, True):
        outbox = Outbox()
        outbox.append(frame(5))
        outbox.take()
        outbox.left(2)
        if writing:
            outbox.take()
        outbox.give_up(CLOSE)
        outbox.give_up(other)
        if writing:
            outbox.left(1)
        assert write_all(outbox) == frame(5)[2 + writing :] + other


# --- to clear ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["new", "waiting", "writing", "left", "given up", "given up while writing"])
def test_nothing_is_left_when_it_is_cleared(state: str) -> None:
    outbox = Outbox()
    if state != "new":
        outbox.append(frame())
        outbox.append(frame())
    if state not in ("new", "waiting"):
        outbox.take()
    if state in ("left", "given up"):
        outbox.left(1)
    if state.startswith("given up"):
        outbox.give_up(CLOSE)
    outbox.clear()
    assert outbox.empty
    assert not outbox.waiting
    assert outbox.size == 0
    assert outbox.take() is None


@pytest.mark.parametrize("written", ["all", "a part"])
@pytest.mark.parametrize("given_up", [False, True])
def test_what_becomes_of_what_is_being_written_then_does_not_matter(written: str, given_up: bool) -> None:
    outbox = Outbox()
    outbox.append(frame())
    outbox.take()
    if given_up:
        outbox.give_up(CLOSE)
    outbox.clear()
    if written == "all":
        assert not outbox.taken()
    else:
        outbox.left(1)
    assert outbox.empty
    assert outbox.size == 0
    outbox.append(frame(4))
    outbox.take()
    outbox.left(0)
    assert write_all(outbox) == frame(4)


# --- any order --------------------------------------------------------------------------------------------------------

FRAMES = st.builds(
    frame, st.one_of(st.integers(0, 40), st.sampled_from([125, 126, 300])), st.sampled_from([None, KEY]), st.just(9)
)


class Writing(RuleBasedStateMachine):
    """An outbox beside what it stands for: whole frames, the wire, and how far the wire has come."""

    def __init__(self) -> None:
        super().__init__()
        self.outbox = Outbox()
        self.frames: list[bytes] = []  # that are to be on the wire, from its beginning
        self.wire = b""
        self.taking: bytes | None = None
        self.given_up_at: int | None = None  # how long the wire was, and what was written then may still be on it

    @property
    def due(self) -> bytes:
        """What the wire is to be at the end."""
        return b"".join(self.frames)

    @rule(items=st.lists(FRAMES, min_size=1, max_size=4))
    def append(self, items: list[bytes]) -> None:
        for item in items:
            self.outbox.append(item)
        self.frames += items

    @precondition(lambda self: self.taking is None)
    @rule()
    def take(self) -> None:
        output = self.outbox.take()
        if output is None:
            assert self.wire == self.due
            return
        assert len(output) > 0
        self.taking = bytes(output)
        assert self.due[len(self.wire) :].startswith(self.taking)

    @precondition(lambda self: self.taking is not None)
    @rule()
    def taken(self) -> None:
        assert self.taking is not None
        self.wire += self.taking
        self._settle()
        assert self.outbox.taken() is (self.wire != self.due)

    @precondition(lambda self: self.taking is not None)
    @rule(data=st.data())
    def left(self, data: st.DataObject) -> None:
        assert self.taking is not None
        count = data.draw(st.integers(0, len(self.taking) - 1))
        self.wire += self.taking[:count]
        self._settle()
        self.outbox.left(count)

    def _settle(self) -> None:
        """It is known how much is written: so, after giving up, which frames have begun."""
        self.taking = None
        if self.given_up_at is not None:
            new, self.frames = self.frames[self.given_up_at :], self.frames[: self.given_up_at]
            self.given_up_at = None
            self._keep_begun()
            self.frames += new

    def _keep_begun(self) -> None:
        size = 0
        for number, item in enumerate(self.frames):
            if size >= len(self.wire):
                del self.frames[number:]
                return
            size += len(item)

    @rule()
    def give_up(self) -> None:
        self.outbox.give_up(CLOSE)
        if self.taking is None:
            self._keep_begun()
        else:  # what is just being written may be written
            if self.given_up_at is not None:
                del self.frames[self.given_up_at :]
            size, number = 0, 0
            while size < len(self.wire) + len(self.taking):
                size += len(self.frames[number])
                number += 1
            del self.frames[number:]
            self.given_up_at = number
        self.frames.append(CLOSE)

    @invariant()
    def the_books_are_right(self) -> None:
        waiting = len(self.due) - len(self.wire)
        if self.taking is not None:
            if self.given_up_at is None:
                waiting -= len(self.taking)
            else:
                waiting = len(b"".join(self.frames[self.given_up_at :]))
        assert self.outbox.size == waiting
        assert self.outbox.waiting is (waiting > 0)
        assert self.outbox.empty is (waiting == 0 and self.taking is None)
        if self.taking is not None:
            assert self.outbox.take() is None, "one writer at a time"

    @invariant()
    def the_wire_is_a_beginning_of_whole_frames(self) -> None:
        assert self.due.startswith(self.wire)

    def teardown(self) -> None:
        if self.taking is not None:
            self.taken()
        self.wire += write_all(self.outbox)
        assert self.wire == self.due


class WritingLittle(Writing):
    """The same with other sizes, so that few frames come by all ways."""

    def __init__(self) -> None:
        super().__init__()
        self._sizes = module.WRITE_SIZE, module.KEPT
        set_sizes(100, 2)

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            set_sizes(*self._sizes)


def set_sizes(write_size: int, kept: int) -> None:
    module.WRITE_SIZE, module.KEPT = write_size, kept  # type: ignore[misc]


TestWriting = Writing.TestCase
TestWritingLittle = WritingLittle.TestCase
for case in (TestWriting, TestWritingLittle):
    case.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@pytest.fixture
def small_sizes() -> Iterator[None]:
    sizes = module.WRITE_SIZE, module.KEPT
    set_sizes(50, 4)
    yield
    set_sizes(*sizes)


@pytest.mark.usefixtures("small_sizes")
def test_a_long_queue_that_never_ends_keeps_little() -> None:
    outbox, wire = Outbox(), b""
    due = b"".join(frame(50, mark=number % 250) for number in range(1000))
    for number in range(1000):
        outbox.append(frame(50, mark=number % 250))
        if number >= 5:
            wire += take(outbox)
            outbox.taken()
        assert len(outbox.frames) < 20
    assert wire + write_all(outbox) == due


@given(st.lists(FRAMES, min_size=1, max_size=8), st.data())
def test_wherever_a_socket_stops_the_rest_is_a_close_behind_whole_frames(
    frames: list[bytes], data: st.DataObject
) -> None:
    all_of_it = b"".join(frames)
    written = data.draw(st.integers(0, len(all_of_it) - 1))
    early = data.draw(st.booleans())
    outbox = Outbox()
    for item in frames:
        outbox.append(item)
    assert take(outbox) == all_of_it
    if early:
        outbox.give_up(CLOSE)
    outbox.left(written)
    if not early:
        outbox.give_up(CLOSE)
    wire = all_of_it[:written] + write_all(outbox)
    kept = b""
    for item in frames:
        if len(kept) >= written:
            break
        kept += item
    assert wire == kept + CLOSE

"""Sending on a connection, without a socket: what is on the wire, who waits for room, and what the engine is told."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers import start_thread, until, wait_for
from ws4py.engine.connection import PureConnection
from ws4py.engine.sender import Sender
from ws4py.exc import ConnectionClosed, SlowConsumer, WebSocketException
from ws4py.framing import FIN, OPCODE_BINARY, OPCODE_CLOSE, OPCODE_PING, OPCODE_TEXT
from ws4py.limits import Limits
from ws4py.messaging import CloseControlMessage, Message
from ws4py.streaming import Stream

roles = pytest.mark.parametrize("client", [False, True], ids=["server", "client"])
NORMAL = CloseControlMessage(1000, "bye")


class Lock:
    """A lock that does something before a thread acquires it.

    :ivar before: what that is; it is done once.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.before: Callable[[int], object] | None = None
        self.count = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if self.before is not None:
            self.count += 1
            self.before(self.count)
        return self._lock.acquire(blocking, timeout)

    def release(self) -> None:
        self._lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lock, name)


class Engine:
    """What a connection asks of its engine.

    :ivar told: how often it was told to look at the connection.
    :ivar may_wait: what it says to those who are about to wait.
    :ivar waiting: how many do.
    """

    def __init__(self) -> None:
        self.told = 0
        self.limits: Counter[str] = Counter()
        self.may_wait = True
        self.waiting = 0
        self.own_thread = False
        self.writes_until: list[float] = []
        self.write: Callable[[], bool] = lambda: True
        self.callers = None
        self.locks: list[Lock] = []

    def make_lock(self) -> Lock:
        lock = Lock()
        self.locks.append(lock)
        return lock

    make_condition = staticmethod(threading.Condition)

    def holds(self, lock: Any) -> bool:
        return bool(lock._is_owned())

    def clock(self) -> float:
        return 0.0

    def mark_dirty(self, connection: PureConnection) -> None:
        self.told += 1

    def make_way(self, connection: PureConnection) -> None:
        pass

    def count_limit(self, name: str) -> None:
        # It takes a lock, which a thread may have that a signal handler has interrupted; and the handler broadcasts.
        assert not any(lock._is_owned() for lock in self.locks), "a lock of the connection is held"
        self.limits[name] += 1

    def in_own_thread(self) -> bool:
        return self.own_thread

    def write_until(self, connection: PureConnection, deadline: float) -> bool:
        self.writes_until.append(deadline)
        return self.write()

    def begin_wait(self) -> bool:
        self.waiting += self.may_wait
        return self.may_wait

    def end_wait(self) -> None:
        self.waiting -= 1


class Line:
    """A connection, and a peer who reads what is written: all at once, when it is told to."""

    def __init__(self, client: bool = False, **limits: Any) -> None:
        self.engine = Engine()
        stream = Stream(always_mask=client, expect_masking=not client)
        owner: Any = SimpleNamespace(failed=False, finishing=False, finished=False)
        core: Any = self.engine
        self.connection = PureConnection(core, owner, stream, Limits(**limits))
        transport: Any = SimpleNamespace(blocked=False)
        self.connection.transport = transport
        self.peer = Stream(always_mask=not client, expect_masking=client, max_message_size=None, max_fragments=None)
        self.messages: list[Message] = []

    def send(self, text: str = "hello", timeout: float | None = None) -> None:
        self.connection.send_message(OPCODE_TEXT, text.encode(), timeout)

    def fill(self, size: int = 1000) -> None:
        """Leave no room: limits with ``max_outbox_size`` below that are expected."""
        self.send("x" * size, timeout=0.0)
        assert self.connection.outbox_full

    def write(self, most: int | None = None) -> bool:
        """Write what is to be written next, of which the peer takes so many bytes; tell whether there was something."""
        output = self.connection.take_output()
        if output is None:
            return False
        taken = bytes(output[:most])
        self.messages += self.peer.receive(taken)
        if len(taken) == len(output):
            self.connection.output_taken(len(output))
        else:
            self.connection.output_left(len(taken))
        return True

    def write_all(self) -> list[str]:
        """Write all, and return what the peer has understood since: its texts, "ping" and so on, "close 1000"."""
        while self.write():
            pass
        assert self.peer.error is None, str(self.peer.error)
        told = [self._tell(item) for item in self.messages]
        self.messages.clear()
        return told

    @staticmethod
    def _tell(item: Message) -> str:
        if isinstance(item, CloseControlMessage):
            return f"close {item.code}"
        return "ping" if item.opcode == OPCODE_PING else item.data.decode()

    def wait_waiting(self, count: int = 1) -> None:
        """Wait until so many threads wait for room."""
        until(lambda: self.engine.waiting == count)


# --- the usual --------------------------------------------------------------------------------------------------------


@roles
def test_messages_are_on_the_wire_in_their_order(client: bool) -> None:
    line = Line(client)
    for number in range(20):
        line.send(str(number))
    assert line.write_all() == [str(number) for number in range(20)]


def test_the_engine_is_told_once_until_it_looks() -> None:
    line = Line()
    for _ in range(3):
        line.send()
    assert line.engine.told == 1
    line.write_all()
    line.send()
    assert line.engine.told == 2


@roles
def test_a_message_that_is_half_written_is_ended_first(client: bool) -> None:
    line = Line(client)
    line.send("a" * 100)
    line.write(30)
    line.send("b")
    assert line.write_all() == ["a" * 100, "b"]


def test_what_was_sent_is_counted() -> None:
    line = Line()
    line.send("four")
    line.connection.send_message(OPCODE_BINARY, b"seven!!")
    line.connection.send_control(line.connection.stream.encode(FIN | OPCODE_PING, b"1"))
    line.connection.send_fragments(OPCODE_TEXT, iter([b"ab", b"cd"]))
    line.connection.close(NORMAL)
    line.write_all()
    counted = line.connection.counted()
    assert (counted.texts_sent, counted.text_bytes_sent) == (2, 8)
    assert (counted.binaries_sent, counted.binary_bytes_sent) == (1, 7)
    assert (counted.pings_sent, counted.closes_sent) == (1, 1)


# --- the Close --------------------------------------------------------------------------------------------------------


@roles
def test_a_close_comes_behind_what_was_sent_and_nothing_behind_it(client: bool) -> None:
    line = Line(client)
    line.send("first")
    line.connection.close(NORMAL)
    line.connection.close(CloseControlMessage(1001))
    with pytest.raises(ConnectionClosed):
        line.send("late")
    with pytest.raises(ConnectionClosed):
        line.connection.send_fragments(OPCODE_TEXT, iter([b"late"]))
    with pytest.raises(ConnectionClosed):
        line.connection.send_control(line.connection.stream.encode(FIN | OPCODE_PING, b""))
    assert not line.connection.offer(b"\x81\x00", OPCODE_TEXT, 0, "drop")
    assert line.write_all() == ["first", "close 1000"]


def test_the_engine_is_told_of_a_close() -> None:
    line = Line()
    line.connection.close(NORMAL)
    assert line.engine.told == 1


@roles
def test_a_reply_is_the_last(client: bool) -> None:
    line = Line(client)
    line.send("first")
    line.connection.closing.receive(CloseControlMessage(4000))
    line.send("the peer's Close has come, its answer is not sent yet")
    line.connection.reply_to_close()
    with pytest.raises(ConnectionClosed):
        line.send("late")
    assert line.write_all()[-1] == "close 4000"
    assert line.connection.sent_all


def test_a_given_up_peer_gets_the_end_of_its_message_and_a_close() -> None:
    line = Line()
    line.send("a" * 100)
    line.send("b")
    line.write(30)
    line.send("c")
    line.connection.give_up(CloseControlMessage(1013))
    with pytest.raises(ConnectionClosed):
        line.send("late")
    assert line.write_all() == ["a" * 100, "close 1013"]


# --- room -------------------------------------------------------------------------------------------------------------


def test_a_message_that_needs_no_room_may_exceed_the_limit() -> None:
    """Room is what there is before a message, so that one of any size can be sent."""
    line = Line(max_outbox_size=100)
    line.fill(5000)
    assert line.write_all() == ["x" * 5000]


@roles
def test_who_never_waits_is_refused_and_gives_nobody_up(client: bool) -> None:
    line = Line(client, max_outbox_size=100)
    line.fill()
    with pytest.raises(SlowConsumer):
        line.send("more", timeout=0.0)
    assert line.engine.limits["outbox"] == 1
    assert line.write_all() == ["x" * 1000]
    line.send("again", timeout=0.0)
    assert line.write_all() == ["again"]


def test_a_sender_waits_until_the_peer_reads() -> None:
    line = Line(max_outbox_size=100)
    line.fill()
    tasks = [start_thread(line.send, f"waited {number}") for number in range(3)]
    line.wait_waiting(3)
    line.write_all()
    for task in tasks:
        task.result()
    assert sorted(line.write_all()) == ["waited 0", "waited 1", "waited 2"]
    assert line.engine.waiting == 0


def test_a_part_that_was_written_makes_room() -> None:
    line = Line(max_outbox_size=100)
    line.fill()
    task = start_thread(line.send, "waited")
    line.wait_waiting()
    line.write(950)
    task.result()
    assert line.write_all() == ["x" * 1000, "waited"]


def test_a_peer_that_reads_nothing_is_given_up_in_time() -> None:
    line = Line(max_outbox_size=100, send_timeout=0.05)
    line.fill()
    told = line.engine.told
    with pytest.raises(SlowConsumer):
        line.send("waited")
    assert line.engine.limits["send_timeout"] == 1
    assert line.engine.told > told
    assert line.engine.waiting == 0
    assert line.write_all() == ["close 1013"]
    with pytest.raises(ConnectionClosed):
        line.send("late")


def test_all_who_wait_are_told_when_one_has_given_up() -> None:
    line = Line(max_outbox_size=100, send_timeout=100.0)
    line.fill()
    patient = start_thread(line.send, "patient")
    line.wait_waiting()
    with pytest.raises(SlowConsumer):
        line.send("hurried", timeout=0.05)
    with pytest.raises(ConnectionClosed):
        patient.result()


@pytest.mark.parametrize("end", ["discarded", "closed", "replied", "given up"])
def test_who_waits_for_room_is_told_of_the_end_at_once(end: str) -> None:
    line = Line(max_outbox_size=100, send_timeout=100.0)
    line.fill()
    task = start_thread(line.send, "waited")
    line.wait_waiting()
    if end == "discarded":
        line.connection.discard_output()
    elif end == "closed":
        line.connection.close(NORMAL)
    elif end == "replied":
        line.connection.closing.receive(NORMAL)
        line.connection.reply_to_close()
    else:
        line.connection.give_up(CloseControlMessage(1011))
    with pytest.raises(ConnectionClosed):
        task.result()
    assert line.engine.waiting == 0


def test_where_too_many_wait_nobody_more_does() -> None:
    line = Line(max_outbox_size=100, send_timeout=100.0)
    line.fill()
    line.engine.may_wait = False
    with pytest.raises(SlowConsumer):
        line.send("refused")
    assert line.engine.limits["max_waiting_senders"] == 1
    assert line.engine.waiting == 0
    assert line.write_all() == ["close 1013"]


def test_the_thread_that_polls_writes_instead_of_waiting() -> None:
    line = Line(max_outbox_size=100)
    line.fill()
    line.engine.own_thread = True
    line.engine.write = lambda: bool(line.write_all()) or True
    line.send("more")
    assert len(line.engine.writes_until) == 1
    assert line.engine.waiting == 0
    line.engine.write = lambda: False
    line.fill()
    with pytest.raises(SlowConsumer):
        line.send("refused")
    assert line.engine.limits["send_timeout"] == 1


# --- broadcasts -------------------------------------------------------------------------------------------------------


def offer(line: Line, text: str, policy: Any, key: object = None) -> bool:
    frame = line.connection.stream.encode(FIN | OPCODE_TEXT, text.encode())
    return line.connection.offer(frame, OPCODE_TEXT, len(text), policy, key)


@pytest.mark.parametrize("policy", ["close", "drop", "latest"])
def test_a_broadcast_for_which_there_is_room_is_a_message(policy: str) -> None:
    line = Line()
    assert offer(line, "news", policy)
    assert line.engine.told == 1
    assert line.write_all() == ["news"]


def test_a_broadcast_without_room_may_be_dropped() -> None:
    line = Line(max_outbox_size=100)
    line.fill()
    assert not offer(line, "news", "drop")
    assert line.engine.limits["overflow_drop"] == 1
    assert line.write_all() == ["x" * 1000]


def test_a_broadcast_without_room_may_give_the_peer_up() -> None:
    line = Line(max_outbox_size=100)
    line.fill()
    assert not offer(line, "news", "close")
    assert line.engine.limits["overflow_close"] == 1
    assert line.write_all() == ["close 1013"]


def test_of_broadcasts_without_room_the_newest_of_each_key_may_be_kept() -> None:
    line = Line(max_outbox_size=100)
    line.fill()
    for number in range(3):
        assert offer(line, f"a{number}", "latest", "a")
        assert offer(line, f"b{number}", "latest", "b")
    assert line.write_all() == ["x" * 1000, "a2", "b2"]
    assert line.connection.buffered == 0


@pytest.mark.parametrize("ordered", [False, True])
def test_what_was_kept_does_not_come_after_something_newer(ordered: bool) -> None:
    """There is room again from when the writer takes what waits; what is kept is looked at when that is written."""
    line = Line(max_outbox_size=100)
    if ordered:
        line.connection.sender = Sender(line.connection, threading.RLock())
    line.fill()
    offer(line, "a old", "latest", "a")
    offer(line, "b", "latest", "b")
    output = line.connection.take_output()
    assert output is not None
    if ordered:
        assert line.connection.offer_in_order(OPCODE_TEXT, b"a new", b"", "latest", "a")
    else:
        assert offer(line, "a new", "latest", "a")
    line.messages += line.peer.receive(bytes(output))
    line.connection.output_taken(len(output))
    assert line.write_all() == ["x" * 1000, "a new", "b"]


def test_what_was_kept_is_gone_with_the_connection() -> None:
    line = Line(max_outbox_size=100)
    line.fill()
    offer(line, "news", "latest")
    line.connection.close(NORMAL)
    assert line.write_all() == ["x" * 1000, "close 1000"]


# --- fragments --------------------------------------------------------------------------------------------------------


@roles
@pytest.mark.parametrize("parts", [[], [b""], [b"a"], [b"a", b"b"], [b"", b"a", b"", b"b", b""]])
def test_a_message_in_fragments_is_one_message(client: bool, parts: list[bytes]) -> None:
    line = Line(client)
    line.connection.send_fragments(OPCODE_TEXT, iter(parts))
    assert line.write_all() == [b"".join(parts).decode()]
    assert line.engine.told > 0


@roles
def test_other_messages_wait_for_the_last_fragment_and_pings_do_not(client: bool) -> None:
    line = Line(client)
    stream = line.connection.stream

    def parts() -> Iterator[bytes]:
        yield b"a"
        line.send("other")
        offer_to(line, "news")
        yield b"b"
        line.connection.send_control(stream.encode(FIN | OPCODE_PING, b""))
        yield b"c"

    line.connection.send_fragments(OPCODE_TEXT, parts())
    assert line.write_all() == ["ping", "abc", "other", "news"]


def offer_to(line: Line, text: str) -> None:
    assert offer(line, text, "drop")


@roles
def test_a_close_waits_for_the_last_fragment(client: bool) -> None:
    line = Line(client)

    def parts() -> Iterator[bytes]:
        yield b"a"
        line.send("before")
        line.connection.close(NORMAL)
        with pytest.raises(ConnectionClosed):
            line.send("after")
        yield b"b"

    line.connection.send_fragments(OPCODE_TEXT, parts())
    assert line.write_all() == ["ab", "before", "close 1000"]


@roles
def test_parts_that_cannot_be_made_end_the_connection(client: bool) -> None:
    line = Line(client)

    def parts() -> Iterator[bytes]:
        yield b"a"
        yield b"b"
        line.send("behind half a message there is no place for it")
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        line.connection.send_fragments(OPCODE_TEXT, parts())
    assert line.write_all() == ["close 1011"]


def test_a_second_message_in_fragments_waits_for_the_first() -> None:
    line = Line()
    begun, gate = threading.Event(), threading.Event()

    def parts() -> Iterator[bytes]:
        yield b"a"
        yield b"b"
        begun.set()
        wait_for(gate)
        yield b"c"

    first = start_thread(line.connection.send_fragments, OPCODE_TEXT, parts())
    wait_for(begun)
    second = start_thread(line.connection.send_fragments, OPCODE_TEXT, iter([b"d", b"e"]))
    line.wait_waiting()
    with pytest.raises(SlowConsumer):
        line.connection.send_fragments(OPCODE_TEXT, iter([b"f"]), timeout=0.0)
    with pytest.raises(WebSocketException):
        line.connection.send_fragments(OPCODE_TEXT, iter([b"g"]), timeout=0.01)
    gate.set()
    first.result()
    second.result()
    assert line.write_all() == ["abc", "de"]
    assert line.engine.waiting == 0


def test_who_waits_for_anothers_fragments_is_told_of_the_close_at_once() -> None:
    line = Line(send_timeout=100.0)
    begun, gate = threading.Event(), threading.Event()

    def parts() -> Iterator[bytes]:
        yield b"a"
        begun.set()
        wait_for(gate)
        yield b"b"

    first = start_thread(line.connection.send_fragments, OPCODE_TEXT, parts())
    wait_for(begun)
    second = start_thread(line.connection.send_fragments, OPCODE_TEXT, iter([b"c"]))
    line.wait_waiting()
    line.connection.close(NORMAL)
    try:
        with pytest.raises(ConnectionClosed):
            second.result()
    finally:
        gate.set()
    first.result()
    assert line.write_all() == ["ab", "close 1000"]


def test_messages_that_wait_for_fragments_do_not_take_their_room() -> None:
    line = Line(max_outbox_size=100)

    def parts() -> Iterator[bytes]:
        yield b"a"
        line.send("x" * 200)
        with pytest.raises(SlowConsumer):
            line.send("more", timeout=0.0)
        yield b"b"
        yield b"c"

    line.connection.send_fragments(OPCODE_TEXT, parts(), timeout=0.0)
    assert line.write_all() == ["abc", "x" * 200]


# --- an idle connection gives its sender back -------------------------------------------------------------------------


def test_a_sender_that_is_given_back_just_when_it_is_asked_for_keeps_its_messages_whole() -> None:
    line = Line()
    lock: Any = line.connection.lock

    def shrink(count: int) -> None:
        if count == 2:  # the sender is made, and has not begun
            lock.before = None
            line.connection.shrink()

    def parts() -> Iterator[bytes]:
        yield b"a"
        yield b"b"
        line.send("other")
        yield b"c"

    lock.before = shrink
    line.connection.send_fragments(OPCODE_TEXT, parts())
    assert lock.before is None
    assert line.write_all() == ["abc", "other"]


def test_a_sender_that_is_given_back_just_when_it_is_about_to_wait_is_told_of_room() -> None:
    line = Line(max_outbox_size=100, send_timeout=100.0)
    line.fill()
    lock: Any = line.connection.lock
    counts: list[int] = []

    def shrink(count: int) -> None:
        counts.append(count)
        if line.connection.sender is not None:  # the sender is made, and has not begun
            lock.before = None
            line.connection.shrink()

    lock.before = shrink
    task = start_thread(line.send, "waited")
    line.wait_waiting()
    line.write_all()
    task.result()
    assert lock.before is None
    assert line.write_all() == ["waited"]


# --- any order --------------------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["send", "fragments", "offer", "latest", "ping"]), st.integers(0, 300)),
        st.tuples(st.just("write"), st.integers(1, 400)),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(
    client=st.booleans(),
    steps=STEPS,
    end=st.sampled_from(["close", "give up", "reply", "nothing"]),
    inner=st.lists(st.sampled_from(["send", "ping", "write", "offer"]), max_size=3),
)
def test_whatever_is_sent_the_peer_understands_it_in_order(
    client: bool, steps: list[tuple[str, int]], end: str, inner: list[str]
) -> None:
    line = Line(client, max_outbox_size=500)
    number = 0
    accepted: list[str] = []

    def text(size: int) -> str:
        nonlocal number
        number += 1
        return f"{number} " + "x" * size

    def step(name: str, size: int) -> None:
        connection = line.connection
        item = text(size)
        if name == "write":
            line.write(size)
        elif name == "offer":
            if offer(line, item, "drop"):
                accepted.append(item)
        elif name == "latest":
            offer(line, item, "latest")
        elif name == "ping":
            ping = connection.stream.encode(FIN | OPCODE_PING, b"")
            connection.send_control(ping, timeout=0.0)
        elif name == "send":
            line.send(item, timeout=0.0)
            accepted.append(item)
        else:
            middle = len(item) // 2
            place = len(accepted)

            def parts() -> Iterator[bytes]:
                accepted.insert(place, item)
                yield item[:middle].encode()
                for other in inner:
                    attempt(other, 20)
                yield item[middle:].encode()

            connection.send_fragments(OPCODE_TEXT, parts(), timeout=0.0)

    def attempt(name: str, size: int) -> None:
        try:
            step(name, size)
        except SlowConsumer:
            pass
        except ConnectionClosed:
            assert line.connection.closing.sent is not None, "half a message was sent, and no room for the rest"

    for name, size in steps:
        attempt(name, size)
    failed = line.connection.closing.sent is not None
    if end == "close":
        line.connection.close(NORMAL)
    elif end == "give up":
        line.connection.give_up(NORMAL)
    elif end == "reply":
        line.connection.closing.receive(NORMAL)
        line.connection.reply_to_close()
    told = [item for item in line.write_all() if item != "ping"]
    closes = [item for item in told if item.startswith("close")]
    assert len(closes) == (failed or end != "nothing")
    assert not closes or told[-1] == closes[0]
    received = [item for item in told if item in accepted]
    assert received == [item for item in accepted if item in received], "in order"
    if not failed and end != "give up":
        assert received == accepted
    assert line.connection.buffered == 0
    assert line.peer.ended is bool(closes)


def test_a_close_frame_is_one_of_ours() -> None:
    line = Line()
    line.connection.close(NORMAL)
    output = line.connection.take_output()
    assert output is not None
    assert output[0] == FIN | OPCODE_CLOSE

"""One connection's inbox and outbox, without a manager: the tests write in its place, as much as they want."""

from __future__ import annotations

import random
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.helpers import PATIENCE, Recorder, Script, quiet, start_thread, until
from ws4py.exc import ConnectionClosed, SlowConsumer, WebSocketException
from ws4py.framing import FIN, OPCODE_BINARY, OPCODE_CLOSE, OPCODE_CONTINUATION, OPCODE_PING, OPCODE_TEXT, build_frame
from ws4py.manager import Limits
from ws4py.manager.connection import ENDED, OPENED, Connection
from ws4py.manager.outbox import WRITE_SIZE
from ws4py.manager.statistics import WorkerCounters
from ws4py.messaging import BinaryMessage, CloseControlMessage, Message, PongControlMessage, TextMessage
from ws4py.streaming import Stream

GOODBYE = CloseControlMessage(1000, "bye")
CLOSE_FRAME = build_frame(FIN | OPCODE_CLOSE, GOODBYE.data)


class NoManager:
    """What a connection asks of its manager, and the transport as well."""

    blocked = False

    def __init__(self) -> None:
        self.attended = 0
        self.limits: list[str] = []
        self.dropped: list[Connection] = []

    def attend(self, connection: Connection) -> None:
        self.attended += 1

    def count_limit(self, name: str) -> None:
        self.limits.append(name)

    def in_own_thread(self) -> bool:
        return False

    def drop(self, connection: Connection) -> None:
        self.dropped.append(connection)


class Line:
    """A connection, and the bytes that have left it."""

    def __init__(self, websocket_class: type[Recorder] = Recorder, **limits: Any) -> None:
        self.socks = socket.socketpair()
        self.websocket = websocket_class(self.socks[0])
        self.manager = NoManager()
        manager: Any = self.manager
        self.connection = Connection(self.websocket, manager, self.socks[0].fileno(), manager, Limits(**limits))
        self.websocket._attach(self.connection, None)
        self.written = b""

    def begin(self) -> bytes | None:
        """Begin to write, and return what is to be written."""
        data = self.connection.take_output()
        return None if data is None else bytes(data)

    def end(self, data: bytes, count: int) -> None:
        """Have the first ``count`` bytes of it written."""
        self.written += data[:count]
        if count == len(data):
            self.connection.output_taken(count)
        else:
            self.connection.output_left(count)

    def write(self, count: int | None = None) -> int:
        """Write at most so many bytes, and return how many."""
        data = self.begin()
        if data is None:
            return 0
        count = len(data) if count is None else min(count, len(data))
        self.end(data, count)
        return count

    def write_all(self) -> None:
        while self.write():
            pass

    def frames(self) -> list[tuple[int, bytes]]:
        """Return the frames that were written; there must be no part of one."""
        frames, data = [], self.written
        while data:
            size, start = data[1], 2
            if size == 126:
                size, start = struct.unpack_from("!H", data, 2)[0], 4
            elif size == 127:
                size, start = struct.unpack_from("!Q", data, 2)[0], 10
            assert len(data) >= start + size, "half a frame was written"
            frames.append((data[0], data[start : start + size]))
            data = data[start + size :]
        return frames

    def messages(self) -> list[Message]:
        """Return what a client makes of it."""
        stream = Stream(always_mask=True, expect_masking=False, max_message_size=None)
        messages = stream.receive(self.written)
        assert stream.error is None, stream.error
        return messages

    def run_turn(self) -> bool:
        return self.connection.run_turn(WorkerCounters())


@pytest.fixture
def lines() -> Iterator[Any]:
    made: list[Line] = []

    def make(*arguments: Any, **limits: Any) -> Line:
        made.append(Line(*arguments, **limits))
        return made[-1]

    yield make
    for line in made:
        for sock in line.socks:
            sock.close()


# --- the outbox -------------------------------------------------------------------------------------------------------


def test_what_piles_up_leaves_in_one_write(lines: Any) -> None:
    line = lines()
    for number in range(100):
        line.websocket.send(f"message {number}")
    assert line.manager.attended == 1
    data = line.begin()
    line.end(data, len(data))
    assert line.begin() is None
    assert [str(message) for message in line.messages()] == [f"message {number}" for number in range(100)]


@pytest.mark.parametrize("step", [1, 2, 3, 7, 64, 1000])
def test_writing_in_pieces_of_any_size_loses_nothing(lines: Any, step: int) -> None:
    line = lines()
    expected = []
    for size in (0, 1, 5, 125, 126, 300):
        line.websocket.send(bytes(size), binary=True)
        line.websocket.ping(b"p")
        expected += [(FIN | OPCODE_BINARY, bytes(size)), (FIN | OPCODE_PING, b"p")]
    while line.write(step):
        pass
    assert line.frames() == expected
    assert line.connection.outbox_size == 0


def test_a_write_that_takes_nothing_changes_nothing(lines: Any) -> None:
    line = lines()
    line.websocket.send("a")
    line.websocket.send("b")
    line.write(0)
    line.write(1)
    line.write(0)
    line.write_all()
    assert line.frames() == [(FIN | OPCODE_TEXT, b"a"), (FIN | OPCODE_TEXT, b"b")]


def test_a_large_outbox_leaves_in_several_writes(lines: Any) -> None:
    line = lines(max_outbox_size=1 << 24)
    parts = [bytes([number]) * 100_000 for number in range(20)]
    for part in parts:
        line.websocket.send(part, binary=True)
    assert len(line.begin()) < 2 * WRITE_SIZE
    line.connection.output_left(0)
    random_ = random.Random(3)
    while line.write(random_.randrange(1, 500_000)):
        pass
    assert [payload for _, payload in line.frames()] == parts


def test_while_something_is_being_written_there_is_nothing_else_to_write(lines: Any) -> None:
    """A connection may be marked dirty twice in one batch: a second part may not be taken before the first has left."""
    line = lines()
    line.websocket.send(bytes(WRITE_SIZE), binary=True)
    line.websocket.send("second")
    line.websocket.close()
    line.connection.reply_to_close()
    first = line.begin()
    assert line.begin() is None
    assert not line.connection.sent_all
    line.end(first, 10)
    assert not line.connection.sent_all
    line.write_all()
    assert line.connection.sent_all
    assert [opcode for opcode, _ in line.frames()] == [FIN | OPCODE_BINARY, FIN | OPCODE_TEXT, FIN | OPCODE_CLOSE]


def test_what_was_sent_while_something_was_being_written_comes_behind_it(lines: Any) -> None:
    line = lines()
    line.websocket.send("first")
    data = line.begin()
    line.websocket.send("second")
    line.end(data, 3)
    line.write_all()
    assert [payload for _, payload in line.frames()] == [b"first", b"second"]


def test_the_manager_is_told_of_what_comes_after_it_has_looked(lines: Any) -> None:
    line = lines()
    for number in range(1, 5):
        line.websocket.send("x")
        line.websocket.send("y")
        assert line.manager.attended == number
        line.write_all()


def test_nothing_follows_a_close(lines: Any) -> None:
    line = lines()
    line.websocket.send("last")
    line.websocket.close(1000, "bye")
    line.websocket.close(1001)
    for payload in ("x", b"x", iter(["x"])):
        with pytest.raises(ConnectionClosed):
            line.websocket.send(payload)
    with pytest.raises(ConnectionClosed):
        line.websocket.ping("x")
    assert not line.connection.offer(b"xx", "close")
    line.connection.offer_control(b"xx")
    line.write_all()
    assert line.frames() == [(FIN | OPCODE_TEXT, b"last"), (FIN | OPCODE_CLOSE, GOODBYE.data)]


# --- room -------------------------------------------------------------------------------------------------------------


def test_send_waits_for_room(lines: Any) -> None:
    line = lines(max_outbox_size=1000)
    line.websocket.send(bytes(1000), binary=True)
    task = start_thread(line.websocket.send, "waits")
    until(lambda: line.manager.limits == ["outbox"])
    assert line.frames() == []
    line.write(5)
    task.result()
    line.write_all()
    assert [payload for _, payload in line.frames()] == [bytes(1000), b"waits"]


def test_a_message_of_any_size_goes_into_an_outbox_with_room(lines: Any) -> None:
    line = lines(max_outbox_size=10)
    line.websocket.send("x")
    line.websocket.send(bytes(100_000), binary=True)
    line.write_all()
    assert len(line.frames()) == 2


def test_a_message_that_waits_for_room_is_not_sent_behind_a_close(lines: Any) -> None:
    line = lines(max_outbox_size=1000)
    line.websocket.send(bytes(1000), binary=True)
    task = start_thread(line.websocket.send, "too late")
    until(lambda: line.manager.limits == ["outbox"])
    line.websocket.close(1000, "bye")
    line.write_all()
    with pytest.raises(ConnectionClosed):
        task.result()
    line.write_all()
    assert line.frames()[1:] == [(FIN | OPCODE_CLOSE, GOODBYE.data)]


def test_a_sender_that_waits_is_told_when_the_connection_is_lost(lines: Any) -> None:
    line = lines(max_outbox_size=1000, send_timeout=PATIENCE)
    line.websocket.send(bytes(1000), binary=True)
    tasks = [start_thread(line.websocket.send, "x") for _ in range(3)]
    until(lambda: len(line.manager.limits) == 3)
    line.connection.discard_output()
    for task in tasks:
        with pytest.raises(ConnectionClosed):
            task.result()
    assert line.begin() is None
    assert line.connection.sent_all


def test_a_sender_that_waits_in_vain_gives_the_peer_up(lines: Any) -> None:
    line = lines(max_outbox_size=1000, send_timeout=0.05)
    line.websocket.send(bytes(1000), binary=True)
    with pytest.raises(SlowConsumer, match=r"0\.05 seconds"):
        line.websocket.send("x")
    assert line.manager.limits == ["outbox", "send_timeout"]
    with pytest.raises(ConnectionClosed):
        line.websocket.send("x")
    line.write_all()
    assert line.frames() == [(FIN | OPCODE_CLOSE, struct.pack("!H", 1013) + b"Slow consumer")]


@pytest.mark.parametrize("first", [0, 1, 9, 10, 11])
@pytest.mark.parametrize("step", [1, 3, 1000])
@pytest.mark.parametrize("while_writing", [False, True])
def test_giving_up_finishes_the_frame_that_is_half_written(
    lines: Any, first: int, step: int, while_writing: bool
) -> None:
    """Frames of 10 bytes: whatever of them has left, the Close follows a whole one, and is never lost."""
    line = lines()
    for number in range(5):
        line.websocket.send(bytes([48 + number]) * 8, binary=True)
    if while_writing:
        data = line.begin()
        line.connection.give_up(GOODBYE)
        line.end(data, first)
    else:
        line.write(first)
        line.connection.give_up(GOODBYE)
    while line.write(step):
        pass
    whole = -(-first // 10)
    frames = line.frames()
    assert [payload for _, payload in frames[:-1]] == [bytes([48 + number]) * 8 for number in range(whole)]
    assert frames[-1] == (FIN | OPCODE_CLOSE, GOODBYE.data)
    assert line.connection.outbox_size == 0
    assert line.connection.sent_all


def test_giving_up_while_all_of_it_is_written(lines: Any) -> None:
    line = lines()
    line.websocket.send("one")
    data = line.begin()
    line.connection.give_up(GOODBYE)
    line.end(data, len(data))
    while line.write(1):
        pass
    assert line.frames() == [(FIN | OPCODE_TEXT, b"one"), (FIN | OPCODE_CLOSE, GOODBYE.data)]


# --- broadcasts -------------------------------------------------------------------------------------------------------

OFFERED = build_frame(FIN | OPCODE_TEXT, b"offered")


@pytest.mark.parametrize("overflow", ["close", "drop", "latest"])
def test_an_offer_is_taken_where_there_is_room(lines: Any, overflow: Any) -> None:
    line = lines(max_outbox_size=10)
    line.websocket.send("x")
    assert line.connection.offer(OFFERED, overflow)
    line.write_all()
    assert [payload for _, payload in line.frames()] == [b"x", b"offered"]
    assert line.manager.limits == []


def test_an_offer_without_room_closes(lines: Any) -> None:
    line = lines(max_outbox_size=5)
    line.websocket.send(bytes(10), binary=True)
    line.write(3)
    assert not line.connection.offer(OFFERED, "close")
    assert line.manager.limits == ["overflow_close"]
    line.write_all()
    assert line.frames() == [
        (FIN | OPCODE_BINARY, bytes(10)),
        (FIN | OPCODE_CLOSE, struct.pack("!H", 1013) + b"Slow consumer"),
    ]


def test_an_offer_without_room_is_dropped(lines: Any) -> None:
    line = lines(max_outbox_size=10)
    line.websocket.send(bytes(10), binary=True)
    assert not line.connection.offer(OFFERED, "drop")
    line.write_all()
    line.websocket.send("after")
    line.write_all()
    assert [payload for _, payload in line.frames()] == [bytes(10), b"after"]
    assert line.manager.limits == ["overflow_drop"]


def test_of_offers_without_room_the_latest_is_kept(lines: Any) -> None:
    line = lines(max_outbox_size=10)
    line.websocket.send(bytes(10), binary=True)
    for number in range(5):
        assert line.connection.offer(build_frame(FIN | OPCODE_TEXT, b"%d" % number), "latest")
    line.write(8)
    line.websocket.send("after")
    line.write_all()
    assert [payload for _, payload in line.frames()] == [bytes(10), b"4", b"after"]
    assert line.manager.limits == ["overflow_latest"] * 5


# --- fragments --------------------------------------------------------------------------------------------------------


def test_a_generator_is_sent_as_it_is_made(lines: Any) -> None:
    line = lines()

    def parts() -> Iterator[str]:
        yield "one"
        yield "two"
        line.write_all()
        assert line.frames() == [(OPCODE_TEXT, b"one")]
        yield "three"

    line.websocket.send(parts())
    line.write_all()
    assert line.frames() == [(OPCODE_TEXT, b"one"), (OPCODE_CONTINUATION, b"two"), (FIN, b"three")]


@pytest.mark.parametrize("parts", [[], [b""], [b"one"]])
def test_a_generator_of_one_part_or_none_is_one_frame(lines: Any, parts: list[bytes]) -> None:
    line = lines()
    line.websocket.send(iter(parts), binary=True)
    line.write_all()
    assert line.frames() == [(FIN | OPCODE_BINARY, b"".join(parts))]


def test_messages_wait_for_a_generators_end_and_control_frames_do_not(lines: Any) -> None:
    line = lines()

    def parts() -> Iterator[str]:
        yield "one"
        line.websocket.send("whole")
        line.connection.offer(OFFERED, "close")
        line.websocket.ping("ping")
        yield "two"

    line.websocket.send(parts())
    line.write_all()
    assert line.frames() == [
        (FIN | OPCODE_PING, b"ping"),
        (OPCODE_TEXT, b"one"),
        (FIN | OPCODE_CONTINUATION, b"two"),
        (FIN | OPCODE_TEXT, b"whole"),
        (FIN | OPCODE_TEXT, b"offered"),
    ]


def test_a_close_waits_for_a_generators_end(lines: Any) -> None:
    line = lines()

    def parts() -> Iterator[str]:
        yield "one"
        yield "two"
        line.websocket.send("whole")
        line.websocket.close(1000, "bye")
        with pytest.raises(ConnectionClosed):
            line.websocket.send("too late")
        line.websocket.ping("ping")
        yield "three"

    line.websocket.send(parts())
    line.write_all()
    assert [payload for _, payload in line.frames()] == [b"one", b"ping", b"two", b"three", b"whole", GOODBYE.data]
    assert str(line.messages()[1]) == "onetwothree"


def test_two_generators_follow_each_other(lines: Any) -> None:
    line = lines()
    begun, go_on = threading.Event(), threading.Event()

    def parts() -> Iterator[str]:
        yield "a"
        yield "b"
        begun.set()
        assert go_on.wait(PATIENCE)
        yield "c"

    first = start_thread(line.websocket.send, parts())
    assert begun.wait(PATIENCE)
    second = start_thread(line.websocket.send, iter("xyz"))
    go_on.set()
    first.result()
    second.result()
    line.write_all()
    assert [str(message) for message in line.messages()] == ["abc", "xyz"]


def test_a_generator_waits_for_another_only_so_long(lines: Any) -> None:
    line = lines(send_timeout=0.05)

    def parts() -> Iterator[str]:
        yield "a"
        with pytest.raises(WebSocketException, match="does not end"):
            line.websocket.send(iter("xyz"))
        yield "b"

    line.websocket.send(parts())
    line.write_all()
    assert [str(message) for message in line.messages()] == ["ab"]


def test_what_waits_for_a_generator_is_not_in_its_way(lines: Any) -> None:
    """However much others have sent meanwhile, the generator itself goes on, so that it comes to its end."""
    line = lines(max_outbox_size=1000, send_timeout=0.05)

    def parts() -> Iterator[str]:
        yield "one"
        yield "two"
        line.websocket.send(bytes(1000), binary=True)
        line.write_all()
        yield "three"
        yield "four"

    line.websocket.send(parts())
    line.write_all()
    assert line.manager.limits == []
    first, second = line.messages()
    assert str(first) == "onetwothreefour"
    assert second.data == bytes(1000)
    assert line.connection.outbox_size == 0


def test_the_limit_holds_for_what_waits_for_a_generator(lines: Any) -> None:
    line = lines(max_outbox_size=1000)

    def parts() -> Iterator[str]:
        yield "one"
        line.websocket.send(bytes(1000), binary=True)
        task.append(start_thread(line.websocket.send, "waits"))
        until(lambda: line.manager.limits == ["outbox"])
        assert not line.connection.offer(OFFERED, "drop")
        yield "two"

    task: list[Any] = []
    line.websocket.send(parts())
    line.write(100)
    task[0].result()
    line.write_all()
    assert [message.data for message in line.messages()] == [b"onetwo", bytes(1000), b"waits"]
    assert line.connection.outbox_size == 0


def test_the_outboxs_size_stays_true_through_partial_writes_and_generators(lines: Any) -> None:
    line = lines()

    def parts() -> Iterator[str]:
        for _ in range(3):
            yield "part" * 10
            line.websocket.send("whole" * 10)
            line.write(7)

    line.websocket.send(parts())
    while line.write(7):
        assert line.connection.outbox_size >= 0
    assert line.connection.outbox_size == 0
    assert len(line.messages()) == 4


class OwnError(Exception):
    pass


@pytest.mark.parametrize("error", [OwnError(), ConnectionClosed("of another websocket"), KeyboardInterrupt()])
def test_a_generator_that_raises_ends_the_connection(lines: Any, error: BaseException) -> None:
    """Half a message can't be taken back, and nothing but a Close may follow it."""
    line = lines()

    def parts() -> Iterator[str]:
        yield "one"
        yield "two"
        line.websocket.send("whole")
        raise error

    with pytest.raises(type(error)):
        line.websocket.send(parts())
    with pytest.raises(ConnectionClosed):
        line.websocket.send("x")
    line.write_all()
    assert line.frames() == [(OPCODE_TEXT, b"one"), (FIN | OPCODE_CLOSE, struct.pack("!H", 1011))]
    assert line.connection.outbox_size == 0


def test_a_bad_part_ends_the_connection(lines: Any) -> None:
    line = lines()
    parts: Any = iter(["one", "two", 3])
    with pytest.raises(ValueError, match="Unsupported type"):
        line.websocket.send(parts)
    line.write_all()
    assert line.frames()[-1] == (FIN | OPCODE_CLOSE, struct.pack("!H", 1011))


def test_any_mixture_is_a_valid_stream(lines: Any) -> None:
    """Messages, generators, control frames and partial writes in a random order, checked by a parser."""
    for seed in range(60):
        random_ = random.Random(seed)
        line = lines(max_outbox_size=1 << 30)
        sent: list[bytes] = []
        waiting: list[bytes] = []

        def act(line: Line, random_: random.Random, sent: list[bytes], waiting: list[bytes] | None) -> None:
            choice = random_.randrange(5)
            if choice == 0:
                line.write(random_.randrange(200))
            elif choice == 1:
                line.websocket.ping(b"ping")
            else:
                data = random_.randbytes(random_.randrange(100))
                line.websocket.send(data, binary=True)
                (sent if waiting is None else waiting).append(data)

        def parts(
            line: Line = line,
            random_: random.Random = random_,
            sent: list[bytes] = sent,
            waiting: list[bytes] = waiting,
        ) -> Iterator[bytes]:
            whole = b""
            for _ in range(random_.randrange(4)):
                act(line, random_, sent, waiting)
                part = random_.randbytes(random_.randrange(100))
                whole += part
                yield part
                act(line, random_, sent, waiting)
            sent.append(whole)

        for _ in range(20):
            if random_.random() < 0.3:
                line.websocket.send(parts(), binary=True)
                sent += waiting
                waiting.clear()
            else:
                act(line, random_, sent, None)
        line.write_all()
        data = [message.data for message in line.messages() if isinstance(message, BinaryMessage)]
        assert data == sent, seed
        assert line.connection.outbox_size == 0


def test_many_threads_never_interleave(lines: Any) -> None:
    line = lines(max_outbox_size=5000)
    stop = threading.Event()

    def send(name: str) -> None:
        for number in range(100):
            if number % 3:
                line.websocket.send(f"{name} {number}" * 10)
            else:
                line.websocket.send(f"{name} {number}" for _ in range(10))
            if number % 10 == 0:
                line.websocket.ping(name)

    def write() -> None:
        random_ = random.Random(5)
        while not stop.is_set():
            line.write(random_.randrange(3000))
        line.write_all()

    writer = start_thread(write)
    for task in [start_thread(send, name) for name in "abcdefgh"]:
        task.result()
    stop.set()
    writer.result()
    messages = [str(message) for message in line.messages() if isinstance(message, TextMessage)]
    assert len(messages) == 800
    for name in "abcdefgh":
        assert [message for message in messages if message[0] == name] == [
            f"{name} {number}" * 10 for number in range(100)
        ]
    assert line.connection.outbox_size == 0


# --- the inbox --------------------------------------------------------------------------------------------------------


def text(*texts: str) -> list[Any]:
    return [TextMessage(item) for item in texts]


def test_opened_is_in_the_inbox_from_the_start(lines: Any) -> None:
    line = lines()
    assert line.connection.schedule()
    assert not line.run_turn()
    assert line.websocket.events == [("opened",)]


def test_a_connection_is_scheduled_once(lines: Any) -> None:
    line = lines()
    assert line.connection.schedule()
    assert not line.connection.schedule()
    assert not line.connection.deliver(text("a"), 1)
    assert not line.run_turn()
    assert line.websocket.events == [("opened",), ("message", b"a")]
    assert line.connection.idle
    assert not line.connection.schedule()
    assert line.connection.deliver(text("b"), 1)
    assert not line.connection.idle


def test_what_comes_during_a_turn_makes_another(lines: Any) -> None:
    def on_message(websocket: Recorder, message: Message) -> None:
        if message.data == b"a":
            assert not line.connection.deliver(text("c"), 1)

    line = lines(Script.of(message=on_message))
    line.connection.schedule()
    line.connection.deliver(text("a", "b"), 2)
    assert line.run_turn()
    assert line.websocket.messages == [b"a", b"b"]
    assert not line.run_turn()
    assert line.websocket.messages == [b"a", b"b", b"c"]


@pytest.mark.parametrize("limits", [{"max_inbox_messages": 3}, {"max_inbox_size": 30}])
def test_a_full_inbox_starves_the_connection_until_it_is_taken(lines: Any, limits: dict[str, int]) -> None:
    line = lines(**limits)
    line.connection.schedule()
    line.run_turn()
    for number in range(3):
        assert not line.connection.starved
        line.connection.deliver(text("0123456789"), 10)
        assert line.connection.inbox_length == number + 1
    assert line.connection.starved
    assert line.connection.refresh_starved()
    attended = line.manager.attended
    line.run_turn()
    assert line.manager.attended > attended
    assert not line.connection.refresh_starved()
    assert len(line.websocket.messages) == 3


def test_a_full_outbox_stops_the_callbacks_and_room_lets_them_go_on(lines: Any) -> None:
    """The rest of a turn waits in the inbox, in order, and no worker waits with it."""

    def on_message(websocket: Recorder, message: Message) -> None:
        websocket.send(bytes(1000), binary=True)

    line = lines(Script.of(message=on_message), max_outbox_size=1500)
    line.connection.schedule()
    line.connection.deliver(text(*"abcdef"), 6)
    assert not line.run_turn()
    assert line.websocket.messages == [b"a", b"b"]
    assert not line.connection.schedule()
    line.connection.deliver(text("g"), 1)
    assert line.connection.inbox_length == 5
    line.write_all()
    assert line.connection.schedule()
    assert not line.run_turn()
    assert line.websocket.messages == [b"a", b"b", b"c", b"d"]
    for _ in range(2):
        line.write_all()
        line.connection.schedule()
        line.run_turn()
    assert b"".join(line.websocket.messages) == b"abcdefg"
    assert line.manager.limits == []


def test_closed_comes_last_and_once(lines: Any) -> None:
    line = lines()
    line.connection.schedule()
    line.connection.deliver([*text("a"), PongControlMessage(b"p"), ENDED], 1)
    line.run_turn()
    assert line.websocket.events == [
        ("opened",),
        ("message", b"a"),
        ("ponged", b"p"),
        ("closed", 1006, "Going away"),
    ]
    assert line.connection.finished
    assert line.websocket.stream is None


def test_after_an_exception_messages_are_passed_over_but_not_closed(lines: Any) -> None:
    def on_message(websocket: Recorder, message: Message) -> None:
        raise OwnError

    line = lines(Script.of(message=on_message))
    line.connection.schedule()
    line.connection.deliver([*text("a", "b"), PongControlMessage(b"p"), ENDED], 2)
    with quiet() as records:
        line.run_turn()
    assert [event[0] for event in line.websocket.events] == ["opened", "message", "closed"]
    assert [type(error) for error in line.websocket.errors] == [OwnError]
    assert len(records) == 1
    assert records[0].exc_info is not None
    line.write_all()
    assert line.frames() == [(FIN | OPCODE_CLOSE, struct.pack("!H", 1011))]


def test_the_reply_to_a_close_does_not_wait_for_closed(lines: Any) -> None:
    attended: list[int] = []

    def on_closed(websocket: Recorder, code: int, reason: object) -> None:
        attended.append(line.manager.attended)
        line.write_all()

    line = lines(Script.of(closed=on_closed))
    line.connection.schedule()
    line.run_turn()
    line.connection.deliver([ENDED], 0)
    line.websocket.stream.closing = GOODBYE
    before = line.manager.attended
    line.run_turn()
    assert attended[0] > before
    assert line.frames() == [(FIN | OPCODE_CLOSE, struct.pack("!H", 1000))]


def test_the_items_of_an_inbox_that_are_no_messages_have_their_own_opcodes() -> None:
    assert OPENED is not ENDED
    assert OPENED.opcode > 0x0F
    assert ENDED.opcode > 0x0F


def test_a_turn_ends_though_its_callback_has_forked_while_another_thread_held_the_lock(lines: Any) -> None:
    def fork(websocket: Any, _: Message) -> None:
        websocket._connection._lock.acquire()  # for ever: in the child there is no such thread
        websocket._connection.after_fork_in_child()

    line = lines(Script.of(message=fork))
    line.connection.deliver([TextMessage("one")], 3)
    assert start_thread(line.run_turn).result() is False

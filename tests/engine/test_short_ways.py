"""Ways that were made short for nearly every message: each does what the long way does that it repeats."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from ws4py.engine.connection import PureConnection
from ws4py.engine.outbox import Outbox
from ws4py.engine.reading import Reader
from ws4py.engine.traffic import Traffic
from ws4py.extensions.permessage_deflate import PerMessageDeflate
from ws4py.framing import FIN, OPCODE_BINARY, OPCODE_TEXT
from ws4py.limits import Limits
from ws4py.messaging import BinaryMessage, Message, TextMessage
from ws4py.streaming import Stream

PAYLOADS = [b"", b"x", b"short", b"a" * 125, b"b" * 126, b"c" * 1000, "é".encode(), b"\xff"]
MESSAGES = list(itertools.product([OPCODE_TEXT, OPCODE_BINARY], PAYLOADS))


class LongStream(Stream):
    """Takes no message by the short way."""

    __slots__ = ()

    def take_message(self, data: bytes) -> Message | None:
        return None


class Engine:
    """Writes down what a connection, and its reader, ask of it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.limits: Counter[str] = Counter()
        self.ready: list[Any] = []
        self.read_at = 7.0
        self.counters = SimpleNamespace(controls_received=Counter())

    def make_lock(self) -> Any:
        return threading.RLock()

    def clock(self) -> float:
        return 5.0

    def count_limit(self, name: str) -> None:
        self.limits[name] += 1

    def mark_dirty(self, connection: PureConnection) -> None:
        self.asked.append("look")

    def watch(self, connection: PureConnection) -> None:
        self.asked.append("watch")

    def read_ended(self, owner: Any) -> None:
        self.asked.append("end")


def connect(stream: Stream, **limits: Any) -> tuple[Engine, PureConnection]:
    engine: Any = Engine()
    owner: Any = SimpleNamespace(failed=False)
    return engine, PureConnection(engine, owner, stream, Limits(**limits))


def counted(connection: PureConnection) -> dict[str, int]:
    traffic = connection.traffic or Traffic()
    return {name: getattr(traffic, name) for name in Traffic.__slots__}


def codec() -> Any:
    agreed = PerMessageDeflate(server_no_context_takeover=True).accept(())
    assert agreed is not None
    return agreed[1].codec()


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])
@pytest.mark.parametrize("told", [False, True], ids=["first", "another"])
@pytest.mark.parametrize(("opcode", "payload"), MESSAGES)
def test_sending_a_message_appends_it(opcode: int, payload: bytes, told: bool, compressed: bool) -> None:
    """``send_message``, and ``append`` with the outbox's own: what is counted, what waits, and who is told."""
    found = []
    for short in (True, False):
        stream = Stream()
        if compressed:
            stream.codec = codec()
        engine, connection = connect(stream)
        connection.sender = None
        connection.outbox, connection.traffic, connection.dirty = Outbox(), Traffic(), told
        if short:
            connection.send_message(opcode, payload)
        elif connection.append(stream.encode_message(opcode, payload), opcode, True, len(payload)):
            connection.engine.mark_dirty(connection)
        outbox = connection.outbox
        found.append((counted(connection), outbox.frames, outbox.size, connection.dirty, engine.asked))
    assert found[0] == found[1]
    assert found[0][1:4] == ([stream.encode_message(opcode, payload)], found[0][2], True)


@pytest.mark.parametrize("waiting", [0, 1, 2], ids=["idle", "in a turn", "nearly full"])
@pytest.mark.parametrize(("opcode", "payload"), MESSAGES)
def test_a_message_by_itself_is_taken_in_like_any_other(opcode: int, payload: bytes, waiting: int) -> None:
    """``take_in``, and ``decode`` with its sorting: what is counted, delivered, put on the run queue and paused."""
    found = []
    for kind in (Stream, LongStream):
        engine, connection = connect(kind(expect_masking=False), max_inbox_messages=2)
        if not waiting:
            connection.inbox = None
        connection.scheduled = waiting == 1
        Reader(connection.engine).take_in(connection, Stream().encode(FIN | opcode, payload))
        items = [(item.opcode, getattr(item, "data", None), type(item)) for item in connection.inbox or ()]
        sizes = connection.inbox_size, connection.active_at, connection.heard_at
        states = connection.scheduled, connection.reading_paused, connection.needs_update, connection.stream.ended
        found.append((counted(connection), items, sizes, states, len(engine.ready), engine.asked, engine.limits))
    assert found[0] == found[1]


@pytest.mark.parametrize("opcode", [OPCODE_TEXT, OPCODE_BINARY])
def test_a_message_made_without_its_constructor_is_what_that_makes(opcode: int) -> None:
    data = Stream().encode(FIN | opcode, b"payload")
    taken = Stream(expect_masking=False).take_message(data)
    (received,) = Stream(expect_masking=False).receive_some(data)
    made = TextMessage(b"payload") if opcode == OPCODE_TEXT else BinaryMessage(b"payload")
    for item in (taken, received):
        assert type(item) is type(made)
        assert isinstance(item, Message)
        assert item.__reduce_ex__(2)[2:] == made.__reduce_ex__(2)[2:], "all that it has"

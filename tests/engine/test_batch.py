"""The two batch operations: each result is where its job was, and nothing of one connection touches another's."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.helpers import narrow, start_thread, tcp_pair, until
from ws4py.engine.batch import RECEIVE_SIZE, BatchIO
from ws4py.engine.pollers import EPollPoller, SelectPoller
from ws4py.engine.sockets import take_over
from ws4py.engine.transport import PlainTransport, make_transport

Pair = tuple[PlainTransport, socket.socket]


class Line:
    """What a batch asks of a connection."""

    def __init__(self, transport: PlainTransport) -> None:
        self.transport = transport
        self.fd = transport._sock.fileno()


def receive(io: BatchIO, *transports: PlainTransport) -> list[Any]:
    return io.receive([Line(transport) for transport in transports], time.monotonic())  # type: ignore[misc]


def send(io: BatchIO, *jobs: tuple[PlainTransport, bytes | memoryview]) -> list[Any]:
    return io.send([(Line(transport), data) for transport, data in jobs])  # type: ignore[misc]


@pytest.fixture
def pairs() -> Iterator[list[Pair]]:
    made: list[Pair] = []
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            ours, theirs = tcp_pair()
            ours = stack.enter_context(take_over(ours))
            stack.enter_context(theirs)
            transport = make_transport(ours)
            assert isinstance(transport, PlainTransport)
            made.append((transport, theirs))
        yield made


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def wait_readable(transport: PlainTransport) -> None:
    import select

    assert select.select([transport._sock], [], [], 20)[0]


def test_empty_batches() -> None:
    io = BatchIO()
    assert receive(io) == []
    assert send(io) == []


def test_receive_gives_each_its_own(pairs: list[Pair]) -> None:
    io = BatchIO()
    pairs[0][1].sendall(b"zero")
    pairs[2][1].close()
    reset(pairs[3][1])
    pairs[4][1].sendall(b"four")
    for index in (0, 2, 3, 4):
        wait_readable(pairs[index][0])
    results = receive(io, *(transport for transport, _ in pairs))
    assert list(results[:3]) == [b"zero", None, b""]
    assert isinstance(results[3], OSError)
    assert results[4] == b"four"


def test_what_was_received_is_not_changed_by_what_comes_next(pairs: list[Pair]) -> None:
    io = BatchIO()
    transport, theirs = pairs[0]
    kept = []
    for number in range(3):
        theirs.sendall(b"%d" % number * 1000)
        wait_readable(transport)
        kept += receive(io, transport)
    assert b"".join(part for part in kept if isinstance(part, bytes)) == b"0" * 1000 + b"1" * 1000 + b"2" * 1000


def test_one_batch_takes_a_bounded_part_of_each(pairs: list[Pair]) -> None:
    transport, theirs = pairs[0]
    theirs.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            theirs.send(bytes(1 << 16))
    wait_readable(transport)
    [data] = receive(BatchIO(), transport)
    assert isinstance(data, bytes)
    assert 0 < len(data) <= RECEIVE_SIZE


def test_send_gives_each_its_own(pairs: list[Pair]) -> None:
    io = BatchIO()
    narrow(pairs[1][0]._sock, pairs[1][1])
    big = os.urandom(1 << 22)
    reset(pairs[3][1])
    wait_readable(pairs[3][0])
    receive(io, pairs[3][0])
    results = send(
        io,
        (pairs[0][0], b"zero"),
        (pairs[1][0], big),
        (pairs[2][0], memoryview(b"__two__")[2:5]),
        (pairs[3][0], b"three"),
        (pairs[4][0], b""),
    )
    assert results[0] == 4
    assert isinstance(results[1], int)
    assert 0 < results[1] < len(big)
    assert pairs[1][0].blocked
    assert results[2] == 3
    assert isinstance(results[3], OSError)
    assert results[4] == 0
    assert not pairs[0][0].blocked
    assert not pairs[4][0].blocked
    assert pairs[0][1].recv(100) == b"zero"
    assert pairs[2][1].recv(100) == b"two"
    assert pairs[1][1].recv(100) == big[:100]


def test_a_closed_socket_is_a_result_not_an_exception(pairs: list[Pair]) -> None:
    io = BatchIO()
    pairs[0][0].close()
    [received] = receive(io, pairs[0][0])
    [sent] = send(io, (pairs[0][0], b"x"))
    assert isinstance(received, OSError)
    assert isinstance(sent, OSError)


# --- beside a thread that computes ------------------------------------------------------------------------------------


@pytest.fixture
def kept(pairs: list[Pair]) -> BatchIO:
    """Does as if the interpreter's lock did not come back at once."""
    io = BatchIO()
    if io._kept_lock is None:
        pytest.skip("this system has no such calls")
    io._contention.present = True
    io._contention._until = float("inf")
    return io


def test_with_the_lock_kept_each_gets_its_own_all_the_same(pairs: list[Pair], kept: BatchIO) -> None:
    narrow(pairs[1][0]._sock, pairs[1][1])
    big = os.urandom(1 << 22)
    assert send(kept, (pairs[0][0], b"zero"), (pairs[2][0], memoryview(b"__two__")[2:5])) == [4, 3]
    [count] = send(kept, (pairs[1][0], big))
    assert 0 < count < len(big)
    assert pairs[1][0].blocked
    until(lambda: send(kept, (pairs[1][0], big)) == [0])
    assert pairs[1][0].blocked
    assert (pairs[0][1].recv(100), pairs[2][1].recv(100)) == (b"zero", b"two")
    pairs[0][1].sendall(b"0")
    pairs[2][1].close()
    reset(pairs[3][1])
    for index in (0, 2, 3):
        wait_readable(pairs[index][0])
    results = receive(kept, *(transport for transport, _ in pairs))
    assert results[:3] == [b"0", None, b""]
    assert isinstance(results[3], ConnectionResetError)
    assert isinstance(send(kept, (pairs[3][0], b"x"))[0], OSError)


class Shouting(socket.socket):
    """Has methods of its own."""

    def recv(self, *arguments: Any) -> bytes:
        return super().recv(*arguments).upper()

    def send(self, data: Any, *arguments: Any) -> int:
        return super().send(bytes(data).upper(), *arguments)


def test_with_the_lock_kept_a_socket_of_another_kind_is_used_by_its_methods(kept: BatchIO) -> None:
    """They may do more, and the number may be another file's when such a socket was closed."""
    ours, theirs = tcp_pair()
    with Shouting(fileno=ours.detach()) as own, theirs:
        transport = make_transport(own)
        assert isinstance(transport, PlainTransport)
        theirs.sendall(b"in")
        wait_readable(transport)
        assert receive(kept, transport) == [b"IN"]
        assert send(kept, (transport, b"out")) == [3]
        assert theirs.recv(100) == b"OUT"


def test_a_thread_that_computes_is_noticed(pairs: list[Pair]) -> None:
    io = BatchIO()
    if io._kept_lock is None:
        pytest.skip("this system has no such calls")
    ended = threading.Event()

    def compute() -> None:
        while not ended.is_set():
            sum(range(1000))

    task = start_thread(compute)
    try:
        until(lambda: receive(io, pairs[0][0]) == [None] and io._contention.present)
    finally:
        ended.set()
    task.result()


def test_it_is_noticed_in_the_middle_of_a_batch(pairs: list[Pair], monkeypatch: pytest.MonkeyPatch) -> None:
    """The first calls may be lucky; then the others must not wait for the lock one by one."""
    io = BatchIO()
    if io._kept_lock is None:
        pytest.skip("this system has no such calls")
    for _, peer in pairs:
        peer.sendall(b"x")
    for transport, _ in pairs:
        wait_readable(transport)
    line = [Line(transport) for transport, _ in pairs * 3]
    clock = iter([0.0, 1.0])
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: next(clock))
        received = io.receive(line, 0.0)  # type: ignore[arg-type]
    assert received == [b"x"] * len(pairs) + [None] * 2 * len(pairs)
    assert io._contention.present, "the clock was read twice: after the first few calls, and after some more"


def test_what_is_ready_is_seen_with_the_lock_kept(pairs: list[Pair], kept: BatchIO) -> None:
    """As the poller itself sees it: errors and hang-ups, too."""
    poller = EPollPoller()
    try:
        for transport, _ in pairs:
            poller.register(Line(transport).fd)
        assert kept.poll(poller, 0.0) == []
        assert kept.poll(poller, 0.001) == []
        pairs[0][1].sendall(b"x")
        pairs[1][1].close()
        reset(pairs[2][1])
        poller.modify(Line(pairs[3][0]).fd, 2)
        for index in (0, 1, 2):
            wait_readable(pairs[index][0])
        ready = kept.poll(poller, None)
        assert sorted(ready) == sorted(poller.poll(0.0))
        assert len(ready) == 4
    finally:
        poller.release()


def test_a_poller_of_another_kind_is_asked_by_its_method(pairs: list[Pair], kept: BatchIO) -> None:
    poller = SelectPoller()
    poller.register(Line(pairs[0][0]).fd)
    pairs[0][1].sendall(b"x")
    assert kept.poll(poller, None) == [(Line(pairs[0][0]).fd, 1)]

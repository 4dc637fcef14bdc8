"""The two batch operations: each result is where its job was, and nothing of one connection touches another's."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator

import pytest

from tests.helpers import narrow, tcp_pair
from ws4py.manager.batch import RECEIVE_SIZE, BatchIO
from ws4py.manager.transport import PlainTransport, make_transport

Pair = tuple[PlainTransport, socket.socket]


@pytest.fixture
def pairs() -> Iterator[list[Pair]]:
    made: list[Pair] = []
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            ours, theirs = tcp_pair()
            stack.enter_context(ours)
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
    assert list(io.receive([])) == []
    assert list(io.send([])) == []


def test_receive_gives_each_its_own(pairs: list[Pair]) -> None:
    io = BatchIO()
    pairs[0][1].sendall(b"zero")
    pairs[2][1].close()
    reset(pairs[3][1])
    pairs[4][1].sendall(b"four")
    for index in (0, 2, 3, 4):
        wait_readable(pairs[index][0])
    results = io.receive([transport for transport, _ in pairs])
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
        kept += io.receive([transport])
    assert b"".join(part for part in kept if isinstance(part, bytes)) == b"0" * 1000 + b"1" * 1000 + b"2" * 1000


def test_one_batch_takes_a_bounded_part_of_each(pairs: list[Pair]) -> None:
    transport, theirs = pairs[0]
    theirs.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            theirs.send(bytes(1 << 16))
    wait_readable(transport)
    [data] = BatchIO().receive([transport])
    assert isinstance(data, bytes)
    assert 0 < len(data) <= RECEIVE_SIZE


def test_send_gives_each_its_own(pairs: list[Pair]) -> None:
    io = BatchIO()
    narrow(pairs[1][0]._sock, pairs[1][1])
    big = os.urandom(1 << 22)
    reset(pairs[3][1])
    wait_readable(pairs[3][0])
    io.receive([pairs[3][0]])
    results = io.send(
        [
            (pairs[0][0], b"zero"),
            (pairs[1][0], big),
            (pairs[2][0], memoryview(b"__two__")[2:5]),
            (pairs[3][0], b"three"),
            (pairs[4][0], b""),
        ]
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
    [received] = io.receive([pairs[0][0]])
    [sent] = io.send([(pairs[0][0], b"x")])
    assert isinstance(received, OSError)
    assert isinstance(sent, OSError)

"""Transports: plain, TLS by the ssl module, TLS by pyOpenSSL; alone, and under a manager."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.helpers import PATIENCE, Certificates, EchoRecorder, Recorder, Stage, start_thread, tcp_pair, unix_pair
from ws4py.engine.batch import RECEIVE_SIZE
from ws4py.engine.transport import PlainTransport, TLSTransport, Transport, is_secure, make_transport

PairMaker = Callable[[], tuple[Any, Any]]


@pytest.fixture(params=["unix", "tcp", "ssl", "openssl"])
def make_pair(request: pytest.FixtureRequest) -> PairMaker:
    """Makes pairs of connected sockets, the server's first."""
    if request.param == "unix":
        return unix_pair
    if request.param == "tcp":
        return tcp_pair
    if request.param == "openssl":
        pytest.importorskip("OpenSSL", reason="this needs pyOpenSSL")
    certificates: Certificates = request.getfixturevalue("certificates")
    return certificates.ssl_pair if request.param == "ssl" else certificates.openssl_pair


@pytest.fixture(params=["ssl", "openssl"])
def make_tls_pair(request: pytest.FixtureRequest, certificates: Certificates) -> PairMaker:
    """Likewise, TLS only."""
    if request.param == "openssl":
        pytest.importorskip("OpenSSL", reason="this needs pyOpenSSL")
    return certificates.ssl_pair if request.param == "ssl" else certificates.openssl_pair


class Ends:
    """A transport, and the socket at the other end."""

    def __init__(self, pair: tuple[Any, Any]) -> None:
        self.sock, self.peer = pair
        self.transport: Transport = make_transport(self.sock)
        self.peer.settimeout(PATIENCE)
        self.size = 1 << 17  # that is received at most
        self.fd = self.sock.fileno()

    def receive(self) -> bytes | None:
        try:
            return self.transport.receive(self.size)
        except BlockingIOError:
            return None

    def wait(self, write: bool = False) -> None:
        if not write and self.transport.pending():
            return
        ready = select.select([] if write else [self.fd], [self.fd] if write else [], [], PATIENCE)
        assert any(ready), "the socket has not become ready"

    def receive_exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            self.wait()
            data += self.receive() or b""
        return data

    def receive_end(self) -> bytes:
        """Receive until the end, which the poller or ``pending`` must announce each time. It may be a reset."""
        data = b""
        with contextlib.suppress(ConnectionResetError):
            while True:
                self.wait()
                part = self.receive()
                if part == b"":
                    break
                data += part or b""
        return data

    def peer_receives(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.peer.recv(1 << 16)
            assert part, "the stream has ended"
            data += part
        return data


@pytest.fixture
def ends(make_pair: PairMaker) -> Iterator[Ends]:
    ends = Ends(make_pair())
    yield ends
    ends.transport.close()
    ends.peer.close()


@pytest.fixture
def tls(make_tls_pair: PairMaker) -> Iterator[Ends]:
    ends = Ends(make_tls_pair())
    yield ends
    ends.transport.close()
    ends.peer.close()


def test_which_sockets_are_secure(certificates: Certificates) -> None:
    pytest.importorskip("OpenSSL", reason="this needs pyOpenSSL")
    for make, secure in ((unix_pair, False), (certificates.ssl_pair, True), (certificates.openssl_pair, True)):
        sock, peer = make()
        transport = make_transport(sock)
        assert (is_secure(sock), transport.secure) == (secure, secure)
        assert isinstance(transport, TLSTransport if secure else PlainTransport)
        sock.close()
        peer.close()


def test_nothing_has_come(ends: Ends) -> None:
    assert ends.receive() is None
    assert not ends.transport.pending()


def test_each_message_is_delivered_as_it_comes(ends: Ends) -> None:
    for number in range(20):
        message = b"%d" % number * (number + 1)
        ends.peer.sendall(message)
        assert ends.receive_exactly(len(message)) == message
        assert ends.receive() is None


def test_each_message_is_sent_at_once(ends: Ends) -> None:
    for number in range(20):
        message = b"%d" % number * (number + 1)
        assert ends.transport.send(message) == len(message)
        assert not ends.transport.blocked
        assert ends.peer_receives(len(message)) == message


def test_more_than_is_asked_for_comes_in_pieces(ends: Ends) -> None:
    data = os.urandom(1 << 19)
    task = start_thread(ends.peer.sendall, data)
    assert ends.receive_exactly(len(data)) == data
    task.result()


def test_what_openssl_has_decrypted_is_pending(tls: Ends) -> None:
    """If less than a record is asked for, something is left that no poller shows."""
    tls.size = 100
    tls.peer.sendall(bytes(range(250)))
    data = tls.receive_exactly(100)
    assert tls.transport.pending()
    assert not select.select([tls.fd], [], [], 0)[0]
    data += tls.receive() or b""
    data += tls.receive() or b""
    assert data == bytes(range(250))
    assert not tls.transport.pending()


def test_a_batch_leaves_no_part_of_a_record_behind(tls: Ends) -> None:
    tls.size = RECEIVE_SIZE
    total = 8 * RECEIVE_SIZE
    full = 0
    for _ in range(50):  # until the peer was fast enough to fill a batch
        task = start_thread(tls.peer.sendall, bytes(total))
        received = 0
        while received < total:
            tls.wait()
            size = len(tls.receive() or b"")
            received += size
            if size == RECEIVE_SIZE:
                full += 1
                assert not tls.transport.pending()
        task.result()
        if full:
            return
    raise AssertionError("no batch was full")


def test_a_big_message_to_a_peer_that_reads_late(ends: Ends) -> None:
    """What the kernel does not take is retried, to the letter, when it takes more."""
    data = os.urandom(8 << 20)
    sent = ends.transport.send(data)
    assert ends.transport.blocked
    task = start_thread(ends.peer_receives, len(data))
    while sent < len(data) or ends.transport.blocked:
        ends.wait(write=True)
        sent += ends.transport.send(memoryview(data)[sent:])
    assert task.result() == data
    assert sent == len(data)


def test_a_blocked_tls_transport_keeps_the_order(tls: Ends) -> None:
    first, second = os.urandom(8 << 20), os.urandom(1000)
    sent = tls.transport.send(first)
    assert tls.transport.blocked
    task = start_thread(tls.peer_receives, len(first) + len(second))
    whole = first + second
    while sent < len(whole) or tls.transport.blocked:
        tls.wait(write=True)
        sent += tls.transport.send(whole[sent : sent + 100_000])
    assert task.result() == whole


def test_the_end_of_the_peer(ends: Ends) -> None:
    ends.peer.sendall(b"last words")
    ends.peer.close()
    assert ends.receive_end() == b"last words"


def test_data_and_close_notify_in_one_segment(tls: Ends) -> None:
    """The end that was met behind the data is announced, though TCP stays open and the poller shows nothing."""
    tls.peer.sendall(b"last words")
    tls.peer.setblocking(False)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.peer.unwrap()  # sends close_notify, and would wait for ours
    assert tls.receive_exactly(10) == b"last words"
    tls.wait()
    assert tls.receive() == b""


def test_a_reset_is_an_error_or_an_end_but_loses_no_data_already_taken(tls: Ends) -> None:
    tls.peer.sendall(b"last words")
    assert tls.receive_exactly(10) == b"last words"
    tls.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    tls.peer.close()
    tls.wait()
    try:
        assert tls.receive() == b""
    except OSError:
        assert tls.transport.pending()  # the end is told again to whoever asks again


def test_garbage_behind_good_data(tls: Ends) -> None:
    """A record that is none breaks the connection, after what came before it was handed over."""
    tls.peer.sendall(b"good")
    with socket.socket(fileno=os.dup(tls.peer.fileno())) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\n\r\n" * 10)
        assert tls.receive_exactly(4) == b"good"
        tls.wait()
        with pytest.raises(OSError, match=r".+"):
            tls.receive()


def test_sending_to_a_peer_that_is_gone_is_an_oserror(ends: Ends) -> None:
    ends.peer.close()
    deadline = time.monotonic() + PATIENCE

    def send_on() -> None:
        while time.monotonic() < deadline:
            ends.transport.send(bytes(1000))

    with pytest.raises(OSError, match=r".+"):
        send_on()


def test_finish_ends_our_direction_only(ends: Ends) -> None:
    ends.transport.send(b"last words")
    ends.transport.send_eof()
    assert ends.peer_receives(10) == b"last words"
    assert ends.peer.recv(1) == b""
    if not ends.transport.secure:
        ends.peer.sendall(b"an answer")
        assert ends.receive_exactly(9) == b"an answer"


def test_finish_sends_close_notify(tls: Ends) -> None:
    """A peer that insists on it, as the ssl module does if it may, sees no truncation."""
    tls.peer.suppress_ragged_eofs = False
    tls.transport.send_eof()
    assert tls.peer.recv(1) == b""


def test_without_finish_the_end_is_ragged(tls: Ends) -> None:
    """The counterpart of the test above: it would show a close_notify that is missing."""
    tls.peer.suppress_ragged_eofs = False
    tls.transport.shutdown()
    with pytest.raises((ssl.SSLEOFError, ConnectionResetError)):
        tls.peer.recv(1)


def test_shutdown_keeps_the_descriptor(ends: Ends) -> None:
    ends.transport.shutdown()
    assert ends.sock.fileno() == ends.fd
    with contextlib.suppress(ssl.SSLError, ConnectionError):
        assert ends.peer.recv(1) == b""


def test_the_end_may_come_twice_in_any_order(ends: Ends) -> None:
    transport = ends.transport
    for step in (transport.send_eof, transport.send_eof, transport.shutdown, transport.shutdown, transport.send_eof):
        step()
    transport.close()
    for step in (transport.close, transport.shutdown, transport.send_eof):
        step()
    assert not transport.pending()
    with pytest.raises(OSError, match=r".+"):
        ends.receive()
    with pytest.raises(OSError, match=r".+"):
        transport.send(b"x")


def test_a_wrapper_is_looked_through(certificates: Certificates) -> None:
    """cheroot's object around pyOpenSSL's waits under a lock: the transport uses the one inside."""
    pytest.importorskip("OpenSSL", reason="this needs pyOpenSSL")
    pytest.importorskip("cheroot.ssl.pyopenssl", reason="this needs cheroot")
    connection, peer = certificates.openssl_pair()

    class Wrapper:
        _ssl_conn = connection

        def setblocking(self, flag: bool) -> None:
            connection.setblocking(flag)

        def recv(self, size: int) -> bytes:
            raise AssertionError("the wrapper was read from")

    transport = make_transport(Wrapper())
    assert transport.secure
    with pytest.raises(BlockingIOError):
        transport.receive(100)
    peer.sendall(b"through")
    select.select([connection.fileno()], [], [], PATIENCE)
    assert transport.receive(100) == b"through"
    transport.close()
    peer.close()


# --- under a manager --------------------------------------------------------------------------------------------------


def test_a_manager_delivers_each_message_promptly(stage: Stage, make_pair: PairMaker) -> None:
    """0.6 delivered each message over TLS when the next one came."""
    manager = stage.manager(ping_interval=None)
    websocket, peer = stage.connect(manager, EchoRecorder, make_pair)
    for number in range(50):
        peer.send(peer.text(f"message {number}"))
        assert peer.receive_text() == f"message {number}"
    assert peer.say_goodbye() == (1000, "")
    assert websocket.end() == (1000, b"")


def test_a_manager_echoes_many_messages_in_one_piece(stage: Stage, make_pair: PairMaker) -> None:
    manager = stage.manager(ping_interval=None, max_inbox_messages=5)
    _, peer = stage.connect(manager, EchoRecorder, make_pair)
    peer.send(*(peer.text(f"message {number}") for number in range(500)))
    assert [peer.receive_text() for _ in range(500)] == [f"message {number}" for number in range(500)]


@pytest.mark.parametrize("workers", [0, 4])
def test_a_manager_echoes_big_messages(stage: Stage, make_pair: PairMaker, workers: int) -> None:
    manager = stage.manager(workers=workers, max_message_size=1 << 24, max_outbox_size=1 << 18)
    _, peer = stage.connect(manager, EchoRecorder, make_pair)
    data = os.urandom(3 << 20)
    for _ in range(3):
        peer.send(peer.binary(data))
        assert peer.receive_message() == data


def test_a_manager_ends_tls_in_order(stage: Stage, make_tls_pair: PairMaker) -> None:
    manager = stage.manager()
    websocket, peer = stage.connect(manager, Recorder, make_tls_pair)
    peer.sock.suppress_ragged_eofs = False
    peer.send(peer.goodbye(1000, "bye"))
    assert peer.receive_close() == (1000, "")
    assert peer.sock.recv(1) == b""  # by close_notify
    assert websocket.end() == (1000, b"bye")


def test_a_manager_sees_close_notify_behind_a_message(stage: Stage, make_tls_pair: PairMaker) -> None:
    manager = stage.manager(ping_interval=None)
    websocket, peer = stage.connect(manager, Recorder, make_tls_pair)
    peer.send(peer.text("last words"))
    peer.sock.setblocking(False)
    with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLEOFError):  # it may be gone already
        peer.sock.unwrap()
    assert websocket.end()[0] == 1006
    assert websocket.messages == [b"last words"]


def test_early_bytes_come_before_those_in_the_socket(stage: Stage, make_pair: PairMaker) -> None:
    """Also in the middle of a frame, and when TLS has decrypted the rest already."""
    sock, other = make_pair()
    manager = stage.manager(ping_interval=None)
    websocket, peer = stage.connect(None, EchoRecorder, lambda: (sock, other))
    frames = b"".join(peer.text(f"message {number}") for number in range(4))
    websocket.buf = frames[:30]
    peer.send(frames[30:])
    manager.add(websocket)
    assert [peer.receive_text() for _ in range(4)] == [f"message {number}" for number in range(4)]

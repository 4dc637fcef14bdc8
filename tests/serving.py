"""Servers in processes of their own, and a client on the level of sockets, for the tests.

The client knows nothing of ws4py: it makes and reads frames by itself.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import random
import re
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import trustme

__all__ = [
    "ACCEPT",
    "BINARY",
    "CLOSE",
    "PATIENCE",
    "PING",
    "PONG",
    "ROOT",
    "TEXT",
    "TLS",
    "Frame",
    "Peer",
    "Response",
    "Server",
    "certificates",
    "close_frame",
    "eventually",
    "frame",
    "free_port",
]

ROOT = Path(__file__).parent.parent
PATIENCE = 30.0
"""Seconds until a wait has failed; none is expected to take a tenth of it."""

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455, section 1.3

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def free_port() -> int:
    """Return a port that is free, and that the system gives to no outgoing connection."""
    while True:
        port = random.randrange(10000, 30000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def eventually(condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """Ask again and again until the answer is true; return it.

    For what nothing announces: a port that is to be open, a process that is to end.
    """
    deadline = time.monotonic() + patience
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"in {patience} seconds it did not come true: {what}")
        time.sleep(0.01)
    return answer


class TLS(NamedTuple):
    """The files of a server, and what its clients trust."""

    certificate: str
    key: str
    context: ssl.SSLContext


def _remove(directory: Path, process: int) -> None:
    if os.getpid() == process:  # a forked process that ends in order has this to do, too
        shutil.rmtree(directory)


@functools.cache
def certificates() -> TLS:
    """Return certificates for 127.0.0.1, the same ones for all tests."""
    directory = Path(tempfile.mkdtemp(prefix="ws4py-tests-"))
    atexit.register(_remove, directory, os.getpid())
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return TLS(str(certificate), str(key), context)


# --- the server -------------------------------------------------------------------------------------------------------


class Server:
    """A program in a process of its own; a context manager, that stops it.

    :param options: of the program ``tests.cherrypy_app``.
    :param program: another one, as the interpreter's arguments.
    :param port: that it listens on; a free one by default.
    :param quiet: the log is to have no traceback in the end.
    :param status: that the process is to end with.
    :param environment: variables of the process.
    """

    def __init__(
        self,
        options: Mapping[str, Any] | None = None,
        program: list[str] | None = None,
        port: int | None = None,
        quiet: bool = True,
        status: int | None = 0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.port = port or free_port()
        self.quiet = quiet
        self.status = status
        self.directory = tempfile.TemporaryDirectory(prefix="ws4py-tests-")
        self._log = Path(self.directory.name, "log")
        options = {"port": self.port, **(options or {})}
        self.options = options
        self.tls: ssl.SSLContext | None = None
        if options.get("tls"):
            certificate, key, self.tls = certificates()
            options |= {"certificate": certificate, "key": key}
        program = program or ["-m", "tests.cherrypy_app", json.dumps(options)]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-u", *program],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def host(self) -> str:
        """As the Host header names it."""
        return f"127.0.0.1:{self.port}"

    def url(self, path: str) -> str:
        """Return the address of a websocket."""
        return f"{'wss' if self.tls else 'ws'}://{self.host}{path}"

    def log(self) -> str:
        """Return what the program has written so far."""
        return self._log.read_text(errors="replace")

    def wait_until_ready(self) -> None:
        """Wait until the server answers."""

        def answers() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(f"the server has ended:\n{self.log()}")
            try:
                return self.get("/").status == 200 and "Bus STARTED" in self.log()
            except ConnectionError:
                return False

        try:
            eventually(answers, "the server answers")
        except AssertionError:
            print(self.log())
            raise

    def wait_for_line(self, text: str, times: int = 1) -> None:
        """Wait until the log has a text so many times."""
        eventually(lambda: self.log().count(text) >= times, f"the log says {text!r}")

    def command(self, word: str) -> None:
        """Have the program carry a command out, and wait until it has."""
        times = self.log().count(f"done {word}\n")
        self.tell(word)
        self.wait_for_line(f"done {word}\n", times + 1)

    def tell(self, word: str) -> None:
        """Give the program a command, and don't wait."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n".encode())
        self.process.stdin.flush()

    def wait(self, patience: float = PATIENCE) -> int:
        """Wait for the end of the process; return its status."""
        return self.process.wait(patience)

    def terminate_and(self, do: Callable[[], object]) -> float:
        """Ask the process to end, do something, wait for the end, and return how many seconds that took."""
        began = time.monotonic()
        self.process.terminate()
        do()
        self.wait()
        return time.monotonic() - began

    def __enter__(self) -> Server:
        """Wait until the server answers."""
        try:
            self.wait_until_ready()
        except BaseException:
            self.status = None
            self.kill()
            raise
        return self

    def kill(self) -> None:
        """End the process, and those that it has started, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        self.directory.cleanup()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """Stop the server, and see that it has nothing to complain about."""
        try:
            if self.process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.terminate_and(lambda: None)
            log, status = self.log(), self.process.poll()
        finally:
            self.kill()
        print(log)  # shown by pytest if the test fails
        if kind is None:
            assert status == self.status or self.status is None, f"the server has ended with {status}:\n{log}"
            assert not (self.quiet and complaints(log)), f"the server complains:\n{log}"

    # --- its pages ----------------------------------------------------------------------------------------------------

    def connect_plainly(self) -> socket.socket:
        """Return a new connection, without TLS."""
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def connect(self) -> Peer:
        """Return a new connection."""
        sock = self.connect_plainly()
        try:
            if self.tls is not None:
                sock = self.tls.wrap_socket(sock, server_hostname="127.0.0.1")
            return Peer(sock, self.host)
        except BaseException:
            sock.close()
            raise

    def open(self, path: str, after: bytes = b"", **headers: Any) -> Peer:
        """Return a connection that is a websocket already; see :meth:`Peer.upgrade`."""
        peer = self.connect()
        try:
            response = peer.upgrade(path, after, **headers)
            assert response.status == 101, response
            assert response.get("sec-websocket-accept") == ACCEPT
        except BaseException:
            peer.close()
            raise
        return peer

    def get(self, path: str) -> Response:
        """Return a page, by a connection of its own."""
        with self.connect() as peer:
            return peer.get(path)

    def ask(self, path: str) -> Any:
        """Return what a page says in JSON."""
        response = self.get(path)
        assert response.status == 200, response
        return json.loads(response.body)

    def events(self, tag: str, count: int = 0) -> list[list[Any]]:
        """Return the events of the websockets with a tag, once there are so many."""
        events: list[list[Any]] = self.ask(f"/events?tag={tag}&count={count}")
        assert len(events) >= count, events
        return events

    def state(self, websockets: int | None = None) -> dict[str, Any]:
        """Return the state of the process, once it has so many websockets."""
        state: dict[str, Any] = self.ask("/state" if websockets is None else f"/state?websockets={websockets}")
        return state


def complaints(log: str) -> list[str]:
    """Return the tracebacks of a log, but those that cheroot writes when a client is gone before it has its answer."""
    found = re.finditer(r"^(?:\[.*)?Traceback .*\n(?:[ \t].*\n|\n)*(\S.*)", log, re.MULTILINE)
    gone = re.compile(r"(ssl|OpenSSL)\.SSL|OSError|BrokenPipe|Connection|socket\.timeout|TimeoutError")
    return [match[0] for match in found if "ws4py" in match[0] or not gone.match(match[1])]


# --- the client -------------------------------------------------------------------------------------------------------


class Response(NamedTuple):
    """An HTTP response; the names of its headers are in lower case."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def get(self, name: str) -> str | None:
        """Return the one header of that name, None if there is none."""
        values = [value for key, value in self.headers if key == name]
        assert len(values) <= 1, self.headers
        return values[0] if values else None


class Frame(NamedTuple):
    """A frame that a server has sent."""

    fin: bool
    opcode: int
    payload: bytes

    @property
    def code(self) -> int | None:
        """Of a Close."""
        assert self.opcode == CLOSE, self
        return int.from_bytes(self.payload[:2], "big") if self.payload else None


def frame(payload: bytes | str = b"", opcode: int | None = None, fin: bool = True, mask: bool = True) -> bytes:
    """Return a frame of a client; text if the payload is a str."""
    if isinstance(payload, str):
        payload, opcode = payload.encode(), TEXT if opcode is None else opcode
    opcode = BINARY if opcode is None else opcode
    size = len(payload)
    bit = 0x80 if mask else 0
    if size < 126:
        head = struct.pack("!BB", fin << 7 | opcode, bit | size)
    elif size < 65536:
        head = struct.pack("!BBH", fin << 7 | opcode, bit | 126, size)
    else:
        head = struct.pack("!BBQ", fin << 7 | opcode, bit | 127, size)
    if not mask:
        return head + payload
    key = random.randbytes(4)
    number = int.from_bytes(payload, "big") ^ int.from_bytes((key * (size // 4 + 1))[:size], "big")
    return head + key + number.to_bytes(size, "big")


def close_frame(code: int | None = 1000, reason: str = "") -> bytes:
    """Return a Close of a client."""
    return frame(b"" if code is None else code.to_bytes(2, "big") + reason.encode(), CLOSE)


class Peer:
    """One end of a connection, which every read of waits for the server for a limited time."""

    def __init__(self, sock: socket.socket, host: str) -> None:
        self.sock = sock
        self.host = host
        self._buffer = b""

    def __enter__(self) -> Peer:
        """Do nothing."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the socket."""
        self.close()

    def close(self) -> None:
        """Close the socket, without a word to the server."""
        self.sock.close()

    def reset(self) -> None:
        """Vanish: the server gets a TCP reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    # --- HTTP ---------------------------------------------------------------------------------------------------------

    def request(self, path: str, method: str = "GET", **headers: Any) -> bytes:
        """Return a request; the names of the headers have underscores for dashes, and None leaves one out."""
        lines = [f"{method} {path} HTTP/1.1"]
        for name, value in {"Host": self.host, **headers}.items():
            if value is not None:
                lines.append(f"{name.replace('_', '-')}: {value}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def handshake(self, path: str, method: str = "GET", **headers: Any) -> bytes:
        """Return the request for a websocket, headers of which may be changed."""
        usual = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec_WebSocket_Version": "13",
            "Sec_WebSocket_Key": KEY,
        }
        return self.request(path, method, **{**usual, **headers})

    def upgrade(self, path: str, after: bytes = b"", **headers: Any) -> Response:
        """Ask for a websocket, with bytes in the same segment; return the answer."""
        self.sock.sendall(self.handshake(path, **headers) + after)
        return self.read_response()

    def get(self, path: str, **headers: Any) -> Response:
        """Ask for a page."""
        self.sock.sendall(self.request(path, **headers))
        return self.read_response()

    def read_response(self, body: bool = True) -> Response:
        """Read a response.

        :param body: whether it has one; an answer to HEAD has not.
        """
        head = self._read_until(b"\r\n\r\n").decode("latin-1")
        first, *lines = head[:-4].split("\r\n")
        version, status = first.split(" ")[:2]
        assert version == "HTTP/1.1" or (version == "HTTP/1.0" and status != "101"), first
        headers = []
        for line in lines:
            name, _, value = line.partition(":")
            headers.append((name.lower(), value.strip()))
        response = Response(int(status), headers, b"")
        if response.status < 200 or not body:
            return response
        return response._replace(body=self._read_body(response))

    def _read_body(self, response: Response) -> bytes:
        if response.get("transfer-encoding") == "chunked":
            parts = []
            while size := int(self._read_until(b"\r\n"), 16):
                parts.append(self.read(size + 2)[:-2])
            assert self.read(2) == b"\r\n"
            return b"".join(parts)
        length = response.get("content-length")
        return self.read_to_the_end() if length is None else self.read(int(length))

    # --- bytes --------------------------------------------------------------------------------------------------------

    def _receive(self) -> bytes:
        data = self.sock.recv(65536)
        self._buffer += data
        return data

    def _read_until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            if not self._receive():
                raise ConnectionResetError(f"the server has ended the connection after {self._buffer!r}")
        end = self._buffer.index(mark) + len(mark)
        return self._take(end)

    def _take(self, count: int) -> bytes:
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    def read(self, count: int) -> bytes:
        """Read so many bytes."""
        if len(self._buffer) < count:
            parts, have = [self._buffer], len(self._buffer)
            self._buffer = b""
            while have < count:
                data = self.sock.recv(min(1 << 20, count - have))
                if not data:
                    raise ConnectionResetError(f"the server has ended the connection after {b''.join(parts)[-100:]!r}")
                parts.append(data)
                have += len(data)
            return b"".join(parts)
        return self._take(count)

    def read_to_the_end(self) -> bytes:
        """Read until the server ends the connection, in order or by a reset."""
        with contextlib.suppress(ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
            while self._receive():
                pass
        return self._take(len(self._buffer))

    # --- frames -------------------------------------------------------------------------------------------------------

    def send(self, payload: bytes | str, opcode: int | None = None) -> None:
        """Send a message, text if it is a str, or a control frame."""
        self.sock.sendall(frame(payload, opcode))

    def receive(self) -> Frame:
        """Read a frame, which must not be masked."""
        first, second = self.read(2)
        assert not second & 0x80
        assert not first & 0x70
        size = second & 0x7F
        if size >= 126:
            size = int.from_bytes(self.read(2 if size == 126 else 8), "big")
        return Frame(bool(first & 0x80), first & 0x0F, self.read(size))

    def message(self) -> str | bytes:
        """Read a message that is one frame."""
        received = self.receive()
        assert received.fin, received
        assert received.opcode in (TEXT, BINARY), received
        return received.payload.decode() if received.opcode == TEXT else received.payload

    def echo(self, payload: bytes | str) -> float:
        """Send a message, and read the same; return how many seconds that took."""
        began = time.monotonic()
        self.send(payload)
        assert self.message() == payload
        return time.monotonic() - began

    def finish(self, code: int | None = 1000) -> None:
        """Close the websocket, and read what the server says to that: its answer, and the end of the connection."""
        self.sock.sendall(close_frame(code))
        answer = self.receive()
        assert answer.code == code
        assert self.read_to_the_end() == b""
        self.close()

    def finish_after_close(self, code: int) -> None:
        """Answer the server's Close, and read the end of the connection."""
        self.sock.sendall(close_frame(code))
        assert self.read_to_the_end() == b""
        self.close()

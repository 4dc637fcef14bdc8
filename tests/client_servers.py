"""Servers for the tests of the clients: one that we did not write, and sockets that answer what a test wants."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

from tests.helpers import PATIENCE, Peer
from ws4py.handshake import accept_key

Script = Callable[[socket.socket], None]


def read_request(sock: socket.socket) -> dict[str, str]:
    """Read the head of a request; return its headers by their names in lower case, and its first line as ``""``."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        part = sock.recv(1)
        if not part:
            raise EOFError(data)
        data += part
    first, *lines = data.decode("latin-1").strip().split("\r\n")
    return {"": first} | {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}


def answer(request: dict[str, str], *lines: str) -> bytes:
    """Return the head of the 101 for a request."""
    head = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept_key(request['sec-websocket-key'])}",
        *lines,
    ]
    return "\r\n".join([*head, "", ""]).encode()


def accept(sock: socket.socket, after: bytes = b"", *lines: str) -> Peer:
    """Do the server's part of the handshake, with ``after`` in the same segment."""
    request = read_request(sock)
    sock.sendall(answer(request, *lines) + after)
    return Peer(sock, masking=False)


class Scripted:
    """A server that runs a script for each connection, in a thread of its own."""

    def __init__(self, script: Script, context: ssl.SSLContext | None = None, path: str | None = None) -> None:
        self._script = script
        self._context = context
        self._listener = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
        self._listener.bind(path or ("127.0.0.1", 0))
        self._listener.listen(16)
        self.port = 0 if path else self._listener.getsockname()[1]
        self.host = "localhost" if context else "127.0.0.1"
        self.connections = 0
        self.errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"{'wss' if self._context else 'ws'}://{self.host}:{self.port}/"

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            if self._threads is None:
                sock.close()
                return
            self.connections += 1
            thread = threading.Thread(target=self._run, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE)
        try:
            if self._context is not None:
                sock = self._context.wrap_socket(sock, server_side=True)
            self._script(sock)
        except (EOFError, ConnectionError, ssl.SSLError):
            pass  # the client went away
        except BaseException as error:  # noqa: BLE001 - the test is told at its end
            self.errors.append(error)
        finally:
            sock.close()

    def __enter__(self) -> Scripted:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in list(self._threads):
            thread.join(PATIENCE)
            assert kind is not None or not thread.is_alive(), "a script has not ended"
        assert kind is not None or not self.errors, self.errors


@contextlib.contextmanager
def foreign_server(context: ssl.SSLContext | None = None, **options: Any) -> Iterator[str]:
    """Run an echo server of the package websockets; give its URL. The message "bye" has it close with 4321."""
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.server import ServerConnection, serve

    def handle(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            for message in connection:
                if message == "bye":
                    connection.close(4321, "so long")
                connection.send(message)

    with serve(handle, "127.0.0.1", 0, ssl=context, max_size=None, **options) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        port = server.socket.getsockname()[1]
        try:
            yield f"wss://localhost:{port}/" if context else f"ws://127.0.0.1:{port}/"
        finally:
            server.shutdown()
            thread.join(PATIENCE)

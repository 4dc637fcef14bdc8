"""The server of websockets only, running in this process, and its clients."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import Any

from tests.serving import PATIENCE, Peer, Response, certificates
from ws4py.server.threadedserver import WebSocketServer


class Served:
    """A server that runs, and its clients."""

    def __init__(self, server: WebSocketServer, tls: bool = False) -> None:
        self.server = server
        self.tls = tls
        self._peers: list[Peer] = []

    @property
    def url(self) -> str:
        return f"{'wss' if self.tls else 'ws'}://127.0.0.1:{self.server.server_address[1]}"

    def connect_plainly(self) -> Peer:
        """Return a new connection, without TLS."""
        address = self.server.server_address
        if isinstance(address, tuple):
            sock = socket.create_connection(address[:2], PATIENCE)
        else:
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(PATIENCE)
            sock.connect(address)
        peer = Peer(sock, "127.0.0.1")
        self._peers.append(peer)
        return peer

    def connect(self) -> Peer:
        """Return a new connection."""
        peer = self.connect_plainly()
        if self.tls:
            peer.sock = certificates().context.wrap_socket(peer.sock, server_hostname="127.0.0.1")
        return peer

    def open(self, path: str = "/", **headers: Any) -> Peer:
        """Return a connection that is a websocket."""
        peer = self.connect()
        assert peer.upgrade(path, **headers).status == 101
        return peer

    def ask(self, path: str, method: str = "GET", **headers: Any) -> Response:
        """Return the answer to a request after which the connection ends."""
        peer = self.connect()
        peer.sock.sendall(peer.request(path, method, **headers))
        response = peer.read_response(method != "HEAD")
        assert peer.read_to_the_end() == b""
        assert "close" in (response.get("connection") or "")
        return response

    def refused(self, path: str = "/", **headers: Any) -> Response:
        """Return the answer to a handshake after which the connection ends."""
        peer = self.connect()
        response = peer.upgrade(path, **headers)
        assert peer.read_to_the_end() == b""
        return response

    def close(self) -> None:
        for peer in self._peers:
            peer.close()


Serve = Callable[..., Served]


def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates().certificate, certificates().key)
    return context

"""A server, or a client, that breaks one rule on purpose: it echoes text that is not UTF-8.

``broken_echo server PORT`` or ``broken_echo client URL NAME``. The protocol is that of the package websockets
below its check of UTF-8, so that all else is right: that the suite finds just this shows that it finds something.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from urllib.parse import urlsplit

from websockets.client import ClientProtocol
from websockets.frames import DATA_OPCODES, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import Protocol
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

TIMEOUT = 30.0
"""Seconds to wait for the peer: longer than any case waits."""


def talk(sock: socket.socket, protocol: Protocol, on_message: Callable[[Opcode, bytes], None]) -> None:
    """Speak ``protocol`` until the socket ends, also by a reset; each message, unchecked, goes to ``on_message``."""
    try:
        _talk(sock, protocol, on_message)
    except OSError as error:
        print(f"ended by {error!r}", flush=True)


def _talk(sock: socket.socket, protocol: Protocol, on_message: Callable[[Opcode, bytes], None]) -> None:
    opcode, fragments = Opcode.TEXT, b""
    while True:
        for event in protocol.events_received():
            if isinstance(event, Request) and isinstance(protocol, ServerProtocol):
                protocol.send_response(protocol.accept(event))
            elif isinstance(event, Response) and event.status_code != 101:
                raise SystemExit(f"the handshake failed: {event.status_code} {event.reason_phrase}")
            elif isinstance(event, Frame) and event.opcode in DATA_OPCODES:
                opcode = opcode if event.opcode is Opcode.CONT else event.opcode
                fragments += bytes(event.data)
                if event.fin:
                    on_message(opcode, fragments)
                    fragments = b""
        for data in protocol.data_to_send():
            if data:
                sock.sendall(data)
            else:
                sock.shutdown(socket.SHUT_WR)
        data = sock.recv(65536)
        if not data:
            return
        protocol.receive_data(data)


def echo(sock: socket.socket, protocol: Protocol) -> None:
    """Send every message back as it came, until the connection ends."""

    def on_message(opcode: Opcode, data: bytes) -> None:
        if opcode is Opcode.TEXT:
            protocol.send_text(data)
        else:
            protocol.send_binary(data)

    talk(sock, protocol, on_message)


def serve(port: int) -> None:
    """Serve one connection after the other: the suite opens one at a time."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        while True:
            sock, _ = listener.accept()
            with sock:
                sock.settimeout(TIMEOUT)
                echo(sock, ServerProtocol())


def connect(url: str) -> tuple[socket.socket, ClientProtocol]:
    """Connect and ask for the upgrade."""
    parts = urlsplit(url)
    sock = socket.create_connection((str(parts.hostname), parts.port or 80), timeout=TIMEOUT)
    protocol = ClientProtocol(parse_uri(url))
    protocol.send_request(protocol.connect())
    return sock, protocol


def play(url: str, name: str) -> None:
    """Play every case that the suite's server at ``url`` has, and have it write its reports."""
    counts: list[int] = []
    sock, protocol = connect(f"{url}/getCaseCount")
    with sock:
        talk(sock, protocol, lambda _, data: counts.append(int(data)))
    for case in range(1, counts[0] + 1):
        sock, protocol = connect(f"{url}/runCase?case={case}&agent={name}")
        with sock:
            echo(sock, protocol)
    sock, protocol = connect(f"{url}/updateReports?agent={name}")
    with sock:
        talk(sock, protocol, lambda *_: None)


def main() -> None:
    role, *arguments = sys.argv[1:]
    if role == "server":
        serve(int(arguments[0]))
    else:
        play(*arguments)


if __name__ == "__main__":
    main()

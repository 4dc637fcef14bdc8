"""The names that programs written for 0.6 import, each from the module that had it."""

from __future__ import annotations

import ast
import importlib
import inspect
import socket
import urllib.parse

import pytest

from ws4py import compat

WEBSOCKET = ["EchoWebSocket", "HandshakeError", "Heartbeat", "Message", "PingControlMessage"]
WEBSOCKET += ["PongControlMessage", "Stream", "StreamClosed", "WS_KEY", "WS_VERSION", "WebSocket"]
OPCODES = ["OPCODE_BINARY", "OPCODE_CLOSE", "OPCODE_CONTINUATION", "OPCODE_PING", "OPCODE_PONG", "OPCODE_TEXT"]
MESSAGES = ["BinaryMessage", "CloseControlMessage", "PingControlMessage", "PongControlMessage", "TextMessage"]
EXCEPTIONS = ["FrameTooLargeException", "InvalidBytesError", "ProtocolException", "StreamClosed"]
EXCEPTIONS += ["TextFrameEncodingException", "UnsupportedFrameTypeException"]
POLLERS = ["EPollPoller", "KQueuePoller", "SelectPoller"]

NAMES = {
    "ws4py": ["WS_KEY", "WS_VERSION", "__version__", "configure_logger", "format_addresses"],
    "ws4py.client": ["HandshakeError", "WS_KEY", "WS_VERSION", "WebSocket", "WebSocketBaseClient"],
    "ws4py.client.geventclient": ["WebSocketBaseClient", "WebSocketClient"],
    "ws4py.client.threadedclient": ["WebSocketBaseClient", "WebSocketClient"],
    "ws4py.client.tornadoclient": ["HandshakeError", "TornadoWebSocketClient", "WebSocketBaseClient"],
    "ws4py.compat": ["basestring", "detach_connection", "get_connection", "ord", "py3k", "range", "sys", "unicode"],
    "ws4py.exc": [*EXCEPTIONS, "HandshakeError", "WebSocketException"],
    "ws4py.framing": [*OPCODES, "Frame", "FrameTooLargeException", "ProtocolException"],
    "ws4py.manager": [*POLLERS, "WebSocketManager", "format_addresses", "logger"],
    "ws4py.messaging": [*OPCODES, *MESSAGES, "Frame", "Message"],
    "ws4py.server.cherrypyserver": [
        "HandshakeError",
        "Tool",
        "WS_KEY",
        "WS_VERSION",
        "WebSocket",
        "WebSocketManager",
        "WebSocketPlugin",
        "WebSocketTool",
        "plugins",
    ],
    "ws4py.server.geventserver": [
        "GEventWebSocketPool",
        "WSGIServer",
        "WebSocketWSGIApplication",
        "WebSocketWSGIHandler",
        "format_addresses",
        "logger",
    ],
    "ws4py.server.wsgirefserver": [
        "WSGIServer",
        "WebSocketManager",
        "WebSocketWSGIApplication",
        "WebSocketWSGIHandler",
        "WebSocketWSGIRequestHandler",
        "format_addresses",
        "logger",
    ],
    "ws4py.server.wsgiutils": [
        "HandshakeError",
        "WS_KEY",
        "WS_VERSION",
        "WebSocket",
        "WebSocketWSGIApplication",
        "format_addresses",
        "logger",
    ],
    "ws4py.streaming": [*OPCODES, *MESSAGES, *EXCEPTIONS, "Frame", "Stream", "Utf8Validator", "VALID_CLOSING_CODES"],
    "ws4py.utf8validator": ["Utf8Validator"],
    "ws4py.websocket": WEBSOCKET,
}


@pytest.mark.parametrize("module", NAMES)
def test_the_names_of_a_module(module: str) -> None:
    for extra in ("cherrypy", "gevent", "tornado"):
        if extra in module:
            pytest.importorskip(extra)
    found = importlib.import_module(module)
    assert [name for name in NAMES[module] if not hasattr(found, name)] == []


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("ws4py.exc", {"StreamClosed"}),
        ("ws4py.framing", {"Frame"}),
        ("ws4py.messaging", {"Frame"}),
        (
            "ws4py.websocket",
            {"HandshakeError", "Heartbeat", "PongControlMessage", "StreamClosed", "WS_KEY", "WS_VERSION"},
        ),
    ],
)
def test_those_that_are_only_for_0_6_are_at_the_end_of_their_module(module: str, names: set[str]) -> None:
    source = inspect.getsource(importlib.import_module(module))
    before, _, after = source.partition("\n# --- names of 0.6 ---")
    assert bound_in(after[after.index("\n") :]) == names
    assert not bound_in(before) & names


def bound_in(source: str) -> set[str]:
    """Return the names of the classes and of what is imported at the top of a source."""
    found = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            found.update(alias.name for alias in node.names)
    return found


def test_text_and_bytes() -> None:
    assert compat.py3k is True
    assert compat.unicode is str
    assert isinstance("x", compat.basestring)
    assert isinstance(b"x", compat.basestring)
    assert not isinstance(bytearray(b"x"), compat.basestring)
    assert compat.enc("\xe9") == b"\xc3\xa9"
    assert compat.enc("\xe9", "latin-1") == b"\xe9"
    assert compat.dec(b"\xc3\xa9") == "\xe9"
    assert compat.dec(b"\xe9", "latin-1") == "\xe9"
    assert [compat.ord("a"), compat.ord(b"a"), compat.ord(b"a"[0])] == [97, 97, 97]
    assert list(compat.range(3)) == [0, 1, 2]
    assert compat.urlsplit is urllib.parse.urlsplit


def test_the_socket_of_a_file() -> None:
    """As servers used it that took a connection out of the file in which HTTP was read."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        file = ours.makefile("rb")
        assert compat.get_connection(file) is ours
        compat.detach_connection(file)
        ours.sendall(b"still open")
        assert theirs.recv(100) == b"still open"

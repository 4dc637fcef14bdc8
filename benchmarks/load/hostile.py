"""A client that does its worst: ``python hostile.py KIND PORT PATH SECONDS``.

Kinds: ``pings`` and ``tls-pings`` send Pings as fast as they can, ``keys`` asks for new keys of TLS again and again and
reads nothing, ``bombs`` sends small messages that inflate to 1 MiB each. It prints a line when the websocket is open,
and begins then. When its connection is ended it has failed to do worse, and is quiet.
"""

import base64
import contextlib
import ctypes
import os
import select
import socket
import ssl
import struct
import sys
import time
import zlib

KEY = b"\1\2\3\4"
PING = b"\x89\x80" + KEY
PONG = b"\x8a\x80" + KEY
RECORD = PING * 2600
"""A record of TLS that does not end where a server's read does."""

BOMB_SIZE = 1 << 20
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n"


def request(path: str, extensions: str) -> bytes:
    """Return the head of a handshake."""
    key = base64.b64encode(os.urandom(16)).decode()
    return (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{extensions}\r\n"
    ).encode()


def bomb() -> bytes:
    """Return the frame of a message that grows a thousandfold."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    payload = (compressor.compress(bytes(BOMB_SIZE)) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
    # A key of zeros masks nothing.
    return struct.pack("!BBH", 0xC2, 0x80 | 126, len(payload)) + bytes(4) + payload


def flood(sock: socket.socket, data: bytes, until: float) -> None:
    """Send data again and again, and read what is answered, for it is not to be the outbox that ends this."""
    sock.setblocking(False)
    left = memoryview(data)
    while time.monotonic() < until:
        readable, writable, _ = select.select([sock], [sock], [], 0.1)
        with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            if readable and not sock.recv(1 << 18):
                return
        with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            if writable:
                left = left[sock.send(left) :] or memoryview(data)


def ask_for_keys(sock: socket.socket, head: bytes, until: float) -> None:
    """Ask for new keys, 30 times for each Pong, since OpenSSL takes no more than 32 in a row."""
    lib = ctypes.CDLL("libssl.so.3")
    pointer, number = ctypes.c_void_p, ctypes.c_int
    for name, result, arguments in (
        ("TLS_client_method", pointer, []),
        ("SSL_CTX_new", pointer, [pointer]),
        ("SSL_new", pointer, [pointer]),
        ("SSL_set_fd", number, [pointer, number]),
        ("SSL_connect", number, [pointer]),
        ("SSL_key_update", number, [pointer, number]),
        ("SSL_do_handshake", number, [pointer]),
        ("SSL_read", number, [pointer, ctypes.c_char_p, number]),
        ("SSL_write", number, [pointer, ctypes.c_char_p, number]),
    ):
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    tls = lib.SSL_new(lib.SSL_CTX_new(lib.TLS_client_method()))
    lib.SSL_set_fd(tls, sock.fileno())
    if lib.SSL_connect(tls) != 1 or lib.SSL_write(tls, head, len(head)) <= 0:
        raise OSError("no TLS 1.3")
    if lib.SSL_read(tls, ctypes.create_string_buffer(4096), 4096) <= 0:
        raise OSError("no answer to the handshake")
    print("open", flush=True)
    sock.settimeout(None)
    while time.monotonic() < until:
        for _ in range(30):
            lib.SSL_key_update(tls, 1)
            if lib.SSL_do_handshake(tls) != 1:
                return
        if lib.SSL_write(tls, PONG, len(PONG)) <= 0:
            return


def main() -> None:
    """Run from the command line."""
    kind, port, path, seconds = sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4])
    until = time.monotonic() + seconds
    sock = socket.create_connection(("127.0.0.1", port), 10.0)
    head = request(path, DEFLATE if kind == "bombs" else "")
    if kind == "keys":
        sock.settimeout(None)
        ask_for_keys(sock, head, until)
        return
    if kind == "tls-pings":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        sock = context.wrap_socket(sock)
    sock.sendall(head)
    if b" 101 " not in sock.recv(4096):
        raise OSError("no websocket")
    print("open", flush=True)
    with contextlib.suppress(ConnectionError):
        flood(sock, {"pings": PING * 20_000, "tls-pings": RECORD, "bombs": bomb()}[kind], until)


if __name__ == "__main__":
    main()

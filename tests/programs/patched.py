"""A plain WebSocketManager in a process whose threads are greenlets: ``patched.py gevent|eventlet OPTIONS [NUMBER]``.

OPTIONS are those of the manager, as JSON; so is what the program says at its end. NUMBER descriptors are open before.
"""

import contextlib
import json
import sys

if sys.argv[1] == "gevent":
    from gevent import monkey, sleep

    monkey.patch_all()
else:
    from eventlet import monkey_patch, sleep

    monkey_patch()

import os
import socket
import threading
import time

from ws4py.manager import WebSocketManager
from ws4py.messaging import Message
from ws4py.websocket import EchoWebSocket

options = json.loads(sys.argv[2])
for _ in range(int(sys.argv[3]) if len(sys.argv) > 3 else 0):
    os.dup(0)
workers = options.get("workers", 32)
entered, gate = threading.Event(), threading.Event()
ends: list[int] = []
ticks = 0


class Echo(EchoWebSocket):
    """Echoes; asked to wait, it waits."""

    def received_message(self, message: Message) -> None:
        if message.data == b"wait":
            entered.set()
            gate.wait()
        super().received_message(message)

    def closed(self, code: int, reason: str | bytes | None = None) -> None:
        ends.append(code)


def tick() -> None:
    """Show that other greenlets run."""
    global ticks  # noqa: PLW0603 - the program's only state
    while True:
        ticks += 1
        sleep(0.005)


def connect() -> socket.socket:
    ours, theirs = socket.socketpair()
    theirs.settimeout(20)
    manager.add(Echo(ours))
    return theirs


def send(peer: socket.socket, text: bytes) -> None:
    peer.sendall(bytes([0x81, 0x80 | len(text)]) + bytes(4) + text)


def receive(peer: socket.socket) -> bytes:
    head = peer.recv(2)
    data = b""
    while len(data) < head[1]:
        data += peer.recv(head[1] - len(data))
    return data


def echo(peer: socket.socket, text: bytes = b"x") -> None:
    send(peer, text)
    assert receive(peer) == text


def flood(peer: socket.socket) -> None:
    """Keep the manager busy: something is always ready."""
    with contextlib.suppress(OSError):
        while True:
            send(peer, b"y" * 100)


def swallow(peer: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while peer.recv(65536):
            pass


manager = WebSocketManager(drain_timeout=5, **options)
manager.start()
threading.Thread(target=tick, daemon=True).start()
quiet, blocked, busy = connect(), connect(), connect()
for number in range(100):
    echo(quiet, b"%d" % number)
seen: dict[str, object] = {}
before, used = ticks, time.process_time()
sleep(0.3)
seen["others run while nothing comes"] = ticks - before > 10
seen["idle"] = time.process_time() - used < 0.1

send(blocked, b"wait")
if workers:  # else a handler that waits keeps all others waiting
    assert entered.wait(20)
    for _ in range(100 if workers > 1 else 0):
        echo(quiet)
    blocked.sendall(b"\x89\x80" + bytes(4))
    assert receive(blocked) == b""  # the Pong, while the handler waits
gate.set()
assert receive(blocked) == b"wait"

for target in (swallow, flood):
    threading.Thread(target=target, args=(busy,), daemon=True).start()
before = ticks
while ticks - before < 10:
    echo(quiet)
seen["broadcast"] = manager.broadcast("to all")
assert receive(quiet) == receive(blocked) == b"to all"

manager.stop()
seen["goodbye"] = [int.from_bytes(receive(peer)[:2], "big") for peer in (quiet, blocked)]
quiet.sendall(b"\x88\x82" + bytes(4) + b"\x03\xe9")
blocked.close()
busy.shutdown(socket.SHUT_RDWR)
manager.join(20)
seen["state"] = manager.state
seen["ends"] = len(ends)
print(json.dumps(seen))

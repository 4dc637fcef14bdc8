"""permessage-deflate: echoes of 1 MiB of JSON beside websockets on asyncio, and the memory of an idle connection.

``python -m benchmarks.compression`` prints the figures. The client is the same for all servers: it compresses its
message once, before, and counts the replies without inflating them, so that the server is the bottleneck. websockets
is run with uvloop if the environment that ``python -m benchmarks`` makes for it is there.

- ``ws4py`` is CherryPy with ``compression=True``: level 3, a window of 15 bits, no context takeover;
- ``websockets`` has what it does by default: level 6, a window of 12 bits, a memory level of 5, context takeover;
- ``ws4py, the same`` has those, too.
"""

from __future__ import annotations

import argparse
import base64
import importlib
import json
import os
import random
import re
import resource
import socket
import statistics
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks.peers import PEERS

ROOT = Path(__file__).resolve().parent.parent
SIZE = 1 << 20
KINDS = ("ws4py", "ws4py, the same", "websockets")
MEMORY_KINDS = ("ws4py, no compression", "ws4py", "ws4py, context takeover")


# --- the servers ------------------------------------------------------------------------------------------------------


def serve(kind: str, port: int) -> None:
    """Serve until the process is ended."""
    if kind == "websockets":
        _serve_websockets(port)
    else:
        _serve_ws4py(kind, port)


def _serve_websockets(port: int) -> None:
    import asyncio

    from websockets.asyncio.server import ServerConnection
    from websockets.asyncio.server import serve as run

    async def echo(websocket: ServerConnection) -> None:
        async for message in websocket:
            await websocket.send(message)

    async def main() -> None:
        async with run(echo, "127.0.0.1", port, ping_interval=None) as server:
            await server.serve_forever()

    runner: Callable[[Any], None] = asyncio.run
    with suppress(ImportError):
        runner = importlib.import_module("uvloop").run
    runner(main())


def _serve_ws4py(kind: str, port: int) -> None:
    import cherrypy

    from ws4py.extensions.permessage_deflate import PerMessageDeflate
    from ws4py.server.cherrypyserver import WebSocketPlugin, WebSocketTool
    from ws4py.websocket import EchoWebSocket

    class Root:
        @cherrypy.expose  # type: ignore[untyped-decorator]
        def ws(self) -> None:
            """Nothing to do: the tool upgrades."""

    compression = {
        "ws4py": True,
        "ws4py, no compression": None,
        "ws4py, the same": PerMessageDeflate(False, False, 12, 12, level=6, memory_level=5, threshold=0),
        "ws4py, context takeover": PerMessageDeflate(False, False),
    }[kind]
    settings = {"server.socket_port": port, "server.socket_queue_size": 1024, "environment": "production"}
    cherrypy.config.update({**settings, "log.screen": False})
    WebSocketPlugin(cherrypy.engine, ping_interval=None).subscribe()
    cherrypy.tools.websocket = WebSocketTool()
    endpoint = {"on": True, "handler_cls": EchoWebSocket, "compression": compression}
    config = {"/ws": {f"tools.websocket.{name}": value for name, value in endpoint.items()}}
    cherrypy.quickstart(Root(), "/", config)


@contextmanager
def serving(kind: str, cpu: int) -> Iterator[tuple[int, int]]:
    """Run a server; yield its process id and its port."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    theirs = PEERS["websockets-asyncio"].python
    python = str(theirs) if kind == "websockets" and theirs.exists() else sys.executable
    command = ["taskset", "-c", str(cpu), python, "-m", "benchmarks.compression", "--serve", kind, str(port)]
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise
                time.sleep(0.05)
        yield process.pid, port
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


# --- the client -------------------------------------------------------------------------------------------------------


def document() -> bytes:
    """Return 1 MiB of JSON, such as an API answers with."""
    chance = random.Random(1)
    rows: list[dict[str, object]] = []
    while True:
        rows.append(
            {
                "id": len(rows),
                "name": f"user{chance.randrange(10**6)}",
                "email": f"u{chance.randrange(10**6)}@example.org",
                "score": chance.random(),
                "tags": chance.sample(["red", "green", "blue", "alpha", "beta", "gamma"], 3),
                "active": bool(chance.getrandbits(1)),
            }
        )
        if len(rows) % 500 == 0 and len(text := json.dumps(rows).encode()) > SIZE:
            return text[: SIZE - 2] + b"]]"


def frame(payload: bytes, compressed: bool) -> bytes:
    """Return a text frame of a client. Its mask is zero, which is as good as any for a server's work."""
    if compressed:
        compressor = zlib.compressobj(6, zlib.DEFLATED, -15)
        payload = (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
    size = len(payload)
    head = bytes((0xC1 if compressed else 0x81,))
    if size < 126:
        head += bytes((0x80 | size,))
    else:
        head += b"\xfe" + size.to_bytes(2, "big") if size < 65536 else b"\xff" + size.to_bytes(8, "big")
    return head + bytes(4) + payload


class Client:
    """A connection that counts replies."""

    def __init__(self, port: int, compressed: bool) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), 60)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._left = bytearray()
        lines = [
            "GET /ws HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
            *(["Sec-WebSocket-Extensions: permessage-deflate"] if compressed else []),
        ]
        self.sock.sendall("\r\n".join([*lines, "", ""]).encode())
        while b"\r\n\r\n" not in self._left:
            self._left += self.sock.recv(4096)
        head, _, rest = bytes(self._left).partition(b"\r\n\r\n")
        if b" 101 " not in head or (b"permessage-deflate" in head) is not compressed:
            raise RuntimeError(head.decode())
        self._left = bytearray(rest)

    def receive(self) -> int:
        """Wait for a reply, and return its size on the wire."""
        size = self._size()
        while size is None or len(self._left) < size:
            data = self.sock.recv(1 << 18)
            if not data:
                raise RuntimeError(f"The server has ended the connection: {bytes(self._left)!r}")
            self._left += data
            size = self._size()
        del self._left[:size]
        return size

    def _size(self) -> int | None:
        if len(self._left) < 10:
            return None
        size = self._left[1] & 0x7F
        if size < 126:
            return 2 + size
        start = 4 if size == 126 else 10
        return start + int.from_bytes(self._left[2:start], "big")


def echo_rate(pid: int, port: int, message: bytes, seconds: float, window: int) -> tuple[float, float, int]:
    """Return echoes a second on one connection, the server's processor time for one in ms, and a reply's size."""
    client = Client(port, True)
    for _ in range(window):
        client.sock.sendall(message)
    client.receive()
    began, used, count, size = time.perf_counter(), processor_time(pid), 0, 0
    while time.perf_counter() - began < seconds:
        client.sock.sendall(message)
        size = client.receive()
        count += 1
    elapsed = time.perf_counter() - began
    used = processor_time(pid) - used
    client.sock.close()
    return count / elapsed, used / count * 1000, size


def processor_time(pid: int) -> float:
    """Return the seconds that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> int:
    """Return the resident set in KB."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1])


def idle_memory(pid: int, port: int, count: int, compressed: bool) -> float:
    """Return the growth in KB for a connection that has echoed one message and is idle, ``count`` of which are open."""
    message = frame(document()[:2000], compressed)

    def crowd(size: int) -> list[Client]:
        clients = [Client(port, compressed) for _ in range(size)]
        for client in clients:
            client.sock.sendall(message)
        for client in clients:
            client.receive()
        return clients

    for client in crowd(200):  # what the server makes once
        client.sock.close()
    time.sleep(1)
    before = resident(pid)
    clients = crowd(count)
    time.sleep(2)
    growth = (resident(pid) - before) / count
    for client in clients:
        client.sock.close()
    return growth


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compression", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--serve", nargs=2, metavar=("KIND", "PORT"), help="be a server")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--connections", type=int, default=2000, help="that are idle; a tenth of them with takeover")
    parser.add_argument("--only", choices=("echo", "memory"))
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve[0], int(arguments.serve[1]))
        return
    os.sched_setaffinity(0, {1})
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if arguments.only != "memory":
        _compare_echoes(arguments.runs, arguments.seconds)
    if arguments.only != "echo":
        for kind in MEMORY_KINDS:
            with serving(kind, 0) as (pid, port):
                count = arguments.connections // (10 if "takeover" in kind else 1)
                growth = idle_memory(pid, port, count, "no compression" not in kind)
            print(f"{kind}: {growth:.2f} KB for an idle connection, {count} open")


def _compare_echoes(runs: int, seconds: float) -> None:
    message = frame(document(), True)
    rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    sizes: dict[str, int] = {}
    for _ in range(runs):
        for kind in KINDS:
            with serving(kind, 0) as (pid, port):
                rate, used, sizes[kind] = echo_rate(pid, port, message, seconds, 2)
            rates[kind].append(rate)
            times[kind].append(used)
    base, base_time = statistics.median(rates["websockets"]), statistics.median(times["websockets"])
    for kind in KINDS:
        rate = statistics.median(rates[kind])
        spread = f"{min(rates[kind]):.1f} to {max(rates[kind]):.1f}"
        print(f"{kind}: {rate:.1f} echoes/s of 1 MiB ({spread}), {rate / base:.2f} of websockets; {sizes[kind]} B each")
        used = statistics.median(times[kind])
        print(f"    {used:.2f} ms of processor time each, {base_time / used:.2f} times as good as websockets")


if __name__ == "__main__":
    main()

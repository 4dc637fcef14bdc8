"""What the statistics cost: ``python -m benchmarks.stats_cost``.

It prints three things:

- the throughput of an echo server, side by side, in turns: with nothing mounted (*off*); with the statistics mounted,
  two dashboards open and ``/metrics`` scraped each second (*on*); and with the statements that count taken out of the
  sources before they are compiled (*bare*), for counting itself can't be switched off. The processor's time for a
  message is less disturbed by others than the rate is, and its least is what it takes;
- how long a scrape takes with 10,000 connections open, by the clock of who asks, and a snapshot, by the server's;
- how long messages of other connections take meanwhile, with scrapes and without.

It needs Linux, a C compiler and ``ulimit -n 21000``, or ``--connections`` with fewer. Like the other benchmarks it
needs a machine with nothing else to do; ``--server-cpu`` and ``--load-cpu`` say where each side runs.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import http.client
import importlib.abc
import importlib.machinery
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
LOAD = ROOT / "benchmarks" / "load"

WARM_UP = 0.5
"""Seconds of the load that it does not count."""

# --- the server -------------------------------------------------------------------------------------------------------

COUNTING_MODULES = {
    f"ws4py.manager.{name}" for name in ("connection", "lifecycle", "loop", "outbox", "selector", "workers")
}
COUNTERS = {
    "active_at",
    "binaries_received",
    "binaries_sent",
    "binary_bytes_received",
    "binary_bytes_sent",
    "bytes_received",
    "bytes_sent",
    "closes_sent",
    "messages",
    "opened",
    "pings_sent",
    "pongs_sent",
    "text_bytes_received",
    "text_bytes_sent",
    "texts_received",
    "texts_sent",
    "turns",
}
COUNTER_TABLES = {"controls_received"}
COUNTING_CALLS = {"observe", "_count_sent", "_count_encoded"}
TIMES = {"turns", "waits"}
"""Lists of times that histograms count later."""


class _Strip(ast.NodeTransformer):
    """Takes the statements that count out of a module."""

    def __init__(self) -> None:
        self.taken = 0

    def _drop(self, node: ast.stmt) -> ast.stmt:
        self.taken += 1
        return ast.copy_location(ast.Pass(), node)

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.stmt:
        target = node.target
        counts = (isinstance(target, ast.Attribute) and target.attr in COUNTERS) or (
            isinstance(target, ast.Subscript)
            and isinstance(target.value, ast.Attribute)
            and target.value.attr in COUNTER_TABLES
        )
        return self._drop(node) if counts else node

    def visit_Assign(self, node: ast.Assign) -> ast.stmt:
        target = node.targets[0]
        stamp = (
            isinstance(target, ast.Attribute)
            and target.attr == "active_at"
            and not isinstance(node.value, ast.Constant)
        )
        return self._drop(node) if stamp else node

    def visit_Expr(self, node: ast.Expr) -> ast.stmt:
        match node.value:
            case ast.Call(func=ast.Attribute(attr=name)) if name in COUNTING_CALLS:
                return self._drop(node)
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="append")) if name in TIMES:
                return self._drop(node)
        return node


class _BareLoader(importlib.machinery.SourceFileLoader):
    def get_code(self, fullname: str) -> Any:
        strip = _Strip()
        tree = ast.fix_missing_locations(strip.visit(ast.parse(self.get_source(fullname) or "")))
        print(f"{fullname}: {strip.taken} statements taken out", file=sys.stderr)
        return compile(tree, self.path, "exec")


class _BareFinder(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> Any:
        if name not in COUNTING_MODULES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        assert spec is not None
        assert spec.origin is not None
        spec.loader = _BareLoader(name, spec.origin)
        return spec


def serve(port: int, bare: bool, mounted: bool) -> None:
    """Echo, until a line comes or the input ends; ``?`` asks how long snapshots take."""
    if bare:
        sys.meta_path.insert(0, _BareFinder())
    from cheroot.wsgi import Server

    from ws4py.server.cherootserver import WebSocketMiddleware, attach
    from ws4py.server.stats import StatsApplication, mount
    from ws4py.websocket import EchoWebSocket

    def nothing(environ: Any, start_response: Any) -> list[bytes]:
        start_response("404 Not Found", [("Content-Length", "0")])
        return []

    pages = mount(nothing, StatsApplication()) if mounted else nothing
    application = WebSocketMiddleware(pages, {"/ws": EchoWebSocket}, ask=False)
    server = Server(("127.0.0.1", port), application, request_queue_size=1024)
    manager = attach(server, ping_interval=None)
    server.prepare()
    threading.Thread(target=server.serve, daemon=True).start()
    print("ready", flush=True)
    for line in sys.stdin:
        if line.strip() != "?":
            break
        took = []
        for _ in range(20):
            began = time.perf_counter()
            manager.stats()
            took.append(time.perf_counter() - began)
        print(json.dumps({"median": statistics.median(took), "most": max(took)}), flush=True)
    os._exit(0)


class Served:
    """The server in a process of its own."""

    def __init__(self, options: argparse.Namespace, bare: bool = False, mounted: bool = True) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        command = [sys.executable, "-m", "benchmarks.stats_cost", "--serve", str(self.port)]
        command += ["--bare"] * bare + ["--mounted"] * mounted
        self.process = subprocess.Popen(
            [*_on(options.server_cpu), *command], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate("bye\n")

    def cpu(self) -> float:
        """Return how many seconds of a processor it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def snapshots(self) -> dict[str, float]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("?\n")
        self.process.stdin.flush()
        result: dict[str, float] = json.loads(self.process.stdout.readline())
        return result

    def get(self, path: str) -> tuple[float, bytes]:
        """Return how long an answer took, in seconds, and its body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        began = time.perf_counter()
        connection.request("GET", path)
        body = connection.getresponse().read()
        took = time.perf_counter() - began
        connection.close()
        return took, body


def _on(cpu: str) -> list[str]:
    return ["taskset", "-c", cpu] if cpu else []


# --- the load ---------------------------------------------------------------------------------------------------------


def build(folder: str) -> str:
    """Compile the load; return its path."""
    program = f"{folder}/wsload"
    sources = [str(LOAD / name) for name in ("wsload.c", "client.c", "histogram.c")]
    subprocess.run(["gcc", "-O2", "-o", program, *sources, "-lssl", "-lcrypto", "-lz", "-lm"], check=True)
    return program


def load(options: argparse.Namespace, program: str, mode: str, port: int, **arguments: Any) -> dict[str, Any]:
    """Run a load; return what it has measured."""
    given = [part for name, value in arguments.items() for part in (f"--{name}", str(value))]
    command = [*_on(options.load_cpu), program, mode, "--port", str(port), "--path", "/ws", *given]
    result: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return result


@contextmanager
def scraping(server: Served, every: float, times: list[float]) -> Iterator[None]:
    """Scrape ``/metrics`` again and again meanwhile."""
    done = threading.Event()

    def scrape() -> None:
        while not done.wait(every):
            times.append(server.get("/stats/metrics")[0])

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextmanager
def dashboards(server: Served, number: int) -> Iterator[None]:
    """Have dashboards open meanwhile."""
    from ws4py.client.threadedclient import WebSocketClient

    clients = [WebSocketClient(f"ws://127.0.0.1:{server.port}/stats/feed") for _ in range(number)]
    for client in clients:
        client.connect()
    try:
        yield
    finally:
        for client in clients:
            client.close()


@contextmanager
def crowd(options: argparse.Namespace, program: str, server: Served) -> Iterator[None]:
    """Have a crowd of idle connections meanwhile."""
    command = [*_on(options.load_cpu), program, "hold", "--port", str(server.port), "--path", "/ws"]
    command += ["--connections", str(options.connections)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{options.connections}\n")
    process.stdin.flush()
    print("  opened:", process.stdout.readline().strip())
    try:
        yield
    finally:
        process.communicate()


def throughput(options: argparse.Namespace, program: str) -> None:
    """Print the throughput of the three ways, by turns."""
    rates: dict[str, list[float]] = {"off": [], "on": [], "bare": []}
    costs: dict[str, list[float]] = {name: [] for name in rates}
    for _ in range(options.runs):
        for name, found in rates.items():
            with Served(options, name == "bare", name == "on") as server, contextlib.ExitStack() as stack:
                if name == "on":
                    stack.enter_context(dashboards(server, 2))
                    stack.enter_context(scraping(server, 1.0, []))
                before = server.cpu()
                result = load(options, program, "echo", server.port, connections=64, window=4, seconds=options.seconds)
                found.append(result["rate"])
                # The load has a warm-up, which is not among the messages.
                messages = result["rate"] * (options.seconds + WARM_UP)
                costs[name].append(1e6 * (server.cpu() - before) / messages)
    print(f"\nechoes a second, and microseconds of the processor for each, medians of {options.runs} runs:")
    base, middle, least = statistics.median(rates["off"]), statistics.median(costs["off"]), min(costs["off"])
    for name, found in rates.items():
        rate, cost = statistics.median(found), statistics.median(costs[name])
        print(
            f"  {name:5}{rate:10,.0f} ({100 * (rate / base - 1):+.1f} %)"
            f"  {cost:6.2f} us ({100 * (cost / middle - 1):+.1f} %)"
            f", at least {min(costs[name]):.2f} ({100 * (min(costs[name]) / least - 1):+.1f} %)"
            f"   {[round(item) for item in found]} {[round(item, 2) for item in costs[name]]}"
        )


def scrapes(options: argparse.Namespace, program: str) -> None:
    """Print how long scrapes take with a crowd, and what they do to others."""
    with Served(options) as server:
        print(f"\nwith {options.connections:,} connections open:")
        with crowd(options, program, server):
            snapshots = server.snapshots()
            print(f"  a snapshot: {1e3 * snapshots['median']:.1f} ms, at most {1e3 * snapshots['most']:.1f} ms")
            for path in (
                "/stats/metrics",
                "/stats/stats.json",
                "/stats/dashboard.json",
                "/stats/connections.json?top=100",
            ):
                times = [server.get(path)[0] for _ in range(20)]
                print(f"  {path}: {1e3 * statistics.median(times):.1f} ms, at most {1e3 * max(times):.1f} ms")
            for every in (0.0, 1.0, 0.1):
                arguments = {"connections": 50, "rate": 500, "seconds": options.seconds * 2}
                times = []
                if every:
                    with scraping(server, every, times):
                        result = load(options, program, "rate", server.port, **arguments)
                else:
                    result = load(options, program, "rate", server.port, **arguments)
                print(f"  500 messages a second, {f'a scrape each {every} s' if every else 'no scrape'}: {result}")
                if times:
                    print(f"    scrapes: {1e3 * statistics.median(times):.1f} ms, at most {1e3 * max(times):.1f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--mounted", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--connections", type=int, default=10000, help="in the crowd (%(default)s)")
    parser.add_argument("--runs", type=int, default=5, help="of each way (%(default)s)")
    parser.add_argument("--seconds", type=float, default=4.0, help="that a run takes (%(default)s)")
    parser.add_argument("--server-cpu", default="0", help="where the server runs; '' for anywhere (%(default)s)")
    parser.add_argument("--load-cpu", default="1", help="where the load runs; '' for anywhere (%(default)s)")
    parser.add_argument("--only", choices=["throughput", "scrapes"])
    options = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 2 * options.connections + 1000)), hard))
    if options.serve:
        serve(options.serve, options.bare, options.mounted)
    with tempfile.TemporaryDirectory() as folder:
        program = build(folder)
        if options.only != "throughput":
            scrapes(options, program)
        if options.only != "scrapes":
            throughput(options, program)


if __name__ == "__main__":
    main()

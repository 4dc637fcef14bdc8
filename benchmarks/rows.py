"""What is measured: the rows of the table."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from benchmarks.bench import CERTIFICATES, Bench, MeasurementError

IDLE_SECONDS: Final = 10.0
PING_SECONDS: Final = 5.0
SETTLE: Final = 1.5  # seconds after which a crowd that has come is idle
RATE: Final = 2000.0  # messages a second: all peers stand it
PAGES: Final = 100.0  # requests a second
PAGE_CONNECTIONS: Final = 16
QUIET_RATE: Final = 100.0  # echoes a second
MEMORY_STEPS: Final = (1000, 5000, 10000, 15000)
ONCE: Final = frozenset(
    {
        "broadcast-10000",
        "echo-10000-1",
        "http-broadcast",
        "http-idle",
        "idle-cpu",
        "idle-cpu-pings",
        "memory",
        "upgrade",
    }
)
"""Rows of 5,000 connections and more: to open and close them takes long, so one run must do."""


@dataclass(frozen=True)
class Figure:
    """One figure of a row.

    :ivar name: in the results; unique among all rows.
    :ivar title: what it says, with its unit.
    :ivar higher_is_better: whether more is better.
    """

    name: str
    title: str
    higher_is_better: bool = True


@dataclass(frozen=True)
class Row:
    """What is measured on one server at once.

    :ivar name: on the command line.
    :ivar figures: that it has, by what ``measure`` calls them.
    :ivar measure: measures; its keys are those of ``figures``, and more may be there, for the raw results.
    :ivar needs: what a peer must be able to do.
    :ivar quick: whether it is among the most telling ones.
    """

    name: str
    figures: dict[str, Figure]
    measure: Callable[[Bench], dict[str, float]]
    needs: frozenset[str] = frozenset()
    quick: bool = False

    @property
    def once(self) -> bool:
        """Whether it runs once, whatever the settings say."""
        return self.name in ONCE


def _tls() -> str:
    return f"tls={CERTIFICATES}"


HOSTILE: Final[dict[str, tuple[str, int, tuple[str, ...], str]]] = {
    "tls_pings": ("tls-pings", 1, (_tls(),), "one TLS client floods Pings"),
    "keys": ("keys", 1, (_tls(),), "one TLS client asks for new keys"),
    "bombs": ("bombs", 6, ("deflate=1",), "six clients send deflate bombs"),
    "pings": ("pings", 8, (), "eight clients flood Pings"),
}
"""By the names of their figures: what hostile clients do, how many there are, the server's options, and a title."""


def _echo(
    bench: Bench, connections: int, window: int, size: int, path: str = "/ws", options: tuple[str, ...] = ()
) -> dict[str, float]:
    with bench.serving(*options) as server:
        found = server.load("echo", path, connections=connections, window=window, size=size)
    if not found["rate"]:
        raise MeasurementError(f"not one answer in {bench.seconds:g} s")
    return found


def _computing(bench: Bench, connections: int, window: int, options: tuple[str, ...]) -> dict[str, float]:
    """Return what becomes of echoes while a thread of the server computes, and both may use all processors."""
    with bench.serving("compute=1", *options, everywhere=True) as server:
        found = server.load("echo", connections=connections, window=window, size=32)
    return {**found, "p99_ms": found["p99_us"] / 1e3}


def _beside_blocking(bench: Bench, connections: int, options: tuple[str, ...]) -> dict[str, float]:
    """Return how long the echoes of a quick client take while handlers of others block."""
    with bench.serving(*options) as server, server.loaded("echo", "/slow", connections=connections, window=1, size=32):
        time.sleep(SETTLE)
        echoes = server.load("rate", connections=1, rate=QUIET_RATE, size=32)
    return {**echoes, "p99_ms": echoes["p99_us"] / 1e3}


def _latency(bench: Bench) -> dict[str, float]:
    with bench.serving() as server:
        return server.load("rate", connections=100, rate=RATE, size=32)


def _fan(bench: Bench, connections: int) -> dict[str, float]:
    with bench.serving() as server:
        found = server.load("fan", "/fan", connections=connections)
    return {**found, "last_ms": found["p50_us"] / 1e3}


def _upgrade(bench: Bench, connections: int, options: tuple[str, ...] = ()) -> dict[str, float]:
    with bench.serving(*options) as server, server.crowd(connections) as crowd:
        return crowd.grow(connections)


def _churn(bench: Bench) -> dict[str, float]:
    with bench.serving() as server:
        return server.load("churn", connections=64)


def _memory(bench: Bench) -> dict[str, float]:
    """Return the growth of the resident set for an idle connection, in KB, after a first load has warmed up."""
    found: dict[str, float] = {}
    with bench.serving() as server:
        server.load("echo", connections=100, window=1, size=32, seconds=0.5)
        time.sleep(SETTLE)
        before = server.memory()
        with server.crowd(MEMORY_STEPS[-1]) as crowd:
            for count in MEMORY_STEPS[:2] if bench.brief else MEMORY_STEPS:
                try:
                    crowd.grow(count)
                except MeasurementError as error:
                    if not found:
                        raise
                    found[f"failed_at_{count}"] = 1
                    print(f"    {count} connections: {error}")
                    return found
                time.sleep(SETTLE)
                found[f"kb_{count}"] = (server.memory() - before) / 1024 / count
    return found


def _idle_cpu(bench: Bench, ping: float) -> dict[str, float]:
    with bench.serving(f"ping={ping:g}") as server, server.crowd(5000) as crowd:
        crowd.grow(5000)
        time.sleep(SETTLE)
        before = server.cpu_time()
        time.sleep(IDLE_SECONDS)
        percent = (server.cpu_time() - before) / IDLE_SECONDS * 100
        crowd.end()
    return {"percent": percent}


def _idle_calls(bench: Bench) -> dict[str, float]:
    with bench.serving("ping=0") as server, server.crowd(1000) as crowd:
        crowd.grow(1000)
        time.sleep(SETTLE)
        return {"calls": server.system_calls(5.0) / 5.0}


def _http(bench: Bench, crowd_size: int, every: float) -> dict[str, float]:
    with bench.serving() as server:
        if not crowd_size:
            found = server.load("http", "/", connections=PAGE_CONNECTIONS, rate=PAGES)
        else:
            with server.crowd(crowd_size, "/fan", every=every) as crowd:
                crowd.grow(crowd_size)
                time.sleep(SETTLE)
                found = server.load("http", "/", connections=PAGE_CONNECTIONS, rate=PAGES)
                found |= {f"crowd_{name}": value for name, value in crowd.end().items()}
    return {**found, "p50_ms": found["p50_us"] / 1e3, "p99_ms": found["p99_us"] / 1e3}


def _hostile(bench: Bench) -> dict[str, float]:
    """Return how long the echoes of a quiet client take beside hostile ones, in ms."""
    found: dict[str, float] = {}
    for name, (kind, count, options, _) in HOSTILE.items():
        with bench.serving(*options) as server, server.hostile(kind, count):
            echoes = server.load("rate", connections=1, rate=QUIET_RATE, size=32)
        found |= {f"{name}_max_ms": echoes["max_us"] / 1e3, f"{name}_p99_ms": echoes["p99_us"] / 1e3}
    return found


def _slow(connections: int) -> Row:
    title = f"handlers that block 10 ms, {connections:,} connections"
    return Row(
        f"blocking-{connections}",
        {"rate": Figure(f"blocking-{connections}", f"{title}: echo/s")},
        functools.partial(_echo, connections=connections, window=1, size=32, path="/slow"),
        frozenset({"slow"}),
        quick=connections == 100,
    )


def _computing_row(connections: int, window: int, *options: str) -> Row:
    name = f"computing-{connections}-{window}{'-interval' if options else ''}"
    many = f"{connections:,} connection{'s' * (connections > 1)}"
    title = f"beside a thread that computes{', 0.5 ms at a time' if options else ''}: {many}, {window} in flight"
    return Row(
        name,
        {
            "rate": Figure(name, f"{title}: echo/s"),
            "p99_ms": Figure(f"{name}-p99", f"{title}: 99 %, ms", False),
        },
        functools.partial(_computing, connections=connections, window=window, options=options),
        frozenset({"compute"}),
    )


def _beside_blocking_row(name: str, title: str, connections: int, *options: str) -> Row:
    figures = {"p99_ms": Figure(name, f"a quick client's echo beside {title}: 99 %, ms", False)}
    return Row(
        name,
        figures,
        functools.partial(_beside_blocking, connections=connections, options=options),
        frozenset({"slow", *(option.partition("=")[0] for option in options)}),
    )


def _echo_row(
    name: str,
    connections: int,
    window: int,
    size: int,
    *,
    options: tuple[str, ...] = (),
    needs: str = "",
    quick: bool = False,
) -> Row:
    amount = f"{size} B" if size < 1024 else f"{size >> 10} KiB" if size < 1 << 20 else f"{size >> 20} MiB"
    many = f"{connections:,} connection{'s' * (connections > 1)}"
    title = f"{needs and {'tls': 'TLS, ', 'deflate': 'compression, '}[needs]}{many}, {window} in flight, {amount}"
    return Row(
        name,
        {"rate": Figure(name, f"{title}: echo/s")},
        functools.partial(_echo, connections=connections, window=window, size=size, options=options),
        frozenset({needs} - {""}),
        quick,
    )


def _fan_row(connections: int) -> Row:
    name, title = f"broadcast-{connections}", f"broadcast to {connections:,}"
    return Row(
        name,
        {
            "rate": Figure(name, f"{title}: deliveries/s"),
            "last_ms": Figure(f"{name}-last", f"{title}: ms until it has reached the last", False),
        },
        functools.partial(_fan, connections=connections),
        quick=connections == 1000,
    )


def _http_row(name: str, title: str, crowd: int, every: float) -> Row:
    figures = {
        "p50_ms": Figure(f"{name}-p50", f"HTTP {title}: median, ms", False),
        "p99_ms": Figure(f"{name}-p99", f"HTTP {title}: 99 %, ms", False),
    }
    return Row(name, figures, functools.partial(_http, crowd_size=crowd, every=every), frozenset({"http"}))


def all_rows() -> dict[str, Row]:
    """Return the rows by their names, in the order of the table."""
    latency = f"latency of {RATE:,.0f} echoes a second over 100 connections"
    found = [
        _echo_row("echo-1-1", 1, 1, 32, quick=True),
        _echo_row("echo-10-1", 10, 1, 32),
        _echo_row("echo-100-1", 100, 1, 32, quick=True),
        _echo_row("echo-100-10", 100, 10, 32, quick=True),
        _echo_row("echo-1000-1", 1000, 1, 32),
        _echo_row("echo-10000-1", 10000, 1, 32),
        _echo_row("echo-4k", 100, 1, 4096),
        _echo_row("echo-64k", 10, 4, 65536, quick=True),
        _echo_row("echo-1m", 4, 1, 1 << 20),
        Row(
            "latency",
            {
                "p50_us": Figure("latency-p50", f"{latency}: median, µs", False),
                "p99_us": Figure("latency-p99", f"{latency}: 99 %, µs", False),
                "p999_us": Figure("latency-p999", f"{latency}: 99.9 %, µs", False),
            },
            _latency,
            quick=True,
        ),
        _fan_row(100),
        _fan_row(1000),
        _fan_row(10000),
        Row(
            "upgrade",
            {"rate": Figure("upgrade", "handshakes/s, until 5,000 are open")},
            functools.partial(_upgrade, connections=5000),
        ),
        Row("churn", {"rate": Figure("churn", "connect, echo, close: times/s")}, _churn),
        Row(
            "memory",
            {f"kb_{count}": Figure(f"memory-{count}", f"{count:,} idle: KB for each", False) for count in MEMORY_STEPS},
            _memory,
            quick=True,
        ),
        Row(
            "idle-cpu",
            {"percent": Figure("idle-cpu", "5,000 idle, no Pings: % of a processor", False)},
            functools.partial(_idle_cpu, ping=0),
        ),
        Row(
            "idle-cpu-pings",
            {
                "percent": Figure(
                    "idle-cpu-pings", f"5,000 idle, a Ping every {PING_SECONDS:g} s: % of a processor", False
                )
            },
            functools.partial(_idle_cpu, ping=PING_SECONDS),
            frozenset({"ping"}),
        ),
        Row(
            "idle-calls",
            {"calls": Figure("idle-calls", "1,000 idle, no Pings: system calls/s", False)},
            _idle_calls,
        ),
        _slow(100),
        _slow(1000),
        _beside_blocking_row("beside-24-blocking", "24 that block 10 ms", 24),
        _beside_blocking_row("beside-bulkhead", "100 that block, on 24 workers", 100, "max_workers=24"),
        *(_computing_row(*load) for load in ((1, 1), (100, 1), (100, 10))),
        *(_computing_row(*load, "interval=0.0005") for load in ((1, 1), (100, 1), (100, 10))),
        _http_row("http", "alone", 0, 0),
        _http_row("http-idle", "beside 10,000 idle", 10000, 0),
        _http_row("http-broadcast", "beside a broadcast to 10,000 each second", 10000, 1.0),
        _echo_row("tls-100-10", 100, 10, 32, options=(_tls(),), needs="tls"),
        Row(
            "tls-upgrade",
            {"rate": Figure("tls-upgrade", "TLS: handshakes/s, until 1,000 are open")},
            functools.partial(_upgrade, connections=1000, options=(_tls(),)),
            frozenset({"tls"}),
        ),
        Row(
            "hostile",
            {
                f"{name}_{key}_ms": Figure(
                    f"hostile-{name.replace('_', '-')}-{key}", f"{title}: another's echo, {words}, ms", False
                )
                for name, (_, _, _, title) in HOSTILE.items()
                for key, words in (("max", "the worst"), ("p99", "99 %"))
            },
            _hostile,
            frozenset({"tls", "deflate"}),
        ),
        _echo_row("deflate-100-10", 100, 10, 1024, options=("deflate=1",), needs="deflate"),
    ]
    return {row.name: row for row in found}

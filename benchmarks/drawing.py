"""Which charts there are, and what is in them; :mod:`benchmarks.charts` draws them."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.peers import ENVIRONMENTS, HERE, PEERS, install
from benchmarks.results import Results
from benchmarks.rows import MEMORY_STEPS


@dataclass(frozen=True)
class Chart:
    """A chart.

    :ivar name: of its files.
    :ivar title: above it.
    :ivar figures: (row, key) each; with ``at``, the points of one line.
    :ivar at: how many connections each of them has; without, each has bars of its own.
    :ivar axis: what a line's height says.
    :ivar log: whether heights are on a logarithmic scale.
    """

    name: str
    title: str
    figures: tuple[tuple[str, str], ...]
    at: tuple[int, ...] = ()
    axis: str = ""
    log: bool = True


CHARTS: Final = (
    Chart(
        "echo",
        "Echo: messages a second (longer is better)",
        tuple((f"echo-{name}", "rate") for name in ("1-1", "100-1", "100-10", "1000-1")),
    ),
    Chart(
        "sizes",
        "Echo of larger messages: messages a second (longer is better)",
        tuple((f"echo-{name}", "rate") for name in ("4k", "64k", "1m")),
    ),
    Chart(
        "latency",
        "Latency at a fixed rate (shorter is better)",
        tuple(("latency", key) for key in ("p50_us", "p99_us", "p999_us")),
    ),
    Chart(
        "broadcast",
        "Broadcast: deliveries a second (longer is better)",
        tuple((f"broadcast-{count}", "rate") for count in (100, 1000, 10000)),
    ),
    Chart(
        "blocking",
        "Handlers that block 10 ms: messages a second (longer is better)",
        tuple((f"blocking-{count}", "rate") for count in (100, 1000)),
    ),
    Chart(
        "opening",
        "Opening (longer is better)",
        (("upgrade", "rate"), ("churn", "rate"), ("tls-upgrade", "rate")),
    ),
    Chart(
        "idle",
        "What an idle crowd costs (shorter is better)",
        (("memory", "kb_10000"), ("idle-cpu", "percent"), ("idle-cpu-pings", "percent"), ("idle-calls", "calls")),
    ),
    Chart(
        "http",
        "HTTP from the same process (shorter is better)",
        (("http", "p99_ms"), ("http-idle", "p99_ms"), ("http-broadcast", "p99_ms")),
    ),
    Chart(
        "tls-and-compression",
        "Echo with TLS, and with compression: messages a second (longer is better)",
        (("tls-100-10", "rate"), ("deflate-100-10", "rate")),
    ),
    Chart(
        "growth-echo",
        "Echo as connections grow, 1 message in flight on each",
        tuple((f"echo-{count}-1", "rate") for count in (1, 10, 100, 1000, 10000)),
        (1, 10, 100, 1000, 10000),
        "messages a second",
    ),
    Chart(
        "growth-memory",
        "Memory of an idle connection as connections grow",
        tuple(("memory", f"kb_{count}") for count in MEMORY_STEPS),
        MEMORY_STEPS,
        "KB for each",
    ),
    Chart(
        "growth-broadcast",
        "Broadcast as connections grow",
        tuple((f"broadcast-{count}", "last_ms") for count in (100, 1000, 10000)),
        (100, 1000, 10000),
        "ms until it has reached the last",
    ),
)


def _prepare(chart: Chart, results: Results) -> dict[str, Any] | None:
    rows = {row.name: row for row in results.rows}
    panels, lines = [], {}
    for row_name, key in chart.figures:
        row = rows.get(row_name)
        if row is None:
            continue
        values = {PEERS[peer].title: results.median(row, key, peer) for peer in results.peers}
        known = {title: value for title, value in values.items() if value is not None}
        if known:
            panels.append({"title": row.figures[key].title, "values": known})
    if chart.at:
        for peer in results.peers:
            medians = [
                (at, results.median(rows[row_name], key, peer) if row_name in rows else None)
                for at, (row_name, key) in zip(chart.at, chart.figures, strict=True)
            ]
            points = [(at, value) for at, value in medians if value]
            if points:
                lines[PEERS[peer].title] = points
        if max(map(len, lines.values()), default=0) < 2:
            return None
    elif not panels:
        return None
    kind = "lines" if chart.at else "bars"
    return {
        "name": chart.name,
        "title": chart.title,
        "kind": kind,
        "axis": chart.axis,
        "log": chart.log,
        "panels": panels,
        "lines": lines,
    }


def draw(results: Results, folder: Path) -> None:
    """Draw the charts for which there are figures, into a folder, as PNG and SVG."""
    install("charts")
    prepared = [ready for chart in CHARTS if (ready := _prepare(chart, results)) is not None]
    file = folder / "charts.json"
    file.write_text(json.dumps(prepared, indent=1) + "\n")
    python = ENVIRONMENTS / "charts" / "bin" / "python"
    subprocess.run([python, HERE / "charts.py", file, folder], check=True, stdout=subprocess.DEVNULL)
    file.unlink()

"""Compare ws4py with its peers in one sitting: ``python -m benchmarks``.

Each figure is the median of several runs, in which the servers take turns. The server has one processor and the load
another, so nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import measure
from benchmarks.peers import PEERS, Peer


@dataclass(frozen=True)
class Row:
    """One line of the table.

    :ivar name: what is measured, with its unit.
    :ivar figure: measures it on one server.
    :ivar higher_is_better: whether a ratio over 1 is in favour of ws4py.
    """

    name: str
    figure: Callable[[Peer], float]
    higher_is_better: bool = True


def rows(seconds: float) -> dict[str, Row]:
    """Return what can be measured, by short names."""

    def echo(connections: int, window: int, size: int) -> Callable[[Peer], float]:
        return lambda peer: measure.echo_rate(peer, connections, window, size, seconds)

    return {
        "echo-1-1": Row("echo/s: 1 connection, 1 in flight, 32 B", echo(1, 1, 32)),
        "echo-100-1": Row("echo/s: 100 connections, 1 in flight, 32 B", echo(100, 1, 32)),
        "echo-100-10": Row("echo/s: 100 connections, 10 in flight, 32 B", echo(100, 10, 32)),
        "echo-64k": Row("echo/s: 10 connections, 4 in flight, 64 KiB", echo(10, 4, 65536)),
        "idle-memory": Row(
            "KB of memory for an idle connection, 5,000 open", lambda peer: measure.idle_memory(peer, 5000), False
        ),
    }


def compare(peers: Sequence[Peer], chosen: Sequence[Row], runs: int) -> list[dict[str, object]]:
    """Measure every row on every peer, ``runs`` times in turn; the first peer is what the others are compared with."""
    results: list[dict[str, object]] = []
    for row in chosen:
        figures: dict[str, list[float]] = {peer.name: [] for peer in peers}
        for _ in range(runs):
            for peer in peers:
                figures[peer.name].append(row.figure(peer))
                print(f"  {row.name}: {peer.name}: {figures[peer.name][-1]:,.6g}", file=sys.stderr)
        medians = {name: statistics.median(values) for name, values in figures.items()}
        first = medians[peers[0].name]
        ratios = {name: first / value if row.higher_is_better else value / first for name, value in medians.items()}
        results.append({"row": row.name, "figures": figures, "medians": medians, "ratios": ratios})
    return results


def table(results: Sequence[dict[str, object]], peers: Sequence[Peer]) -> str:
    """Return the results as an aligned table, with how many times better the first peer is than each other one."""
    lines = [["", peers[0].name, *(f"{peer.name} (times better)" for peer in peers[1:])]]
    for result in results:
        medians, ratios = result["medians"], result["ratios"]
        assert isinstance(medians, dict)
        assert isinstance(ratios, dict)
        others = [f"{medians[peer.name]:,.4g} ({ratios[peer.name]:.2f})" for peer in peers[1:]]
        lines.append([str(result["row"]), f"{medians[peers[0].name]:,.4g}", *others])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS), help="the first is compared")
    parser.add_argument("--rows", nargs="+", choices=list(rows(1.0)), default=list(rows(1.0)))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of load in each run")
    parser.add_argument("--json", type=Path, help="a file for all figures")
    arguments = parser.parse_args()
    measure.raise_fd_limit()
    peers = [PEERS[name] for name in arguments.peers]
    for peer in peers:
        peer.install()
    available = rows(arguments.seconds)
    results = compare(peers, [available[name] for name in arguments.rows], arguments.runs)
    print(table(results, peers))
    calls = measure.idle_system_calls(peers[0], 1000, 5.0, "ping_interval=None")
    print("\nsystem calls in 5 s with 1,000 idle connections and pings off, by thread:")
    for name, count in sorted((calls or {"strace is not installed": 0}).items()):
        print(f"  {name}: {count}")
    if arguments.json:
        machine = {"processor": platform.processor() or platform.machine(), "system": platform.platform()}
        report = {"machine": machine, "python": sys.version, "results": results, "idle_system_calls": calls}
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()

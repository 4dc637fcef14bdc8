"""Compare ws4py with its peers in one sitting: ``python -m benchmarks``.

Each figure is the median of several runs, in which the servers take turns. The server has one processor and the load
another, so nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import datetime as dt
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import drawing, tables
from benchmarks.bench import Bench, MeasurementError, build, raise_fd_limit
from benchmarks.peers import ENVIRONMENTS, PEERS, Peer, install, packages
from benchmarks.results import Results
from benchmarks.rows import Row, all_rows

NEEDED_FDS = 16000
WORDS = {
    "http": "serves no pages",
    "tls": "has no TLS",
    "deflate": "has no compression",
    "ping": "sends no Pings by itself",
    "slow": "has no handlers",
    "compute": "has no threads",
    "max_workers": "has no limit for that",
}


def compare(results: Results, peers: Sequence[Peer], rows: Sequence[Row], path: Path) -> None:
    """Measure every row on every peer, in turn, as often as the settings say. All is saved after each row."""
    settings = results.settings
    for number, row in enumerate(rows, 1):
        begin = time.monotonic()
        for run in range(1 if row.once else settings["runs"]):
            for peer in peers:
                if row.needs <= peer.able and peer.name not in results.failures.get(row.name, {}):
                    cpus = settings["server_cpus"], settings["load_cpus"]
                    bench = Bench(peer, settings["seconds"], *cpus, brief=settings["quick"])
                    _measure(results, row, bench, run)
                elif not row.needs <= peer.able:
                    results.fail(row.name, peer.name, " and ".join(WORDS[need] for need in row.needs - peer.able))
        results.save(path)
        print(f"[{number}/{len(rows)}] {row.name}: {time.monotonic() - begin:.0f} s", file=sys.stderr)


def _measure(results: Results, row: Row, bench: Bench, run: int) -> None:
    peer = bench.peer
    try:
        found = row.measure(bench)
    except MeasurementError as error:
        results.fail(row.name, peer.name, str(error))
        print(f"  {row.name}: {peer.title}: {error}", file=sys.stderr)
        return
    results.add(row.name, peer.name, found)
    shown = ", ".join(f"{key} {found[key]:,.6g}" for key in row.figures if key in found)
    print(f"  {row.name} {run + 1}: {peer.title}: {shown}", file=sys.stderr)


def report(results: Results, folder: Path, charts: bool) -> None:
    """Print the table, and write it into a folder, with the charts."""
    (folder / "table.rst").write_text(tables.as_rest(results))
    text = tables.as_text(results)
    (folder / "table.txt").write_text(text)
    print(text)
    if charts:
        drawing.draw(results, folder)
    print(f"All figures, the table and the charts are in {folder}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    rows = all_rows()
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), metavar="PEER", help="the first is compared")
    parser.add_argument("--rows", nargs="+", choices=list(rows), metavar="ROW")
    parser.add_argument("--list", action="store_true", help="name the peers and the rows")
    parser.add_argument("--runs", type=int, default=3, help="of which the median counts; 3, but 1 of 5,000 connections")
    parser.add_argument("--seconds", type=float, default=3.0, help="of load in each run; 3")
    parser.add_argument("--quick", action="store_true", help="the most telling rows, one run of a second and a half")
    parser.add_argument("--server-cpus", default="0", help="as taskset -c takes them; 0")
    parser.add_argument("--load-cpus", default="1", help="likewise; 1")
    parser.add_argument("--output", type=Path, help="a folder; by default one under .benchmarks/results/")
    parser.add_argument("--no-charts", action="store_true", help="a table only")
    parser.add_argument("--report", type=Path, metavar="JSON", help="measure nothing: report what was measured before")
    arguments = parser.parse_args()
    if arguments.list:
        print("peers:", *(f"  {peer.name:20} {peer.title}" for peer in PEERS.values()), sep="\n")
        print("rows:", *(f"  {row.name:20} {_says(row)}" for row in rows.values()), sep="\n")
        raise SystemExit
    if arguments.quick:
        arguments.runs, arguments.seconds = 1, 1.5
        arguments.rows = arguments.rows or [row.name for row in rows.values() if row.quick]
    arguments.rows = arguments.rows or list(rows)
    arguments.peers = arguments.peers or list(PEERS)
    return arguments


def _says(row: Row) -> str:
    return "; ".join(figure.title for figure in row.figures.values()) + " (quick)" * row.quick


def main() -> None:
    """Run from the command line."""
    arguments = _parse()
    if arguments.report:
        folder = arguments.output or arguments.report.parent
        folder.mkdir(parents=True, exist_ok=True)
        report(Results.read(arguments.report), folder, not arguments.no_charts)
        return
    if raise_fd_limit() < NEEDED_FDS:
        print(f"Rows of 10,000 connections and more need `ulimit -n {NEEDED_FDS}` or higher", file=sys.stderr)
    stamp = dt.datetime.now(dt.timezone.utc).strftime("%Y%m%d-%H%M%S")
    folder = arguments.output or ENVIRONMENTS / "results" / stamp
    peers = [PEERS[name] for name in arguments.peers]
    rows = [row for name, row in all_rows().items() if name in arguments.rows]
    build()
    environments = sorted({peer.environment for peer in peers})
    for environment in environments:
        install(environment)
    names = ("runs", "seconds", "server_cpus", "load_cpus", "quick")
    results = Results({name: getattr(arguments, name) for name in names}, arguments.peers)
    results.packages = {environment: packages(environment) for environment in environments}
    try:
        compare(results, peers, rows, folder / "results.json")
    except KeyboardInterrupt:
        results.save(folder / "results.json")
        print("Stopped: this is what was measured until then", file=sys.stderr)
    report(results, folder, not arguments.no_charts)


if __name__ == "__main__":
    main()

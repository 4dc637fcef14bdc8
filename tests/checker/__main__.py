"""Runs the checker, with a Redis and servers of its own."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.checker.faults import FAULTS, Nemesis, Processes
from tests.checker.running import run
from tests.redis_server import RedisServer
from tests.serving import free_port


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.checker", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to disturb (%(default)s)")
    parser.add_argument("--seed", default=str(int(time.time())), help="what chance depends on")
    parser.add_argument("--processes", type=int, default=3, help="how many servers there are (%(default)s)")
    parser.add_argument("--faults", default=",".join(FAULTS), help="what to do (%(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, RedisServer(Path(directory), free_port()) as redis:
        processes = Processes(redis, options.processes)
        nemesis = Nemesis(processes, options.faults.split(",") if options.faults else [], f"{options.seed} nemesis")
        try:
            report = run(processes.ports, options.seconds, options.seed, nemesis.act)
        finally:
            processes.close()
    print("seed", options.seed)
    for name, count in (*sorted(report.counts.items()), *sorted(nemesis.done.items())):
        print(f"{name:>10} {count}")
    for violation in report.violations[:20]:
        print("VIOLATION:", violation)
    print(len(report.violations), "violations")
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())

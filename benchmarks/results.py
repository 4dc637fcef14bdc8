"""The results of a sitting: every figure of every run, as JSON, with the machine's description."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import re
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.peers import PEERS
from benchmarks.rows import Figure, Row, all_rows

Run = dict[str, float]


def describe_machine() -> dict[str, Any]:
    """Return what is to be known about the machine."""
    processor = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return {
        "processor": processor[1].strip() if processor else platform.machine(),
        "processors": os.cpu_count(),
        "memory_gib": round(int(memory[1]) / (1 << 20), 1) if memory else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def _today() -> str:
    return dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds")


@dataclass
class Results:
    """What was measured.

    :ivar settings: of the command line.
    :ivar peers: the names of the peers, the one first that the others are compared with.
    :ivar runs: by the row's name and the peer's, what each run has found.
    :ivar failures: likewise, why there is nothing.
    :ivar packages: what each peer's environment had installed.
    """

    settings: dict[str, Any]
    peers: list[str]
    machine: dict[str, Any] = field(default_factory=describe_machine)
    started: str = field(default_factory=_today)
    ended: str = ""
    packages: dict[str, list[str]] = field(default_factory=dict)
    runs: dict[str, dict[str, list[Run]]] = field(default_factory=dict)
    failures: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, row: str, peer: str, run: Run) -> None:
        """Add a run."""
        self.runs.setdefault(row, {}).setdefault(peer, []).append(run)

    def fail(self, row: str, peer: str, reason: str) -> None:
        """Say why a peer has no figures in a row."""
        self.failures.setdefault(row, {})[peer] = reason

    def save(self, path: Path) -> None:
        """Write all into a file."""
        self.ended = _today()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(vars(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Results:
        """Return what was saved.

        :raises ValueError: if the file is none of this.
        """
        try:
            return cls(**json.loads(path.read_text()))
        except TypeError as error:
            raise ValueError(f"{path} has other results than these") from error

    @property
    def rows(self) -> list[Row]:
        """The rows for which there is anything, in the order of the table."""
        return [row for name, row in all_rows().items() if name in self.runs or name in self.failures]

    def median(self, row: Row, key: str, peer: str) -> float | None:
        """Return the median of a figure, None if there is none."""
        values = [run[key] for run in self.runs.get(row.name, {}).get(peer, []) if key in run]
        return statistics.median(values) if values else None

    def ratio(self, row: Row, key: str, peer: str) -> float | None:
        """Return how many times better the first peer is than another one; None if that can't be said."""
        first, other = self.median(row, key, self.peers[0]), self.median(row, key, peer)
        if first is None or other is None:
            return None
        better, worse = (first, other) if row.figures[key].higher_is_better else (other, first)
        return better / worse if worse else None

    def ahead(self, row: Row, key: str) -> list[str]:
        """Return the titles of the peers that are better than the first one; ws4py in another setting is none."""
        figure = row.figures[key]
        first = self.median(row, key, self.peers[0])
        found = []
        for name in self.peers[1:]:
            value = None if PEERS[name].environment == "ours" else self.median(row, key, name)
            if value is not None and first is not None and _better(figure, value, first):
                found.append(PEERS[name].title)
        return found


def _better(figure: Figure, value: float, than: float) -> bool:
    return value > than if figure.higher_is_better else value < than

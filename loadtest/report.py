"""The report of a run: its figures, and whether they are as required."""

from __future__ import annotations

import json
import operator
import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from loadtest.tally import Tally, merged

__all__ = ["Requirement", "as_text", "figures_of", "write"]

Figures = dict[str, float]

SHARES: Final = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}
OPERATORS: Final[dict[str, Callable[[float, float], bool]]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
    "==": operator.eq,
}


@dataclass(frozen=True)
class Requirement:
    """What a figure must be, such as ``round-trip.p99<=50``.

    :ivar name: of the figure.
    :ivar relation: one of ``<= >= < > ==``.
    :ivar bound: what the figure is compared with.
    """

    name: str
    relation: str
    bound: float

    @classmethod
    def parse(cls, text: str) -> Requirement:
        """Return what a text says.

        :raises ValueError: if it says nothing of this.
        """
        found = re.fullmatch(r"\s*([\w.%-]+?)\s*(<=|>=|==|<|>)\s*([\d.]+)\s*", text)
        if found is None:
            raise ValueError(f"{text!r} is no requirement: it must be like 'round-trip.p99<=50'")
        return cls(found[1], found[2], float(found[3]))

    def is_met(self, figures: Figures) -> bool:
        """Tell whether it is met; a figure that there isn't meets nothing."""
        return self.name in figures and OPERATORS[self.relation](figures[self.name], self.bound)

    def __str__(self) -> str:
        return f"{self.name} {self.relation} {self.bound:g}"


def write(path: Path, environment: Any, tallies: list[Tally]) -> None:
    """Write what locust, and the tallies, have to say. Called in locust's process, at its end."""
    entries = {}
    for entry in environment.stats.entries.values():
        name = entry.name.strip("/").replace(" ", "-").replace("/", "-") or "root"
        answered = entry.num_requests - entry.num_none_requests
        entries[name] = {
            "count": entry.num_requests,
            "failures": entry.num_failures,
            "rate": entry.total_rps,
            "mean": entry.avg_response_time,
            "min": entry.min_response_time or 0,
            "max": entry.max_response_time,
            **(
                {label: entry.get_response_time_percentile(share) for label, share in SHARES.items()}
                if answered
                else {}
            ),
        }
    failures = [
        {"what": f"{error.method} {error.name}", "error": str(error.error), "count": error.occurrences}
        for error in environment.stats.errors.values()
    ]
    summary = {"entries": entries, "failures": failures, "tally": merged(tallies).as_dict()}
    path.write_text(json.dumps(summary, indent=1) + "\n")


def figures_of(summary: dict[str, Any]) -> Figures:
    """Return the figures that requirements are about, by their names.

    For each kind of request, such as ``connect``, ``round-trip``, ``delivery``, ``close``, ``broadcast``, ``page``:
    NAME.count, .failures, .rate (a second), .mean, .min, .max, .p50, .p90, .p95, .p99, .p99.9 (milliseconds). Of all
    requests: ``failures``. Of the websockets: ``peak`` (open at once), ``open`` (at the end), ``lost``. Of broadcasts:
    ``broadcasts``, ``missed`` (deliveries that did not come), ``last.p50`` and ``last.max`` (milliseconds until a
    broadcast had reached the last).
    """
    figures: Figures = {"failures": 0.0}
    for name, entry in summary["entries"].items():
        figures |= {f"{name}.{label}": value for label, value in entry.items()}
        figures["failures"] += entry["failures"]
    tally = Tally.from_dict(summary["tally"])
    judged = tally.judged
    figures |= {
        "peak": tally.peak,
        "open": tally.at_end,
        "lost": tally.lost,
        "broadcasts": len(judged),
        "missed": tally.missed,
    }
    if judged:
        delays = [news.last for news in judged]
        figures |= {"last.p50": statistics.median(delays), "last.max": max(delays)}
    return figures


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:.4g}"


def as_text(summary: dict[str, Any], requirements: list[Requirement]) -> tuple[str, bool]:
    """Return the report for a terminal, and whether all that was required is so."""
    figures = figures_of(summary)
    columns = ("count", "failures", "rate", "p50", "p90", "p99", "max")
    lines = [["", *columns]]
    for name, entry in summary["entries"].items():
        lines.append([name, *(_number(entry[column]) if column in entry else "-" for column in columns)])
    widths = [max(len(line[index]) for line in lines) for index in range(len(lines[0]))]
    text = [
        "  ".join(
            cell.ljust(width) if not index else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    text += ["(rate: a second; p50 to max: milliseconds)", ""]
    text.append("websockets: " + ", ".join(f"{figures[name]:,.0f} {name}" for name in ("peak", "open", "lost")))
    if figures["broadcasts"]:
        text.append(
            f"broadcasts: {figures['broadcasts']:,.0f}, {figures['missed']:,.0f} deliveries missed; reached the last "
            f"after {figures['last.p50']:,.1f} ms (median), {figures['last.max']:,.1f} ms (worst)"
        )
    text += [f"failure: {one['count']} x {one['what']}: {one['error']}" for one in summary["failures"]]
    text.append("")
    passed = True
    for requirement in requirements:
        met = requirement.is_met(figures)
        passed &= met
        value = f"{figures[requirement.name]:,.6g}" if requirement.name in figures else "there is no such figure"
        text.append(f"{'pass' if met else 'FAIL'}  {requirement}  ({value})")
    text.append("passed" if passed else "FAILED")
    return "\n".join(text), passed

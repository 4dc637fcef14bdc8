"""The charts of a sitting, as PNG and SVG. It runs in an environment that has matplotlib: ``charts.py JSON FOLDER``.

The JSON has, for each chart: its name, title and kind (``bars`` or ``lines``), the scale, what the axis says, and the
values.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
mpl.rcParams["svg.hashsalt"] = "ws4py"
mpl.rcParams["font.size"] = 9

from matplotlib import pyplot as plt  # noqa: E402 - the backend is chosen first

OURS, OTHERS = ("#0b5394", "#3d85c6", "#9fc5e8"), "#b7b7b7"
LINES = ("#cc0000", "#e69138", "#6aa84f", "#674ea7", "#a64d79", "#8e7cc3", "#783f04", "#bf9000", "#45818e", "#000000")


def is_ours(name: str) -> bool:
    """Tell whether a peer is this ws4py."""
    return name.startswith("ws4py") and "0.6" not in name


def number(value: float, _: object = None) -> str:
    """Write a number for an axis."""
    return f"{value:,.0f}" if value >= 10 else f"{value:g}"


def colour(name: str, index: int) -> str:
    """Return the colour of a peer's bar."""
    return OURS[min(index, len(OURS) - 1)] if is_ours(name) else OTHERS


def bars(chart: dict[str, Any]) -> Any:
    """Draw a panel for each figure, a bar for each peer."""
    panels = chart["panels"]
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    most = max(len(panel["values"]) for panel in panels)
    figure, axes = plt.subplots(rows, columns, figsize=(5.4 * columns, (0.24 * most + 0.8) * rows), squeeze=False)
    for axis, panel in zip(axes.flat, panels, strict=False):
        names, values = list(panel["values"]), list(panel["values"].values())
        places = range(len(names))
        drawn = axis.barh(places, values, color=[colour(name, index) for index, name in enumerate(names)])
        axis.set_yticks(places, names)
        axis.invert_yaxis()
        axis.bar_label(drawn, [f"{value:,.3g}" if value < 100 else f"{value:,.0f}" for value in values], padding=3)
        axis.set_title(panel["title"], fontsize=9, loc="left")
        axis.set_xlim(right=max(values) * 1.22)
        axis.spines[["top", "right"]].set_visible(False)
        axis.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(number))
        axis.xaxis.set_major_locator(mpl.ticker.MaxNLocator(5))
        axis.tick_params(axis="x", labelsize=7)
    for axis in list(axes.flat)[len(panels) :]:
        axis.set_visible(False)
    return figure


def lines(chart: dict[str, Any]) -> Any:
    """Draw a line for each peer."""
    figure, axis = plt.subplots(figsize=(8, 5))
    marks = "osD^vPX<>*hd8"
    for index, (name, points) in enumerate(chart["lines"].items()):
        axis.plot(
            [point[0] for point in points],
            [point[1] for point in points],
            marker=marks[index % len(marks)],
            markersize=4,
            linewidth=2.4 if is_ours(name) else 1.1,
            color=colour(name, index) if is_ours(name) else LINES[index % len(LINES)],
            linestyle="--" if "floor" in name else "-",
            label=name,
        )
    axis.set_xscale("log")
    if chart["log"]:
        axis.set_yscale("log")
    else:
        axis.set_ylim(bottom=0)
    axis.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(number))
    axis.yaxis.set_major_formatter(mpl.ticker.FuncFormatter(number))
    axis.set_xlabel("connections")
    axis.set_ylabel(chart["axis"])
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return figure


def main() -> None:
    """Draw all."""
    charts = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(sys.argv[2])
    for chart in charts:
        figure = bars(chart) if chart["kind"] == "bars" else lines(chart)
        figure.suptitle(chart["title"], x=0.01, ha="left", fontsize=11, fontweight="bold")
        figure.tight_layout()
        for kind in ("png", "svg"):
            options: dict[str, Any] = {"metadata": {"Date": None}} if kind == "svg" else {"dpi": 110}
            figure.savefig(folder / f"{chart['name']}.{kind}", bbox_inches="tight", **options)
        plt.close(figure)
        print(folder / f"{chart['name']}.png")


if __name__ == "__main__":
    main()

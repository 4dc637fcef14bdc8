"""The table of a sitting, as text and as reStructuredText."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.peers import PEERS
from benchmarks.results import Results

NOTHING = "–"  # noqa: RUF001 - a dash, not a minus


def _number(value: float | None) -> str:
    if value is None:
        return NOTHING
    if value == 0:
        return "0"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 1 else f"{value:.2g}"


def _ratio(value: float | None) -> str:
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}" if value >= 2 else f"{value:.2f}"


def _lines(results: Results, strong: str) -> list[list[str]]:
    """Return the cells, the head first.

    :param strong: is put around a ratio that is in favour of the peer.
    """
    first = PEERS[results.peers[0]].title
    others = [PEERS[name].title for name in results.peers[1:]]
    lines = [["", first, *others, f"ahead of {first}"]]
    for row in results.rows:
        for key, figure in row.figures.items():
            if all(results.median(row, key, peer) is None for peer in results.peers):
                continue
            cells = [figure.title, _number(results.median(row, key, results.peers[0]))]
            for name in results.peers[1:]:
                ratio = results.ratio(row, key, name)
                ahead = ratio is not None and ratio < 1
                cells.append(f"{strong}{_ratio(ratio)}{strong}" if ahead else _ratio(ratio))
            lines.append([*cells, "; ".join(results.ahead(row, key))])
    return lines


def _heading(results: Results) -> list[str]:
    machine, settings = results.machine, results.settings
    first = PEERS[results.peers[0]].title
    return [
        f"{machine['processor']}, {machine['processors']} processors, {machine['system']}, Python {machine['python']};",
        f"server on processor {settings['server_cpus']}, load on {settings['load_cpus']};",
        f"medians of {settings['runs']} runs of {settings['seconds']:g} s, of 5,000 connections and more one run; "
        f"{results.started[:10]}.",
        f"The second column is {first}'s figure; the others say how many times better {first} is than that peer.",
    ]


def _notes(results: Results) -> list[str]:
    titles = {row.name: next(iter(row.figures.values())).title.rpartition(":")[0] or row.name for row in results.rows}
    return [
        f"{titles.get(row, row)}: {PEERS[peer].title}: {' '.join(reason.split())}"
        for row, reasons in results.failures.items()
        for peer, reason in reasons.items()
    ]


def as_text(results: Results) -> str:
    """Return the table for a terminal. A ratio between asterisks is in favour of the peer."""
    lines = _lines(results, "*")
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    head, *rest = lines
    # The titles of the peers are wider than the ratios: they are written one word below the other.
    words = [cell.replace(", ", ",\n").replace(" of ", " of\n").split("\n") for cell in head]
    for column in range(1, len(head)):
        widths[column] = max(len(word) for word in [*words[column], *(line[column] for line in rest)])
    height = max(len(cell) for cell in words)
    heads = [[cell[line] if line < len(cell) else "" for cell in words] for line in range(height)]
    text = [*_heading(results), ""]
    for line in [*heads, *rest]:
        cells = [cell.rjust(width) for cell, width in zip(line[1:-1], widths[1:-1], strict=True)]
        text.append("  ".join([line[0].ljust(widths[0]), *cells, line[-1]]).rstrip())
    notes = _notes(results)
    return "\n".join([*text, "", *notes, ""] if notes else [*text, ""])


def as_rest(results: Results) -> str:
    """Return the table as reStructuredText. A strong ratio is in favour of the peer."""
    lines = _lines(results, "**")
    widths = [max(len(line[column]) for line in lines) or 1 for column in range(len(lines[0]))]
    rule = "  ".join("=" * width for width in widths)

    def joined(line: Sequence[str]) -> str:
        first = line[0] or "\\"  # a line of a simple table can't begin with nothing
        cells = [first, *line[1:]]
        return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()

    text = [*_heading(results), "", rule, joined(lines[0]), rule, *map(joined, lines[1:]), rule, ""]
    notes = _notes(results)
    if notes:
        text += ["No figures:", "", *(f"- {note}" for note in notes), ""]
    return "\n".join(text)

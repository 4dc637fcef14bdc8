"""The command ``ws4py stats``: the figures of a server in a terminal."""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from ws4py.cli.common import fail, header, seconds
from ws4py.client.url import host_and_port, split_url, without_login
from ws4py.labels import printable

__all__ = ["add_command", "render"]

Figures = dict[str, Any]

BARS: Final = " ▁▂▃▄▅▆▇█"
PLACED: Final = frozenset(
    {
        "connections_opened",
        "turns",
        "turns_in_place",
        "turns_handed_over",
        "reliefs",
        "handled_messages",
        "handler_errors",
        "broadcasts",
        "broadcast_deliveries",
    }
)
"""Counters that have a place of their own in the text, or are for machines."""

CLEAR: Final = "\x1b[H\x1b[J"
OTHER_SCREEN: Final = "\x1b[?1049h\x1b[?25l"
FIRST_SCREEN: Final = "\x1b[?25h\x1b[?1049l"

DEFAULT_PORTS: Final = {"http": 80, "https": 443}
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
MAX_REDIRECTS: Final = 5
MAX_ANSWER: Final = 4 << 20
"""The most bytes that are read of an answer."""


def add_command(commands: Any) -> None:
    """Add the command to those of ``ws4py``.

    :param commands: where argparse keeps them.
    """
    parser = commands.add_parser(
        "stats",
        help="show the statistics of a server",
        description="Show what a server counts that has ws4py's statistics mounted.",
    )
    parser.add_argument(
        "url",
        metavar="URL",
        help="where they are mounted, such as http://localhost:9000/stats; a name and a password may be in it",
    )
    parser.add_argument("-w", "--watch", action="store_true", help="show them again and again, until Ctrl+C")
    parser.add_argument("--json", action="store_true", help="as JSON; with --watch, a line each time")
    parser.add_argument(
        "--interval", type=seconds, default=2.0, metavar="SECONDS", help="how often, with --watch (%(default)s)"
    )
    parser.add_argument("--timeout", type=seconds, default=10.0, metavar="SECONDS", help="for an answer (%(default)s)")
    parser.add_argument(
        "-H", "--header", action="append", default=[], type=header, metavar="'NAME: VALUE'", help="a further header"
    )
    parser.set_defaults(run=run)


class Failure(Exception):
    """Why there are no figures, in a sentence."""

    def __init__(self, text: str) -> None:
        super().__init__(printable(text))


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows nothing: urllib would send a password to wherever a server points."""

    def redirect_request(self, *_: Any) -> None:
        """Return no request, so that the redirection is an HTTPError."""


_opener = urllib.request.build_opener(NoRedirects)


def make_request(url: str, headers: Sequence[tuple[str, str]] = ()) -> urllib.request.Request:
    """Return the request for the figures that are mounted at ``url``.

    :raises Failure: if it is no URL of HTTP.
    """
    try:
        parts = split_url(url if "://" in url else f"http://{url}")
        host, _ = host_and_port(parts)
    except ValueError:
        host = ""
    if not host or parts.scheme not in DEFAULT_PORTS:
        raise Failure(f"{without_login(url)!r} is no http:// or https:// address")
    path = parts.path if parts.path.endswith("/stats.json") else f"{parts.path.rstrip('/')}/stats.json"
    userinfo, _, netloc = parts.netloc.rpartition("@")
    request = urllib.request.Request(urlunsplit((parts.scheme, netloc, path, parts.query, "")))  # noqa: S310 - see above
    if userinfo:
        request.add_header("Authorization", f"Basic {base64.b64encode(unquote(userinfo).encode()).decode()}")
    for name, value in headers:
        request.add_header(name, value)
    return request


def fetch(request: urllib.request.Request, timeout: float) -> Figures:
    """Return the figures. Redirections are followed to the same scheme, host and port only, since the request may carry
    a password.

    :param timeout: in seconds: for each wait, and for all of the answer's body.
    :raises Failure: if there are none.
    """
    host = request.host
    try:
        figures = _clean(json.loads(_ask(request, timeout)))
    except urllib.error.HTTPError as error:
        raise Failure(f"the server answers {error.code} {error.reason}{_explanation(error)}") from None
    except urllib.error.URLError as error:
        raise Failure(f"{host} can't be asked: {error.reason}") from None
    except (OSError, ValueError, RecursionError, http.client.HTTPException) as error:
        raise Failure(f"the answer of {host} can't be read: {error or type(error).__name__}") from None
    if not isinstance(figures, dict) or "connections" not in figures or "workers" not in figures:
        raise Failure("these are not the statistics of ws4py: give the URL where they are mounted")
    return figures


def _ask(request: urllib.request.Request, timeout: float) -> bytes:
    """Return the body of the answer."""
    deadline = time.monotonic() + timeout
    for _ in range(MAX_REDIRECTS):
        try:
            answer = _opener.open(request, timeout=timeout)
            break
        except urllib.error.HTTPError as error:
            location = error.headers.get("Location")
            if error.code not in REDIRECTS or not location:
                raise
            error.close()
            url = urljoin(request.full_url, location)
            if _origin(url) != _origin(request.full_url):
                text = f"redirected to {without_login(url)}: give that address, if it may get what you send"
                raise Failure(text) from None
            request = urllib.request.Request(url, headers=request.headers)  # noqa: S310 - it is of HTTP, as before
    else:
        raise Failure(f"redirected over {MAX_REDIRECTS} times")
    with answer:
        data = bytearray()
        while part := answer.read1(65536):
            data += part
            if len(data) > MAX_ANSWER:
                raise ValueError(f"it is over {MAX_ANSWER} bytes")
            if time.monotonic() > deadline:
                raise TimeoutError(f"not whole in {timeout} seconds")
    return bytes(data)


def _explanation(error: urllib.error.HTTPError) -> str:
    """Return the first line of a refusal's body, if it is a text."""
    try:
        with error:
            text = error.read(200).decode(errors="replace").strip().partition("\n")[0]
    except (OSError, ValueError, http.client.HTTPException):
        return ""
    return f": {text}" if error.headers.get_content_type() == "text/plain" else ""


def _origin(url: str) -> tuple[str, str | None, int | None]:
    """Return the scheme, the host and the port of a URL."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or DEFAULT_PORTS.get(parts.scheme)


def _clean(value: Any) -> Any:
    """Return what a server said without characters that would command a terminal."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {_clean(name): _clean(item) for name, item in value.items()}
    return [_clean(item) for item in value] if isinstance(value, list) else value


def run(options: argparse.Namespace) -> int:
    """Carry the command out; return the exit status."""
    try:
        request = make_request(options.url, options.header)
        if not options.watch:
            _write(_once(options, fetch(request, options.timeout), None))
            return 0
        return _watch(options, request)
    except Failure as error:
        return fail(str(error))
    except KeyboardInterrupt:
        return 0
    except BrokenPipeError:
        # Whoever reads has enough; and Python would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _once(options: argparse.Namespace, figures: Figures, before: Figures | None) -> str:
    if options.json:
        return json.dumps(figures, indent=None if options.watch else 2) + "\n"
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    try:
        return render(figures, before, _width(), colour) + "\n"
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        raise Failure("these are not the statistics of ws4py, or of a version that this one does not know") from None


def _width() -> int:
    """Return how many columns there are."""
    return min(100, shutil.get_terminal_size((80, 24)).columns)


def _watch(options: argparse.Namespace, request: urllib.request.Request) -> int:
    screen = sys.stdout.isatty() and not options.json
    before: Figures | None = None
    figures = fetch(request, options.timeout)  # a wrong address is no reason to wait
    if screen:
        _write(OTHER_SCREEN)
    try:
        while True:
            text = _once(options, figures, before)
            _write((CLEAR if screen else "") + text)
            before = figures
            time.sleep(max(0.1, options.interval))
            while True:
                try:
                    figures = fetch(request, options.timeout)
                    break
                except Failure as error:  # it may be restarting
                    if not screen:
                        raise
                    _write(f"{CLEAR}{text}\n{error}\n")
                    time.sleep(max(0.1, options.interval))
    finally:
        if screen:
            _write(FIRST_SCREEN)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


# --- the text ---------------------------------------------------------------------------------------------------------


def render(figures: Figures, before: Figures | None = None, width: int = 80, colour: bool = False) -> str:
    """Return the figures as text.

    :param before: earlier ones, for rates; without them they are those since the start.
    :param width: in columns.
    :param colour: with the terminal's codes.
    """
    bold, dim, red, off = ("\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[0m") if colour else ("", "", "", "")
    connections, workers = figures["connections"], figures["workers"]
    elapsed = figures["uptime"] if before is None else figures["time"] - before["time"]

    def rate(way: str, count: Callable[[Figures], int]) -> float:
        change = count(figures[way]) - (count(before[way]) if before is not None else 0)
        return max(0.0, change / elapsed) if elapsed > 0 else 0.0

    def data(traffic: Figures) -> int:
        return int(traffic["messages"]["text"]) + int(traffic["messages"]["binary"])

    def heading(text: str) -> str:
        return f"{bold}{text}{off}"

    since = "since the start" if before is None else f"in the last {elapsed:.0f} s"
    lines = [
        f"{heading('WebSockets')}  {figures['state']}, up {_duration(figures['uptime'])}",
        "",
        _row("Connections", f"{connections['open']:,} open", f"{connections['closing']:,} closing"),
        _row("", f"{connections['opened']:,} opened", _counts("closed", connections["closed"])),
        _row("", "", _counts("refused", connections["refused"])),
        "",
        f"{'':16}{'messages':>14}{'a second':>12}{'bytes':>14}{'a second':>12}  {dim}{since}{off}",
    ]
    for way in ("received", "sent"):
        traffic = figures[way]
        lines.append(
            f"{way.capitalize():16}{data(traffic):>14,}{rate(way, data):>12,.1f}{_bytes(traffic['bytes']):>14}"
            f"{_bytes(rate(way, lambda item: item['bytes'])):>12}"
        )
    compression = figures["compression"]
    wire = compression["sent_after"] + compression["received_before"]
    if wire:
        ratio = (compression["sent_before"] + compression["received_after"]) / wire
        lines.append(_row("Compression", f"{ratio:.1f} : 1", ""))
    full = workers["limit"] and workers["busy"] >= workers["limit"]
    limit = f" of {workers['limit']}" if workers["limit"] else ""
    alarm = red if full and workers["waiting"] else ""
    lines += [
        "",
        _row(
            "Workers",
            f"{alarm}{workers['busy']}{limit} busy{off if alarm else ''}",
            f"{workers['idle']} idle, {workers['waiting']} connections waiting, {workers['errors']:,} errors",
        ),
        _row("Inboxes", f"{figures['inbox']['messages']:,} messages", f"most {figures['inbox']['largest_messages']:,}"),
        _row("Outboxes", _bytes(figures["outbox"]["bytes"]), f"largest {_bytes(figures['outbox']['largest_bytes'])}"),
        "",
        f"{'':16}{'median':>14}{'90 %':>12}{'99 %':>14}  {dim}10 µs ... 10 s{off}",
    ]
    for name, title in (("queue_wait", "Queue wait"), ("handler_time", "Handler time")):
        lines.append(_times(title, workers[name], before and before["workers"][name]))
    for name, title in (("round_trip", "Round trip"), ("loop_lag", "Loop lag")):
        lines.append(_times(title, figures[name], before and before[name]))
    acted = {name: count for name, count in figures["limits"].items() if count}
    lines += ["", _row("Limits", "" if acted else "none had to act", _counts("", acted) if acted else "")]
    lines.append(_row("Broadcasts", f"{figures['broadcasts']:,}", f"{figures['deliveries']:,} deliveries"))
    others = _other_counts(figures)
    if others:
        lines.append(_row("Also", _counts("", others), ""))
    return "\n".join(line.rstrip() if colour else line.rstrip()[:width] for line in lines if line.strip() or not line)


def _other_counts(figures: Figures) -> dict[str, int]:
    """Return the counters that are not 0 and have no place of their own."""
    from ws4py.manager.metrics import METRICS

    found: dict[str, int] = {}
    for metric in METRICS:
        if metric.kind == "counter" and not metric.labels and metric.name not in PLACED:
            with suppress(LookupError):  # the server is older
                found.update((metric.title.lower(), value) for _, value in metric.samples(figures) if value)
    return found


def _row(title: str, first: str, rest: str) -> str:
    return f"{title:16}{first:22}{rest}" if first or rest else " "


def _counts(title: str, counts: dict[str, int]) -> str:
    listed = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    if not title:
        return listed
    return f"{sum(counts.values()):,} {title}" + (f" ({listed})" if listed else "")


def _times(title: str, histogram: Figures, before: Figures | None) -> str:
    buckets: list[int] = histogram["buckets"]
    if before is not None:
        recent = [now - then for now, then in zip(buckets, before["buckets"], strict=True)]
        if any(recent) and min(recent) >= 0:
            buckets = recent
    values = [_quantile(histogram["bounds"], buckets, fraction) for fraction in (0.5, 0.9, 0.99)]
    most = max(buckets) or 1
    picture = "".join(BARS[-(-count * (len(BARS) - 1) // most)] for count in buckets)
    return f"{title:16}{values[0]:>14}{values[1]:>12}{values[2]:>14}  {picture}"


def _quantile(bounds: list[float], buckets: list[int], fraction: float) -> str:
    from ws4py.manager.snapshot import HistogramSnapshot

    value = HistogramSnapshot(tuple(bounds), tuple(buckets), 0.0).quantile(fraction)
    return "-" if value is None else _time(value)


def _time(seconds: float) -> str:
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _bytes(count: float) -> str:
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count:.0f} B"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return (f"{days} d " if days else "") + f"{hours}:{minutes:02}:{rest:02}"

"""The figures of a manager in CherryPy's own convention: ``logging.statistics['CherryPy WebSocket']``.

:class:`~ws4py.server.cherrypyserver.WebSocketPlugin` puts them there while it runs; ``cherrypy.lib.cpstats.StatsPage``
shows them beside those of the applications and of the HTTP server, as HTML and as JSON. They cost nothing until
somebody looks. Its button *Pause* holds the figures as they are then, and *Resume* shows the present again; the manager
counts on meanwhile.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from html import escape
from typing import Any, Final

from ws4py.manager import WebSocketManager
from ws4py.manager.metrics import METRICS, Metric
from ws4py.manager.snapshot import Snapshot

__all__ = ["NAMESPACE", "WebSocketStatistics"]

NAMESPACE: Final = "CherryPy WebSocket"
"""The figures' name in ``logging.statistics``."""

FRESH: Final = 0.5
"""For how many seconds the figures of one page are the same: each one is asked for by itself."""

TOP: Final = 10

Figure = Callable[[Snapshot], Any]


def _number(metric: Metric, labels: tuple[str, ...]) -> Figure:
    return lambda stats: dict(metric.samples(stats))[labels]


def _table(metric: Metric) -> Figure:
    return lambda stats: {
        " ".join(labels): {"Count": count} for labels, count in sorted(metric.samples(stats)) if count
    }


def _time(metric: Metric, fraction: float) -> Figure:
    return lambda stats: 1000 * (dict(metric.samples(stats))[()].quantile(fraction) or 0.0)


def _figures() -> Iterator[tuple[str, Figure]]:
    """Yield what the page shows, with its title: first what is one number, then the tables."""
    tables: list[tuple[str, Figure]] = []
    for metric in METRICS:
        if metric.kind == "histogram":
            yield f"{metric.title} Median (ms)", _time(metric, 0.5)
            yield f"{metric.title} 99% (ms)", _time(metric, 0.99)
        elif any(len(labels) < len(metric.labels) for labels in metric.paths):
            tables.append((metric.title, _table(metric)))
        else:
            for labels in metric.paths:
                yield " ".join((metric.title, *labels)).title(), _number(metric, labels)
    yield from tables


_FIGURES: Final[dict[str, Figure]] = {
    **dict(_figures()),
    "State": lambda stats: stats.state,
    "Build": lambda stats: str(stats.build),
    "Connections Closed": lambda stats: sum(stats.connections.closed.values()),
    "Handshakes Refused": lambda stats: sum(stats.connections.refused.values()),
    "Messages Received": lambda stats: stats.received.messages["text"] + stats.received.messages["binary"],
    "Messages Sent": lambda stats: stats.sent.messages["text"] + stats.sent.messages["binary"],
    "Compression Ratio": lambda stats: stats.compression.ratio or 1.0,
}


class WebSocketStatistics(dict[str, Any]):
    """The namespace: what ``logging.statistics`` has under :data:`NAMESPACE`.

    Any thread may read it. To set ``['Enabled']`` to False holds the figures, to True lets them go.

    :param manager: whose figures they are.
    """

    def __init__(self, manager: WebSocketManager) -> None:
        super().__init__()
        self._manager = manager
        self._seen: tuple[float, Snapshot] | None = None
        self._held: tuple[Snapshot, dict[str, Any]] | None = None
        self["Enabled"] = True
        for name, figure in _FIGURES.items():
            self[name] = self._asked(figure, name == next(iter(_FIGURES)))
        self["Busiest Connections"] = lambda _: self._busiest()

    def __setitem__(self, name: str, value: Any) -> None:
        """Set an entry; see the class about ``Enabled``."""
        if name == "Enabled" and bool(value) is not (self._held is None):
            self._held = None if value else (self._manager.stats(), self._connections())
        super().__setitem__(name, value)

    def _asked(self, figure: Figure, first: bool) -> Callable[[Any], Any]:
        return lambda _: figure(self._stats(first))

    def _stats(self, anew: bool) -> Snapshot:
        """Return the snapshot of this page. The page's first figure takes a new one."""
        if self._held is not None:
            return self._held[0]
        now = time.monotonic()
        seen = self._seen
        if anew or seen is None or now - seen[0] > FRESH:
            if anew:
                _format()
            seen = self._seen = now, self._manager.stats()
        return seen[1]

    def _busiest(self) -> dict[str, Any]:
        return self._held[1] if self._held is not None else self._connections()

    def _connections(self) -> dict[str, Any]:
        return {
            str(item.id): {
                "Address": escape(item.address),  # the page escapes nothing
                "Path": escape(item.path),
                "Age": item.age,
                "Idle": item.idle,
                "Messages Received": item.messages_received,
                "Messages Sent": item.messages_sent,
                "Bytes Received": item.bytes_received,
                "Bytes Sent": item.bytes_sent,
                "Outbox Bytes": item.outbox_bytes,
            }
            for item in self._manager.connection_stats(TOP, "messages")
        }

    def publish(self) -> None:
        """Put it into ``logging.statistics``, which is made if there is none yet."""
        module: Any = logging
        if not hasattr(module, "statistics"):
            module.statistics = {}
        module.statistics[NAMESPACE] = self
        _format()

    def withdraw(self) -> None:
        """Take it out again, unless another manager's is there."""
        statistics: dict[str, Any] = getattr(logging, "statistics", {})
        if statistics.get(NAMESPACE) is self:
            del statistics[NAMESPACE]


def _format() -> None:
    """Tell CherryPy's page how to show it, if that is loaded. To load it here would switch its own statistics on."""
    cpstats: Any = sys.modules.get("cherrypy.lib.cpstats")
    if cpstats is None or NAMESPACE in cpstats.StatsPage.formatting:
        return
    columns = {"Age": "%.0f", "Idle": "%.0f"}
    cpstats.StatsPage.formatting[NAMESPACE] = {
        "Enabled": cpstats.pause_resume(NAMESPACE),
        "Uptime": "%.3f",
        "Compression Ratio": "%.2f",
        "Busiest Connections": columns,
        **{name: "%.2f" for name in _FIGURES if name.endswith("(ms)")},
    }

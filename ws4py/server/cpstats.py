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
from collections.abc import Callable
from html import escape
from typing import Any, Final

from ws4py.manager import WebSocketManager
from ws4py.manager.snapshot import HistogramSnapshot, Snapshot

__all__ = ["NAMESPACE", "WebSocketStatistics"]

NAMESPACE: Final = "CherryPy WebSocket"

FRESH: Final = 0.5
"""For how many seconds the figures of one page are the same: each one is asked for by itself."""

TOP: Final = 10

Figure = Callable[[Snapshot], Any]


def _milliseconds(histogram: HistogramSnapshot, fraction: float) -> float:
    return 1000 * (histogram.quantile(fraction) or 0.0)


_FIGURES: Final[dict[str, Figure]] = {
    "Uptime": lambda stats: stats.uptime,
    "State": lambda stats: stats.state,
    "Connections Open": lambda stats: stats.connections.open,
    "Connections Opened": lambda stats: stats.connections.opened,
    "Connections Closed": lambda stats: sum(stats.connections.closed.values()),
    "Handshakes Refused": lambda stats: sum(stats.connections.refused.values()),
    "Messages Received": lambda stats: stats.received.messages["text"] + stats.received.messages["binary"],
    "Messages Sent": lambda stats: stats.sent.messages["text"] + stats.sent.messages["binary"],
    "Bytes Received": lambda stats: stats.received.bytes,
    "Bytes Sent": lambda stats: stats.sent.bytes,
    "Compression Ratio": lambda stats: stats.compression.ratio or 1.0,
    "Inbox Messages": lambda stats: stats.inbox.messages,
    "Outbox Bytes": lambda stats: stats.outbox.bytes,
    "Workers Limit": lambda stats: stats.workers.limit,
    "Workers Busy": lambda stats: stats.workers.busy,
    "Workers Idle": lambda stats: stats.workers.idle,
    "Connections Waiting": lambda stats: stats.workers.waiting,
    "Turns": lambda stats: stats.workers.turns,
    "Handler Errors": lambda stats: stats.workers.errors,
    "Queue Wait Median (ms)": lambda stats: _milliseconds(stats.workers.queue_wait, 0.5),
    "Queue Wait 99% (ms)": lambda stats: _milliseconds(stats.workers.queue_wait, 0.99),
    "Handler Time Median (ms)": lambda stats: _milliseconds(stats.workers.handler_time, 0.5),
    "Handler Time 99% (ms)": lambda stats: _milliseconds(stats.workers.handler_time, 0.99),
    "Loop Lag 99% (ms)": lambda stats: _milliseconds(stats.loop_lag, 0.99),
    "Round Trip Median (ms)": lambda stats: _milliseconds(stats.round_trip, 0.5),
    "Broadcasts": lambda stats: stats.broadcasts,
    "Broadcast Deliveries": lambda stats: stats.deliveries,
    "Connection Faults": lambda stats: stats.faults,
    "Manager Failures": lambda stats: stats.failures,
    "Closed by Code": lambda stats: _table(stats.connections.closed, "Connections"),
    "Refused by Status": lambda stats: _table(stats.connections.refused, "Handshakes"),
    "Limits": lambda stats: _table(stats.limits, "Acted"),
}


def _table(counts: Any, column: str) -> dict[str, dict[str, int]]:
    return {str(name): {column: count} for name, count in counts.items() if count}


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

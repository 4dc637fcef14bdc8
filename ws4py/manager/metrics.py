"""Everything that is counted and measured, in one table.

From it come the metrics of Prometheus, the page of CherryPy, what a terminal shows beside its own choice, the
descriptions in the schema of the JSON, and the table of the documentation. What only happens, and is counted where it
does, brings its row along: :data:`ws4py.manager.snapshot.EVENTS`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from ws4py.manager.snapshot import EVENTS

__all__ = ["METRICS", "Adding", "Kind", "Metric"]

Kind = Literal["counter", "gauge", "histogram"]
"""A counter only grows while a manager lives; a histogram is of times, in seconds."""

Adding = Literal["sum", "max", "merge"]
"""What becomes of the values of several processes: their sum, the greatest of them, or one histogram."""

_Labels = tuple[str, ...]

_CODES: Final = ("1000", "1001", "1002", "1005", "1006", "1007", "1008", "1009", "1011", "1013", "3xxx", "4xxx")
_STATUSES: Final = ("400", "403", "405", "426", "429", "503")


@dataclass(frozen=True)
class Metric:
    """One of them.

    :ivar name: of what it is, with its unit, as Prometheus has it, but for ``ws4py_`` and a counter's ``_total``.
    :ivar kind: see :data:`Kind`.
    :ivar text: what it is, in a sentence.
    :ivar paths: where it is in a snapshot, as "connections.open"; for each value of the labels, if there are several.
        Where a mapping is there, its keys are those of the last label.
    :ivar labels: their names.
    :ivar adding: see :data:`Adding`.
    :ivar expected: values of the label that are there from the beginning, with 0: Prometheus can see no increase to the
        first value of a series.
    :ivar title: as people are shown it.
    """

    name: str
    kind: Kind
    text: str
    paths: Mapping[_Labels, str]
    labels: _Labels
    adding: Adding
    expected: tuple[str, ...]
    title: str

    @property
    def unit(self) -> str:
        """Seconds, bytes, or "" for a number of something."""
        return next((unit for unit in ("seconds", "bytes") if unit in self.name.split("_")), "")

    def samples(self, figures: Any) -> Iterator[tuple[_Labels, Any]]:
        """Yield the values of the labels with the number, or the histogram, that belongs to them.

        :param figures: a :class:`~ws4py.manager.snapshot.Snapshot`, or what its ``as_dict()`` returns.
        :raises LookupError: if a dictionary is of a server that does not count it.
        """
        for value in self.expected:
            (path,) = self.paths.values()
            if value not in map(str, _at(figures, path)):
                yield (value,), 0
        for fixed, path in self.paths.items():
            found = _at(figures, path)
            if len(fixed) == len(self.labels):
                yield fixed, found
            else:
                for label, number in found.items():
                    yield (*fixed, str(label)), number


def _at(figures: Any, path: str) -> Any:
    for name in path.split("."):
        figures = figures[name] if isinstance(figures, Mapping) else getattr(figures, name)
    return figures


def _metric(
    kind: Kind,
    name: str,
    text: str,
    path: str | Mapping[_Labels, str],
    labels: _Labels = (),
    *,
    adding: Adding | None = None,
    expected: tuple[str, ...] = (),
    title: str | None = None,
) -> Metric:
    paths: Mapping[_Labels, str] = {(): path} if isinstance(path, str) else path
    title = name.replace("_", " ").title() if title is None else title
    return Metric(name, kind, text, paths, labels, adding or "sum", expected, title)


def _counter(name: str, text: str, path: str | Mapping[_Labels, str], labels: _Labels = (), **options: Any) -> Metric:
    return _metric("counter", name, text, path, labels, **options)


def _gauge(name: str, text: str, path: str | Mapping[_Labels, str], labels: _Labels = (), **options: Any) -> Metric:
    return _metric("gauge", name, text, path, labels, **options)


def _times(name: str, text: str, path: str, title: str) -> Metric:
    return _metric("histogram", name, text, path, adding="merge", title=title)


METRICS: Final[tuple[Metric, ...]] = (
    _gauge("uptime_seconds", "For how long the manager has run.", "uptime", adding="max", title="Uptime"),
    _gauge("connections_open", "Websockets that are open.", "connections.open"),
    _gauge("connections_closing", "Websockets whose end has begun.", "connections.closing"),
    _counter("connections_opened", "Websockets that were opened.", "connections.opened"),
    _counter(
        "connections_closed",
        "Websockets that have ended, by the code given to closed().",
        "connections.closed",
        ("code",),
        expected=_CODES,
        title="Closed by Code",
    ),
    _counter(
        "handshakes_refused",
        "Handshakes that were refused, by the HTTP status.",
        "connections.refused",
        ("status",),
        expected=_STATUSES,
        title="Refused by Status",
    ),
    _counter(
        "messages",
        "Messages, control frames among them.",
        {("received",): "received.messages", ("sent",): "sent.messages"},
        ("direction", "kind"),
    ),
    _counter(
        "payload_bytes",
        "Payload of text and binary messages, without compression.",
        {("received",): "received.payload_bytes", ("sent",): "sent.payload_bytes"},
        ("direction", "kind"),
    ),
    _counter(
        "socket_bytes",
        "Bytes read from and written to sockets.",
        {("received",): "received.bytes", ("sent",): "sent.bytes"},
        ("direction",),
        title="Bytes",
    ),
    _counter(
        "compression_bytes",
        "Payload of compressed messages: as the application has it, and as it is on the wire.",
        {
            ("received", "application"): "compression.received_after",
            ("received", "wire"): "compression.received_before",
            ("sent", "application"): "compression.sent_before",
            ("sent", "wire"): "compression.sent_after",
        },
        ("direction", "form"),
    ),
    _gauge("inbox_messages", "Messages that wait for a handler.", "inbox.messages"),
    _gauge("inbox_bytes", "Their payload, and what has come of messages that have not ended.", "inbox.bytes"),
    _gauge("inbox_messages_largest", "Messages in the fullest inbox.", "inbox.largest_messages", adding="max"),
    _gauge("inbox_bytes_largest", "Payload in the largest inbox.", "inbox.largest_bytes", adding="max"),
    _gauge("outbox_bytes", "Bytes that wait to be written.", "outbox.bytes"),
    _gauge("outbox_bytes_largest", "Bytes in the largest outbox.", "outbox.largest_bytes", adding="max"),
    _gauge(
        "workers",
        "Threads or greenlets that run callbacks.",
        {("idle",): "workers.idle", ("busy",): "workers.busy"},
        ("state",),
    ),
    _gauge("workers_limit", "How many there may be; 0 for no limit.", "workers.limit"),
    _gauge(
        "run_queue_connections", "Connections that wait for a worker.", "workers.waiting", title="Connections Waiting"
    ),
    _counter("turns", "Connections that workers have taken up.", "workers.turns"),
    _counter("turns_in_place", "Turns by the thread that had read what they are for.", "workers.in_place"),
    _counter("turns_handed_over", "Turns by another thread than that.", "workers.handed_over"),
    _counter("reliefs", "Workers sent to poll since callbacks took long.", "workers.relieved"),
    _counter("slow_callbacks", "Callbacks that took longer than slow_callback.", "workers.slow_callbacks"),
    _counter("handled_messages", "Messages that were handed to handlers.", "workers.messages"),
    _counter("handler_errors", "Exceptions that handlers raised.", "workers.errors"),
    _times("queue_wait_seconds", "From something to do to a worker that does it.", "workers.queue_wait", "Queue Wait"),
    _times("handler_seconds", "How long the callbacks of a turn took.", "workers.handler_time", "Handler Time"),
    _times("loop_lag_seconds", "How late the manager's timers went off.", "loop_lag", "Loop Lag"),
    _times("ping_round_trip_seconds", "From a Ping to its Pong.", "round_trip", "Round Trip"),
    _counter("limit_actions", "How often a limit or a policy acted.", "limits", ("limit",), title="Limits"),
    _gauge("topics", "Topics that somebody is on.", "topics.open"),
    _gauge("subscriptions", "Subscriptions to topics.", "topics.subscriptions"),
    _gauge("broker_connected", "1 if the broker is connected to what carries publications.", "broker.connected"),
    _gauge("broker_waiting", "Publications that the broker has not sent yet.", "broker.waiting"),
    _gauge("broker_waiting_bytes", "What they take.", "broker.waiting_bytes"),
    _counter("broker_sent", "Publications that the broker has sent.", "broker.sent"),
    _counter("broker_lost", "Publications that it could not send.", "broker.lost"),
    _counter("broker_received", "Publications that have come to the broker.", "broker.received"),
    _counter("broker_repeated", "Messages to it that had come before.", "broker.repeated"),
    _counter("broker_unknown", "Messages to it of another version.", "broker.unknown"),
    _counter("broker_reconnections", "How often it has connected again.", "broker.reconnections"),
    _counter("broker_starvations", "How often its connection looked well and brought nothing.", "broker.starvations"),
    *(_counter(item["metric"], item["text"], name) for name, item in EVENTS.items()),
)

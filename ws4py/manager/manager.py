"""The manager, as applications and servers use it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from ws4py.around import Around
from ws4py.backends.threads import Threads
from ws4py.broker import Broker, Retentions
from ws4py.engine import Connection, make_engine
from ws4py.engine.counters import WorkerCounters
from ws4py.engine.pollers import Poller
from ws4py.exc import HandshakeError, ManagerError
from ws4py.labels import address_of, status_label
from ws4py.limits import Limits, OverflowPolicy
from ws4py.manager.accesslog import log_end
from ws4py.manager.arguments import (
    DEFAULT_WORKERS,
    SLOW_CALLBACK,
    checked_dispatch,
    checked_seconds,
    checked_workers,
)
from ws4py.manager.broadcasts import Broadcasts
from ws4py.manager.enrolment import Enrolment
from ws4py.manager.member import Member
from ws4py.manager.process import managers
from ws4py.manager.ranking import ConnectionSnapshot, SortKey, take_connections
from ws4py.manager.reactor import Reactor
from ws4py.manager.registry import Registry
from ws4py.manager.scheduler import Scheduler
from ws4py.manager.slowlog import SlowCallbackLog
from ws4py.manager.snapshot import Snapshot, Source, take_snapshot
from ws4py.manager.startup import Setup
from ws4py.manager.switching import switch_intervals
from ws4py.messaging import CloseControlMessage, Message, encode_payload
from ws4py.native import build
from ws4py.websocket import WebSocket

__all__ = ["WebSocketManager"]

logger = logging.getLogger("ws4py")

NEW, RUNNING, STOPPING, STOPPED, FAILED = "new", "running", "stopping", "stopped", "failed"
"""The states of a manager."""

PATIENCE: Final = 0.1
"""How long, in seconds, :meth:`WebSocketManager.stop` waits for who is just starting it, or adds a websocket."""


class WebSocketManager:
    """Runs websockets: at any moment one thread multiplexes their sockets, and workers run their callbacks.

    Every method may be called from any thread unless it says otherwise.

    A manager that has started keeps the process alive until it is stopped, as its thread did in 0.6, unless
    :attr:`daemon` was set. One that still runs when the process ends is stopped then, and waited for.

    :ivar workers: how many callbacks may run at once.
    :ivar lock: not used here; it is there for programs of 0.6 that hold it while they use the manager.
    :ivar on_failure: called when the manager has failed, with no arguments, by the thread that did, which ends then. It
        may start the manager again.
    :param poller: what to wait with; the system's best by default. One's own implies ``dispatch="pool"``: then one
        thread alone touches it.
    :param workers: how many callbacks may run at once; threads are started on demand. 0 runs callbacks on the thread
        that polls, as 0.6 did: a callback that blocks then blocks all.
    :param dispatch: ``"adaptive"`` (workers poll themselves, so that a quick callback costs no thread switch) or
        ``"pool"`` (a thread of its own polls, and every callback goes to the pool). The environment variable
        ``WS4PY_DISPATCH`` sets what is used where this is None, else ``"adaptive"``. With ``workers=0`` it is ignored.
    :param slow_callback: after how many seconds a callback that still runs is logged, with its stack, and counted; None
        never does.
    :param switch_interval: at most so many seconds pass, while the manager runs, until a thread that computes lets
        others run (:func:`sys.setswitchinterval`), unless the application has set less; None leaves that as it is.
    :param limits: of the manager and, unless they are given their own, of its connections.
    :param clock: a monotonic clock, in seconds.
    :param around: called with the websocket before each callback; the callback runs within the context manager that it
        returns, and in a context of :mod:`contextvars` of its websocket's own. An endpoint's own comes in its place.
    :param access_log: write a line of the logger ``ws4py.access`` for each websocket at its end: see
        :mod:`ws4py.manager.accesslog`.
    :param broker: carries publications and broadcasts between the managers that share it; by default the manager has
        one of its own. Or its URL: see :func:`ws4py.broker.make_broker`; that one is closed with the manager.
    :param history: how many messages of a topic are kept, and until how many seconds after the newest, by the name of
        a topic, or by what its name begins with and an asterisk: ``{"room/*": (50, 600)}``.
    :param options: single limits, by their names in :class:`~ws4py.limits.Limits`.
    :raises ValueError: for an argument out of range.
    """

    def __init__(
        self,
        poller: Poller | None = None,
        *,
        workers: int = DEFAULT_WORKERS,
        dispatch: str | None = None,
        slow_callback: float | None = SLOW_CALLBACK,
        switch_interval: float | None = None,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
        around: Around | None = None,
        access_log: bool = False,
        broker: Broker | str | None = None,
        history: Mapping[str, tuple[int, float]] | None = None,
        backend: Any = None,
        **options: Any,
    ) -> None:
        self._limits = (limits or Limits()).but(**options)
        self.workers = checked_workers(workers)
        self.lock = threading.RLock()
        self.on_failure: Callable[[], object] | None = None
        self._backend: Any = Threads(poller) if backend is None else backend
        self._dispatch = checked_dispatch(dispatch, poller)
        self._slow_callback = checked_seconds("slow_callback", slow_callback)
        self._switch_interval = checked_seconds("switch_interval", switch_interval)
        self._clock = clock
        self._access_log = access_log
        self._name = type(self).__name__
        self._daemon = False
        self._guard = self._backend.make_lock()  # over the manager's state; never held over a call that waits
        self._state = NEW
        self._forked = False
        self._started_at: float | None = None
        self._scheduler: Scheduler | None = None
        self._reactor: Reactor | None = None
        self._retired = WorkerCounters()  # of earlier runs
        self._engine = make_engine(self._backend, lambda member: self._registry.end(member), self._left, clock)  # noqa: PLW0108
        self._slow_log = SlowCallbackLog(self._engine.count, clock)
        self._registry = Registry(self.limits, self._engine, self._backend.make_lock, broker, Retentions(history))
        self._broadcasts = Broadcasts(self._engine, self._registry, broker is not None)
        self._enrolment = Enrolment(self._engine, self._registry, self._backend, around)
        managers.add(self)

    # --- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start. A manager that has stopped, or failed, can be started again.

        If that fails, it is as it was, and may be tried again.

        :raises ManagerError: if it is running, or belongs to another process.
        :raises RuntimeError: if the system has no thread for it.
        :raises OSError: if the system has no descriptors for it.
        """
        with self._guard:
            self._check_process()
            if self._state in (RUNNING, STOPPING):
                raise ManagerError("This manager is running already")
            before, self._state = self._state, RUNNING
            try:
                self._broadcasts.open()
                reactor, scheduler = self._setup().begin()
            except BaseException:
                self._broadcasts.close()
                self._state = before
                raise
            if self._scheduler is not None:
                self._retired.merge(self._scheduler.counters())
            self._reactor, self._scheduler = reactor, scheduler
            self._started_at = self._clock()
            logger.info("%s has started: %s", self._name, build())
            if self._switch_interval is not None:
                switch_intervals.ask(self, self._switch_interval)

    def _setup(self) -> Setup:
        return Setup(
            backend=self._backend,
            engine=self._engine,
            registry=self._registry,
            limits=self.limits,
            workers=self.workers,
            dispatch=self._dispatch,
            slow_callback=self._slow_callback,
            report_slow=self._slow_log.report,
            name=self._name,
            daemon=self._daemon,
            ended=self._ended,
        )

    def stop(self) -> None:
        """Begin to stop: every websocket is closed with 1001, and dropped if it is still open after ``drain_timeout``.

        It does not wait: see :meth:`join`. A manager that does not run is left as it is.
        """
        if not self._guard.acquire(timeout=PATIENCE):
            self._engine.ask(self.stop)  # a signal handler has interrupted what who has the lock waits for
            return
        try:
            self._check_process()
            if self._state == NEW:
                self._state = STOPPED
            if self._state != RUNNING:
                return
            self._state = STOPPING
        finally:
            self._guard.release()
        assert self._reactor is not None, "it runs"
        self._reactor.stop()

    def join(self, timeout: float | None = None) -> None:
        """Wait until a manager that stops, or fails, and its workers have ended; ``timeout`` is in seconds, None for
        ever.

        In a callback, the callbacks on the caller's own stack are not waited for: what is left of them, ``closed()``
        included, comes after their return.
        """
        if self._scheduler is not None and not self._forked:
            self._scheduler.join(timeout)

    def is_alive(self) -> bool:
        """Tell whether the manager has started, and has not ended."""
        return self._state in (RUNNING, STOPPING) and not self._forked

    @property
    def running(self) -> bool:
        """Whether websockets can be added and are served: started, and not told to stop."""
        return self._state == RUNNING and not self._failing and not self._forked

    @property
    def _failing(self) -> bool:
        """Whether it has failed, or is about to be known to have."""
        return self.failed or (self._state == RUNNING and self._reactor is not None and self._reactor.finished)

    @property
    def failed(self) -> bool:
        """Whether the manager has ended by an error, which is in the log. Its websockets are closed."""
        return self._state == FAILED

    @property
    def limits(self) -> Limits:
        """Of the manager and, unless they are given their own, of the connections that are added from now on."""
        return self._limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self._limits = self._registry.limits = limits
        if self._reactor is not None:
            self._reactor.limits = limits

    @property
    def state(self) -> str:
        """Where it is in its life: new, running, stopping, stopped or failed."""
        return self._state

    @property
    def daemon(self) -> bool:
        """Whether the process may end while the manager runs; False by default. To be set before :meth:`start`.

        :raises RuntimeError: if it is set while the manager runs.
        """
        return self._daemon

    @daemon.setter
    def daemon(self, flag: bool) -> None:
        if self.is_alive():
            raise RuntimeError("daemon can't be set while the manager runs")
        self._daemon = bool(flag)

    @property
    def name(self) -> str:
        """The manager's name, which a thread of it has."""
        return self._name

    @name.setter
    def name(self, name: str) -> None:
        self._name = str(name)
        if self._scheduler is not None:
            self._scheduler.rename(self._name)

    def __bool__(self) -> bool:
        """A manager is true, without websockets too."""
        return True

    def __enter__(self) -> WebSocketManager:
        """Start."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, and wait for the end."""
        self.stop()
        self.join()

    def _check_process(self) -> None:
        if self._forked:
            raise ManagerError(
                "This manager runs in the parent process: a forked process may send on a websocket that it inherited, "
                "but needs a manager of its own for anything else"
            )

    def _ended(self, error: BaseException | None) -> None:
        """The reactor has finished, and its last callbacks have had their time. By one thread, once."""
        self._engine.close()
        self._broadcasts.close()
        switch_intervals.withdraw(self)
        failed = error is not None
        with self._guard:
            self._engine.callers = None
            self._state = FAILED if failed else STOPPED
        if failed:
            self._engine.count("failures")
            logger.critical("The manager's thread failed; its connections were dropped", exc_info=error)
        if failed and self.on_failure is not None:
            try:
                self.on_failure()
            except BaseException:
                logger.critical("What was to be done about the manager's failure failed, too", exc_info=True)

    # --- the websockets -----------------------------------------------------------------------------------------------

    def admit(self, address: str | None = None) -> None:
        """Say whether a handshake may be accepted now.

        :param address: the peer's IP address.
        :raises HandshakeError: if not: 503 while stopping or with ``max_connections`` there, 429 with too many from
            ``address``.
        """
        if not self.running:
            raise HandshakeError("The server is shutting down", 503, self.limits.retry_headers)
        self._registry.admit(address_of(address) if address else None)

    def count_refusal(self, status: int) -> None:
        """Count a handshake that a server has refused, by the HTTP status of its answer."""
        self._registry.count_refusal(status_label(status))

    def add(self, websocket: WebSocket, limits: Limits | None = None, address: str | None = None) -> None:
        """Take a websocket over whose handshake is done: its ``opened()`` is called by a worker.

        :param websocket: with an open socket; bytes that were read already are in its ``buf``.
        :param limits: of this connection; the manager's by default.
        :param address: of the peer, for ``max_connections_per_ip``, if it is not the socket's: a proxy's word, say. A
            word that is no IP address is passed over.
        :raises ManagerError: if the manager was stopped, or belongs to another process; or if a callback is still
            running under another manager that has let the websocket go.
        :raises ValueError: if the websocket is terminated, has no open socket, or is run by somebody else; or for its
            ``heartbeat_freq``.
        :raises TypeError: if it is no websocket.
        """
        self._check_process()
        if not isinstance(websocket, WebSocket):
            raise TypeError(f"{websocket!r} is not a WebSocket")
        with self._guard:  # two threads may add one websocket
            if websocket in self:
                return
            if self._state not in (NEW, RUNNING) or self._failing:
                raise ManagerError("This manager was stopped: a websocket can't be added")
            own = limits or self.limits.but(**(websocket._limits or {}))
            member = self._enrolment.enrol(websocket, own, address)
        self._engine.mark_dirty(member.connection)
        if self._scheduler is not None and self.is_alive():
            self._scheduler.enter(member)

    def remove(self, websocket: WebSocket) -> None:
        """Let a websocket go, open: nothing is sent, ``closed()`` is not called, and its socket is blocking again.

        Returns when the socket is not used any more here, and no callback runs: after ``send_timeout`` each at the
        latest. In a callback of the websocket itself it does not wait for that.
        """
        self._check_process()
        connection = self._connection_of(websocket)
        if connection is not None:
            self._enrolment.end(websocket, connection, self._scheduler, self.is_alive())

    def _connection_of(self, websocket: WebSocket) -> Connection | None:
        connection = websocket._connection
        if isinstance(connection, Connection) and self._engine.connections.get(connection.fd) is connection:
            return connection
        return None

    def __len__(self) -> int:
        """Return how many websockets are open."""
        return len(self._registry)

    def __iter__(self) -> Iterator[WebSocket]:
        """Iterate over the websockets that are open now."""
        return iter(self.websockets.values())

    def __contains__(self, websocket: object) -> bool:
        """Tell whether a websocket is open here."""
        if not isinstance(websocket, WebSocket):
            return False
        connection = self._connection_of(websocket)
        return connection is not None and not connection.read_ended

    @property
    def websockets(self) -> dict[int, WebSocket]:
        """The websockets that are open now, by their sockets' descriptors: a copy."""
        return {member.connection.fd: member.websocket for member in self._registry.members()}

    def broadcast(
        self, message: str | bytes | bytearray | Message, binary: bool = False, overflow: OverflowPolicy | None = None
    ) -> int:
        """Send a message to every open websocket, of all managers that share a broker. Never waits for a peer.

        It is encoded once for all that it can be the same for: those without compression, and those that agreed on the
        same parameters of it without context takeover on this side.

        :param message: what ``send`` takes, but no generator.
        :param binary: send bytes as a binary message.
        :param overflow: what to do for a peer whose outbox is full; the connection's limit by default.
        :returns: how many of this manager's accepted it by now. It may come later from a broker: then none.
        :raises ManagerError: in a forked process.
        :raises BrokerError: if the broker that was given can't carry it.
        """
        self._check_process()
        return self._broadcasts.send(*encode_payload(message, binary), overflow)

    def publish(
        self, topic: str, message: str | bytes | bytearray | Message, binary: bool = False, key: str | None = None
    ) -> None:
        """Send a message to every websocket that is on a topic, as :meth:`broadcast` does. Never waits for a peer.

        Publications to one topic have one order, which is that of all its subscribers. For a peer whose outbox is full,
        the policy acts that was given to ``subscribe``.

        :param topic: its name: 1 to 255 bytes in UTF-8. That nobody is on it is no error.
        :param key: 1 to 128 characters: what has the key of a publication to the same topic in the last five minutes is
            passed over, so it may be published again by who can't know whether it was.
        :raises ManagerError: in a forked process.
        :raises ValueError: for another name, or a message that can't be sent.
        :raises BrokerError: if the broker that was given can't carry it.
        """
        self._check_process()
        self._registry.topics.publish(topic, *encode_payload(message, binary), key)

    @property
    def broker(self) -> Broker:
        """What carries publications."""
        return self._registry.topics.broker

    def close_all(self, code: int = 1001, message: str | bytes = "Server is shutting down") -> None:
        """Send a Close to every open websocket. It does not wait for their answers.

        :raises InvalidCloseCode: for a code that may not be sent.
        """
        self._check_process()
        goodbye = CloseControlMessage(code, message)
        for member in self._registry.members():
            member.connection.close(goodbye)

    # --- what is counted ----------------------------------------------------------------------------------------------

    def stats(self) -> Snapshot:
        """Return what the manager counts, and how it is now: immutable, and consistent enough to be subtracted from a
        later one.

        It takes some microseconds for each connection, in slices between which others may run.
        """
        return take_snapshot(self.source())

    def connection_stats(self, top: int | None = 10, by: SortKey = "messages") -> tuple[ConnectionSnapshot, ...]:
        """Return figures of single connections, the largest first.

        :param top: how many at most; None for all.
        :param by: the largest of what; see :data:`~ws4py.manager.ranking.SORT_KEYS`.
        :raises ValueError: for another key, or a negative ``top``.
        """
        return take_connections(self.source(), top, (by,))[0]

    def source(self) -> Source:
        """Return that from which snapshots are taken."""
        started = self._started_at
        return Source(
            registry=self._registry,
            engine=self._engine,
            scheduler=self._scheduler,
            breathe=self._backend.breathe,
            uptime=self._clock() - started if started is not None and self.is_alive() else 0.0,
            state=self._state,
            retired=self._retired,
        )

    # --- for the engine -----------------------------------------------------------------------------------------------

    def _left(self, member: Member, connection: Connection) -> None:
        """A connection is gone. By the thread that polls."""
        self._registry.leave(member, connection)
        if self._access_log:
            log_end(member, connection, self._clock())

    def locks(self) -> Iterator[Any]:
        """Return the locks, in the order in which several are taken, each when the ones before are held."""
        yield self._guard
        yield from self._registry.locks()
        yield from self._engine.locks()

    def after_fork_in_child(self) -> None:
        """Know that all threads but the caller stayed in the parent. Called in a forked process, by its only thread."""
        self._guard, self.lock = self._backend.make_lock(), threading.RLock()
        self._enrolment.after_fork_in_child()
        if self._scheduler is not None:  # a thread of one that has ended may have been about to leave it
            self._scheduler.after_fork_in_child()
        if self.is_alive() or self._forked:
            self._forked = True
            self._engine.after_fork_in_child()
            self._registry.after_fork_in_child()
            self._broadcasts.after_fork_in_child()
            if self._reactor is not None:
                self._reactor.after_fork_in_child()

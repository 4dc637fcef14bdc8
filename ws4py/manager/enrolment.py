"""How a websocket becomes a member: whether it can, and what is to be known of it then; and how it is let go, open."""

from __future__ import annotations

import weakref
from typing import Any

from ws4py.around import Around, Surroundings
from ws4py.backends.threads import let_go as let_go_of
from ws4py.engine import Connection, Engine
from ws4py.exc import ManagerError
from ws4py.labels import address_of, path_of
from ws4py.limits import Limits
from ws4py.manager.arguments import checked_frequency
from ws4py.manager.member import Bulkhead, Member
from ws4py.manager.registry import Registry
from ws4py.manager.scheduler import Scheduler
from ws4py.messaging import CloseCode, CloseControlMessage
from ws4py.websocket import WebSocket

__all__ = ["Enrolment", "check_addable"]


def check_addable(websocket: WebSocket) -> None:
    """See whether a manager can take a websocket over.

    :raises ManagerError: if a callback is still running under a manager that has let it go.
    :raises ValueError: if it is terminated, has no open socket, or is run by somebody else; or for its
        ``heartbeat_freq``.
    """
    turn, connection, sock = websocket._last_turn, websocket._connection, websocket.sock
    if turn is not None and turn.in_turn:
        raise ManagerError(f"A callback of {websocket!r} is still running under the manager that has let it go")
    if sock is None or websocket.terminated or sock.fileno() < 0:
        raise ValueError(f"{websocket!r} has no open socket")
    if isinstance(connection, Connection) and not connection.owner.finished:
        raise ValueError(f"{websocket!r} is under another manager")
    checked_frequency(websocket.heartbeat_freq)


class Enrolment:
    """Makes the members of one manager, and lets them go.

    :param engine: that has their connections.
    :param registry: of who is open.
    :param backend: what the manager waits with.
    :param around: what is around the callbacks of a websocket that brings nothing of its own.
    """

    def __init__(self, engine: Engine, registry: Registry, backend: Any, around: Around | None) -> None:
        self._engine = engine
        self._registry = registry
        self._backend = backend
        self._around = around
        self._bulkheads: weakref.WeakValueDictionary[tuple[type, int], Bulkhead] = weakref.WeakValueDictionary()

    def after_fork_in_child(self) -> None:
        """Know that no callback of the parent's has a place among those of its class. In a forked process."""
        self._bulkheads = weakref.WeakValueDictionary()

    def enrol(self, websocket: WebSocket, limits: Limits, address: str | None) -> Member:
        """Take a websocket over. One thread at a time.

        :param limits: of its connection.
        :param address: of the peer, if it is not the socket's.
        :raises ManagerError: see :func:`check_addable`.
        :raises ValueError: see :func:`check_addable`.
        """
        before = websocket._connection
        check_addable(websocket)
        member, counted = self._make_member(websocket, limits, address)
        websocket._pack()
        connection = member.connection = self._engine.make_connection(member, websocket.stream, limits, websocket.sock)
        if not websocket._attach(connection, before):
            raise ValueError(f"{websocket!r} is under another manager")
        exceeded = self._registry.enter(member, counted)
        try:
            transport, websocket.sock = self._backend.make_transport(websocket.sock, connection)
            self._engine.add(connection, transport, websocket.sock.fileno())
        except BaseException:
            self._registry.forget(member)
            websocket._connection = before
            raise
        if exceeded:  # a crowd of handshakes was admitted at the same time
            self._engine.count_limit(exceeded)
            connection.close(CloseControlMessage(CloseCode.TRY_AGAIN_LATER, "Too many connections"))
        return member

    def end(self, websocket: WebSocket, connection: Connection, scheduler: Scheduler | None, running: bool) -> None:
        """Let a websocket go, open. See :meth:`ws4py.manager.WebSocketManager.remove`.

        :param scheduler: that runs its callbacks.
        :param running: somebody polls.
        """
        member: Any = connection.owner
        engine = self._engine
        unused, rested = self._backend.make_event(), self._backend.make_event()

        def let_go() -> None:
            try:
                if engine.lifecycle.remove(connection, rested.set):
                    self._registry.leave(member, connection, ended=False)
                    member.abandoned = True
                    websocket._detach(connection if connection.in_turn else None)
                    let_go_of(websocket.sock)
                    if scheduler is not None:
                        scheduler.forget(member)
                else:
                    rested.set()
            except BaseException:
                rested.set()
                raise
            finally:
                unused.set()

        if scheduler is None or not running or scheduler.owns_engine():
            let_go()
        else:
            engine.ask(let_go)
            scheduler.relieve()
        if scheduler is None or scheduler.in_own_thread():
            return
        patience = self._registry.limits.send_timeout
        unused.wait(patience)
        if not scheduler.runs(member):
            rested.wait(patience)

    def _make_member(self, websocket: WebSocket, limits: Limits, address: str | None) -> tuple[Member, str | None]:
        """Return a member, and the address that counts for limits."""
        try:
            peer = websocket.peer_address  # kept by the websocket, for a log line when the socket is gone
        except OSError:
            peer = None
        address = address_of(address) if address else None
        if address is None and isinstance(peer, tuple):
            address = address_of(str(peer[0]))
        path = "" if websocket.environ is None else path_of(websocket.environ)
        around = websocket._surroundings
        if around is None and self._around is not None:
            around = Surroundings(self._around)
        member = Member(websocket, self._registry.number(), address or "", path, self._registry.topics, around)
        if limits.max_workers is not None:
            key = type(websocket), limits.max_workers
            member.bulkhead = self._bulkheads.setdefault(key, Bulkhead(limits.max_workers))
        return member, address

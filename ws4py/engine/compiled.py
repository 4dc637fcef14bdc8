"""The compiled engine: what nearly all traffic is made of is done in C, without the interpreter's lock.

A thread that polls waits, reads and writes in C (``c/`` beside this file). There whole messages and Pings are taken in,
as :mod:`ws4py.framing` and :mod:`ws4py.streaming` would do it, and Pings are answered; so messages wait in C until the
interpreter comes for them, and a guard, a thread of C, goes on with that while it doesn't.

All else stays where it is: a Close, a fragment, half a frame, a frame that breaks a rule or finds no room is handed
over as it came, and so is what follows it, until the stream is between two messages again. So every rule but those of a
whole message and of the Pong is in one place only; and these two are held to what the pure engine does by tests.

Other connections (TLS, a codec, a stream of the application's own, a client's role, a rate) are those of the pure
engine, in the same cycle.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ws4py.engine.connection import Connection
from ws4py.engine.counters import EngineCounters
from ws4py.engine.host import Backend, Owner
from ws4py.engine.pollers import EPollPoller, Poller
from ws4py.engine.pure import Engine
from ws4py.engine.relay import Inherited, Relay
from ws4py.engine.sockets import can_be_managed
from ws4py.engine.transport import PlainTransport, Transport
from ws4py.engine.wakeup import Wakeup
from ws4py.framing import OPCODE_PING
from ws4py.limits import Limits
from ws4py.native import ENGINE, load
from ws4py.streaming import Stream

__all__ = ["CompiledConnection", "CompiledEngine"]

logger = logging.getLogger("ws4py")

if TYPE_CHECKING:

    class Core(EPollPoller):
        """All that an engine shares in C, which waits for other descriptors, too."""

        reliefs: int
        """How often the guard has polled, since the interpreter did not come."""
        asleep: bool
        """Whether the guard sleeps until it is needed."""

        def open(self) -> None: ...
        def after_fork_in_child(self) -> None: ...
        def take_pings(self) -> int: ...
        def harvest(self, engine: Any) -> None: ...

    class ConnectionBase:
        """What a connection has in C."""

        raw: bool
        """Whether what comes is handed over as it is."""

        def attach(self, fd: int) -> None: ...
        def detach(self) -> None: ...
        def read(self, reading: bool) -> None: ...
        def start_raw(self) -> None: ...
        def resume(self) -> None: ...
        def write(self) -> None: ...
else:
    Core = load(ENGINE).Core
    ConnectionBase = load(ENGINE).ConnectionBase


class CompiledConnection(ConnectionBase, Connection):
    """A connection that is read and written in C."""

    __slots__ = ()

    @property
    def between_messages(self) -> bool:
        """Whether what comes next begins a frame, and a message, and nothing before it is still to be decoded."""
        stream = self.stream
        return not (stream.more or stream.ended or stream.unfinished)


class InheritedCompiledConnection(Inherited, CompiledConnection):
    """What becomes of one in a forked process."""

    __slots__ = ()


class WireTransport(PlainTransport):
    """A plain socket that is read and written in C."""

    __slots__ = ("_outbox",)

    def __init__(self, sock: Any, outbox: Any) -> None:
        self._outbox = outbox  # not the connection, which refers to this
        super().__init__(sock)

    @property
    def blocked(self) -> bool:
        """See :attr:`Transport.blocked`."""
        return bool(self._outbox.blocked)

    @blocked.setter
    def blocked(self, flag: bool) -> None:
        pass


class CompiledCounters(EngineCounters):
    """Counts what C has counted, too."""

    def __init__(self, core: Core) -> None:
        self._core = core
        super().__init__()

    @property
    def controls_received(self) -> Any:
        pings = self._core.take_pings()
        if pings:
            self._controls_received[OPCODE_PING] += pings
        return self._controls_received

    @controls_received.setter
    def controls_received(self, value: Any) -> None:
        self._controls_received = value


class CompiledEngine(Engine):
    """See :class:`ws4py.engine.pure.Engine`."""

    def __init__(
        self,
        backend: Backend,
        read_ended: Callable[[Any], object],
        released: Callable[[Any, Connection], object],
    ) -> None:
        super().__init__(backend, read_ended, released)
        self.core = Core()
        self.counters = CompiledCounters(self.core)

    # --- life ---------------------------------------------------------------------------------------------------------

    def open(self, poller: Poller, wakeup: Wakeup, relay: Relay | None = None, given_poller: bool = False) -> None:
        """See :meth:`Engine.open`. The system's poller is replaced."""
        assert type(poller) is EPollPoller, "else the pure engine is used"
        self.core.open()
        poller.release()
        super().open(self.core, wakeup, relay, given_poller)

    def forget_poller(self) -> None:
        """See :meth:`Engine.forget_poller`."""
        super().forget_poller()
        self.core.release()

    # --- any thread ---------------------------------------------------------------------------------------------------

    def make_connection(self, owner: Owner, stream: Stream, limits: Limits, sock: Any) -> Connection:
        """See :meth:`Engine.make_connection`."""
        usual = (
            type(stream) is Stream
            and stream.codec is None
            and stream.expect_masking
            and not stream.always_mask
            and limits.max_messages_per_second is None
            and can_be_managed(sock)
        )
        if not usual:
            return super().make_connection(owner, stream, limits, sock)
        return CompiledConnection(self, owner, stream, limits)

    def add(self, connection: Connection, transport: Transport, fd: int) -> None:
        """See :meth:`Engine.add`."""
        if isinstance(connection, CompiledConnection):
            assert isinstance(transport, PlainTransport), "it can be managed"
            lost = self.connections.get(fd)
            if isinstance(lost, CompiledConnection):
                lost.detach()  # the number is another one's by now
            transport = WireTransport(transport.sock, connection.outbox)
            connection.attach(fd)
        super().add(connection, transport, fd)

    # --- a cycle ------------------------------------------------------------------------------------------------------

    def send(self, connections: list[Connection]) -> None:
        """See :meth:`Engine.send`."""
        others = []
        for connection in connections:
            if isinstance(connection, CompiledConnection):
                self.attempt(self._write_out, connection)
            else:
                others.append(connection)
        if others:
            super().send(others)

    def _write_out(self, connection: Any) -> None:
        connection.dirty = False
        connection.write()
        connection.update()

    def _read(self, events: list[tuple[int, int]]) -> None:
        unread = self.unread
        super()._read(events)
        for connection in unread:
            if isinstance(connection, CompiledConnection):
                self._go_on(connection)
                self.watch(connection)
        self.core.harvest(self)

    def _go_on(self, connection: Any) -> None:
        """Have C parse what comes, if that can be."""
        if connection.raw and connection.between_messages:
            connection.resume()

    # --- what C has met -----------------------------------------------------------------------------------------------

    def take_raw(self, connection: Any, data: bytes) -> None:
        """Take in bytes that C has left as they came; none are the end."""
        if connection.read_ended or self.may_read(connection):
            if not data and connection.stream.more:
                return  # there is something before it; it shows again when that is decoded
            if not data:
                connection.write()  # which the pure engine does between two reads
            self.reader.take_in(connection, data)
        elif data:  # there is no room: but it has been read
            connection.traffic.bytes_received += len(data)
            connection.stream.receive_some(data, 0, 0, 0)
            self.watch(connection)
            return
        self._go_on(connection)

    def wrote(self, connection: Any) -> None:
        """Something was written of a connection that asked to be told."""
        if connection.sender is not None:
            with connection.lock:
                if connection.sender is not None:
                    connection.sender.offer_room()
        connection.update()

    def lose(self, connection: Any, number: int) -> None:
        """A connection is broken."""
        logger.debug("Could not read from, or write to, %s: %s", connection.owner, os.strerror(number))
        connection.end_reading(lost=True)

    # --- what is watched ----------------------------------------------------------------------------------------------

    def watch(self, connection: Connection) -> None:
        """See :meth:`Engine.watch`."""
        if not isinstance(connection, CompiledConnection):
            super().watch(connection)
            return
        reading = self.may_read(connection)
        if reading and connection.stream.more:
            self.unread[connection] = None
        if not connection.raw and not connection.between_messages:
            connection.start_raw()
        connection.read(reading)

    def unwatch(self, connection: Connection) -> None:
        """See :meth:`Engine.unwatch`. When this returns no thread uses its descriptor any more."""
        if isinstance(connection, CompiledConnection):
            connection.detach()
        else:
            super().unwatch(connection)

    def forget(self, connection: Connection) -> bool:
        """See :meth:`Engine.forget`. When this returns no thread uses its descriptor any more."""
        if isinstance(connection, CompiledConnection):
            connection.detach()
        return super().forget(connection)

    # --- forks --------------------------------------------------------------------------------------------------------

    def after_fork_in_child(self) -> None:
        """See :meth:`Engine.after_fork_in_child`."""
        super().after_fork_in_child()
        self.core.after_fork_in_child()

    def bequeath(self, connection: Connection) -> None:
        """See :meth:`Engine.bequeath`."""
        if isinstance(connection, CompiledConnection):
            connection.__class__ = InheritedCompiledConnection
        else:
            super().bequeath(connection)

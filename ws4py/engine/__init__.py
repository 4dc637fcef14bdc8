"""The engine: many sockets as one.

A connection's inbox, outbox, keepalive, closing handshake, timers, counters and limits lie inside the engine; above it
stand who is open (:mod:`ws4py.manager.registry`) and who runs callbacks (:mod:`ws4py.manager.scheduler`). The seam is
the cycle:

``make_connection(owner, stream, limits, sock)``, ``add(connection, transport, fd)``
    take a connection over. The owner says what the engine can't know: :class:`~ws4py.engine.host.Owner`.
``connection.send_message(opcode, payload)``, ``send_fragments``, ``send_control``, ``close``, ``offer``
    encode into the outbox, and mark the connection dirty. Any thread may call.
``cycle(timeout) -> owners``
    timers that are due -> write all that is dirty -> wait -> read all that is ready -> decode, answer Pings and Closes
    -> the owners whose callbacks are to be run. One thread at a time.
``connection.take() -> messages``, ``rest()``
    what the callbacks are to be run for, in order: :data:`~ws4py.engine.inbox.OPENED` first,
    :data:`~ws4py.engine.inbox.END` last. One worker at a time.
``drop(connection)``, ``remove(connection)``, ``wake()``
    drop a socket, let one go, have a waiting cycle come back.
"""

from ws4py.engine.choice import make_engine
from ws4py.engine.connection import Connection
from ws4py.engine.host import Backend, Callers, Owner
from ws4py.engine.inbox import END, OPENED
from ws4py.engine.pure import Engine

__all__ = ["END", "OPENED", "Backend", "Callers", "Connection", "Engine", "Owner", "make_engine"]

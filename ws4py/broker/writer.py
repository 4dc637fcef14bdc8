"""The thread that publishes to Redis."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from ws4py.broker.buffer import Buffer, Outgoing
from ws4py.broker.envelope import POSITIONED, pack_head
from ws4py.broker.link import Backoff, Broken, Link, ReadOnly, Refused, command
from ws4py.broker.scripts import EPOCH_SECONDS, PUBLISH, SENDER_SECONDS
from ws4py.exc import BrokerError
from ws4py.framing import OPCODE_TEXT

__all__ = ["Writer"]

logger = logging.getLogger("ws4py")

BATCH: Final = 512
"""How many publications are sent before their replies are read."""

SHA: Final = hashlib.sha1(PUBLISH.encode(), usedforsecurity=False).hexdigest().encode()
"""By which Redis knows the script."""

BATCH_SIZE: Final = 1 << 20
"""How many bytes of them, about."""


class Writer:
    """Sends publications, in order. What was under way when a connection is lost is sent again, with the same numbers.

    The thread is started by the first publication. While Redis is away what is published waits in the buffer.

    :param link: of the thread.
    :param buffer: in which publications wait.
    :param sender: what the numbers belong to.
    :param sender_key: under which Redis has the last of them.
    :param hold: waits until the subscriptions of this process hold, so that it hears what it publishes.
    :param backoff: how long to wait between attempts to connect.
    :ivar sent: how many Redis has confirmed.
    :ivar refused: how many it has refused.
    :ivar connections: how many were made.
    """

    def __init__(
        self,
        link: Link,
        buffer: Buffer,
        sender: bytes,
        sender_key: bytes,
        hold: Callable[[], object],
        backoff: Backoff,
    ) -> None:
        self._link = link
        self._buffer = buffer
        self._sender = sender
        self._sender_key = sender_key
        self._hold = hold
        self._backoff = backoff
        self._guard = threading.RLock()
        self._thread: threading.Thread | None = None
        self._number = 0
        self._ending = threading.Event()
        self._away = False
        self.sent = 0
        self.refused = 0
        self.connections = 0

    def put(self, outgoing: Outgoing) -> None:
        """Have something published. Any thread may call, a signal handler too.

        :raises BrokerError: if there is no room, the broker is closed, or the system has no thread for it.
        """
        self._buffer.put(outgoing)
        self._start()

    def probe(self, channel: bytes, payload: bytes) -> Outgoing:
        """Have something published before all that waits; what is returned says whether it was.

        :raises BrokerError: if the broker is closed, or the system has no thread for it.
        """
        outgoing = Outgoing(channel, OPCODE_TEXT, payload, urgent=True)
        self._buffer.put_urgent(outgoing)
        self._start()
        return outgoing

    def _start(self) -> None:
        if self._thread is not None:
            return
        with self._guard:
            if self._thread is not None:  # a signal handler may have come between, too
                return
            self._thread = threading.Thread(target=self._run, name="RedisWriter", daemon=True)
            try:
                self._thread.start()
            except RuntimeError as error:
                self._thread = None
                raise BrokerError("The system has no thread for the broker") from error

    @property
    def connected(self) -> bool:
        """Whether Redis was there when it was last needed."""
        return not self._away

    def end(self, timeout: float) -> None:
        """Send what waits, if Redis is there, and end.

        :param timeout: for how many seconds to wait for that; 0 does not wait, and leaves it to the thread.
        """
        self._buffer.close()
        self._ending.set()
        thread = self._thread
        if thread is None or thread is threading.current_thread() or not timeout:
            return
        thread.join(timeout)
        if thread.is_alive():
            self._buffer.drop_all()
            self._link.abort()
            thread.join(1.0)

    def _run(self) -> None:
        try:
            while batch := self._buffer.take(BATCH, BATCH_SIZE):
                self._send(batch)
        except BaseException:
            self._away = True
            logger.critical("The thread that publishes to Redis has failed", exc_info=True)
            self._buffer.close()
            self._buffer.drop_all()
        finally:
            self._link.disconnect()

    def _send(self, batch: list[Outgoing]) -> None:
        """Send some publications until they are confirmed, or given up at the end."""
        for outgoing in batch:
            self._number += 1
            outgoing.number = self._number
        done = 0
        while done < len(batch):
            try:
                self._connect()
                self._hold()
                self._link.send(b"".join(self._commands(batch[done:])))
                while done < len(batch):
                    self._confirm(batch[done], self._link.receive())
                    done += 1
            except Broken as error:
                self._link.disconnect()
                if not self._away:
                    self._away = True
                    logger.warning("Publications wait for Redis: %s", error)
                if self._ending.is_set():
                    break
                self._ending.wait(self._backoff.next())
        self._buffer.settle(batch, sum(not outgoing.urgent for outgoing in batch[done:]))

    def _connect(self) -> None:
        if not self._link.connected:
            self._link.connect()
            self.connections += 1

    def _commands(self, batch: list[Outgoing]) -> Iterator[bytes]:
        """Yield the commands as they are on the wire. The first one that needs the script brings it along."""
        script = b"EVAL", PUBLISH.encode()
        for outgoing in batch:
            kept = outgoing.kept
            positioned = POSITIONED if kept is not None and kept.size else 0
            head = pack_head(outgoing.opcode | positioned, self._sender, outgoing.number)
            if kept is None:
                yield command(b"PUBLISH", outgoing.channel, head + outgoing.payload)
                continue
            record, stream, key = kept.keys
            numbers = (
                outgoing.number,
                kept.key_seconds,
                kept.size,
                kept.milliseconds,
                kept.milliseconds + 1000 * EPOCH_SECONDS,
                SENDER_SECONDS,
            )
            yield command(
                *(*script, b"4", record, stream, self._sender_key, key),
                *(outgoing.channel, head, outgoing.payload, *(b"%d" % number for number in numbers)),
            )
            script = b"EVALSHA", SHA

    def _confirm(self, outgoing: Outgoing, reply: Any) -> None:
        if isinstance(reply, Refused):
            if isinstance(reply, ReadOnly):
                raise Broken(str(reply))  # a replica by now: the master is elsewhere, or will be here again
            self.refused += 1
            if self.refused == 1:
                logger.error("Redis refuses to publish: %s", reply)
            return
        outgoing.sent_at = time.monotonic()
        if self._away:
            self._away = False
            logger.info("Redis takes publications again")
        self._backoff.reset()
        if not outgoing.urgent:
            self.sent += 1

"""Redis as a broker: between processes, and between machines. It needs redis-py: ``pip install 'ws4py[redis]'``.

Publications go by PUBLISH and come by SUBSCRIBE, to the process itself as well, so all subscribers of all processes get
one order. One thread publishes, with pipelining, and one is subscribed. Both connect when they are first needed, and
again when the connection is lost.

If gevent has patched the process, both threads are greenlets. If it has not, they are threads, which is well, too.
"""

from __future__ import annotations

import os
import weakref
from typing import Any, Final

import redis
from redis.backoff import ExponentialBackoff
from redis.client import NEVER_DECODE
from redis.retry import Retry

from ws4py.broker.buffer import Buffer, Kept, Outgoing, WhenFull
from ws4py.broker.envelope import SENDER_SIZE, unpack
from ws4py.broker.interface import KEY_SECONDS, BrokerStats, History, Position, Publication, Receiver, Retention
from ws4py.broker.link import Backoff, Link
from ws4py.broker.presence import Presence
from ws4py.broker.process import brokers
from ws4py.broker.reader import Reader
from ws4py.broker.scripts import EPOCH_SECONDS, HISTORY
from ws4py.broker.writer import Writer
from ws4py.exc import BrokerError

__all__ = ["RedisBroker"]

MAX_BUFFERED: Final = 64 << 20
"""How many bytes wait for Redis at most, by default."""


class RedisBroker:
    """Carries publications through Redis. See :class:`~ws4py.broker.Broker`.

    A subscription holds when Redis has confirmed it, about a round trip after :meth:`subscribe` has returned; what
    others publish before is not delivered. What this broker publishes after :meth:`subscribe` is: it is kept back until
    the subscription holds, for five seconds at most.

    A publication that was under way when the connection was lost is sent again; who has had it passes over it. What
    others publish while this broker is not subscribed, since Redis was away, is not delivered: then the receivers get
    an :class:`~ws4py.broker.Interruption`.

    Histories are in Redis, and so belong to all processes. A Redis that has started again, was promoted, or has lost
    them begins new epochs. An epoch is kept for a week after its history has gone.

    A forked process has none of its parent's subscriptions, and publishes by a connection of its own. What the parent
    has not sent is sent by the parent.

    :param url: as redis-py has it: ``redis://``, ``rediss://`` for TLS, or ``unix://``, with a user and a password, and
        its options behind a question mark.
    :param client: of redis-py, in place of the URL: one whose master a Sentinel knows, say. Its connections are used by
        nobody else.
    :param prefix: before the names of all channels, with the number of the database, which channels don't have.
    :param max_buffered: how many bytes may wait for Redis.
    :param when_full: what becomes of a publication that has no room: ``"drop_oldest"`` makes some, ``"raise"`` raises
        BrokerError. What was dropped is counted.
    :param probe_interval: after how many seconds the broker publishes something to itself. If that does not come back
        in this time, it connects anew.
    :param presence_seconds: after how long the names that have entered by a process that has died are present no more.
        Where they are present, a process renews them all, as one, three times in this time.
    :param close_timeout: for how many seconds :meth:`close` waits until what was published is sent.
    :param socket_timeout: how many seconds Redis has for an answer, unless the URL says something else.
    :raises ValueError: for a URL, an option or a number that can't be.
    """

    def __init__(
        self,
        url: str = "redis://localhost/0",
        *,
        client: Any = None,
        prefix: str = "ws4py",
        max_buffered: int = MAX_BUFFERED,
        when_full: WhenFull = "drop_oldest",
        probe_interval: float = 10.0,
        presence_seconds: float = 30.0,
        close_timeout: float = 5.0,
        socket_timeout: float = 5.0,
    ) -> None:
        for name, seconds in (("probe_interval", probe_interval), ("presence_seconds", presence_seconds)):
            if not seconds > 0:
                raise ValueError(f"{name} must be a number of seconds above 0, not {seconds!r}")
        self._presence_seconds = presence_seconds
        self._owns_pool = client is None
        if client is None:
            pool = redis.ConnectionPool.from_url(
                url,
                socket_timeout=socket_timeout,
                socket_connect_timeout=socket_timeout,
                protocol=2,
                # For who waits for a history, say; the threads have their own way. What timed out is not tried again.
                retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), 3, (redis.ConnectionError,)),
            )
            client = redis.Redis(connection_pool=pool)
        pool = client.connection_pool
        self._client = client
        self._timeout = socket_timeout
        self._pool = pool
        self._prefix = f"{prefix}:{pool.connection_kwargs.get('db') or 0}:".encode()
        self._max_buffered = max_buffered
        self._when_full = when_full
        self._probe_interval = probe_interval
        self._close_timeout = close_timeout
        self._closed = False
        self._begin()
        brokers.add(self)

    def _begin(self) -> None:
        """Be as new: with nothing published, and no subscription."""
        sender = os.urandom(SENDER_SIZE)
        try:
            links = Link(self._pool), Link(self._pool)
        except TypeError as error:  # an option that redis-py does not know
            raise ValueError(str(error)) from error
        self._buffer = Buffer(self._max_buffered, self._when_full)
        self._reader = Reader(links[0], self._prefix + b"p:" + sender.hex().encode(), self._probe_interval, Backoff())
        sender_key = self._prefix + b"s:" + sender.hex().encode()
        self._writer = Writer(links[1], self._buffer, sender, sender_key, self._reader.hold, Backoff())
        self._reader.probe = self._writer.probe
        channels = self._prefix + b"t:"
        self._presence = Presence(
            self._client, self._prefix, lambda topic: channels + topic.encode(), self._presence_seconds
        )
        # No thread knows the broker: one that is forgotten ends.
        self._finalizer = weakref.finalize(self, _end, self._writer, self._reader, self._presence)
        self._finalizer.atexit = False  # see ws4py.broker.process

    def _channel(self, topic: str) -> bytes:
        return self._prefix + b"t:" + topic.encode()

    def subscribe(self, topic: str, receiver: Receiver) -> None:
        """See :meth:`ws4py.broker.Broker.subscribe`."""
        self._reader.subscribe(self._channel(topic), topic, receiver)

    def unsubscribe(self, topic: str, receiver: Receiver) -> None:
        """See :meth:`ws4py.broker.Broker.unsubscribe`."""
        self._reader.unsubscribe(self._channel(topic), receiver)

    def wait_subscribed(self, timeout: float) -> bool:
        """See :meth:`ws4py.broker.Broker.wait_subscribed`."""
        return self._reader.wait(self._reader.asked, timeout)

    def publish(self, publication: Publication, retention: Retention | None = None, key: str | None = None) -> None:
        """See :meth:`ws4py.broker.Broker.publish`. Returns at once."""
        topic, opcode, payload, _ = publication
        kept = None if retention is None and key is None else self._kept(topic, retention, key)
        self._writer.put(Outgoing(self._channel(topic), opcode, payload, kept=kept))

    def _kept(self, topic: str, retention: Retention | None, key: str | None) -> Kept:
        own = b"" if key is None else b"k:%d:%b:%b" % (len(topic.encode()), topic.encode(), key.encode())
        keys = (*self._keys(topic), self._prefix + own)
        size, seconds = retention or (0, 0.0)
        return Kept(keys, 0 if key is None else int(KEY_SECONDS), size, max(1, int(1000 * seconds)))

    def _keys(self, topic: str) -> tuple[bytes, bytes]:
        """Return the keys of the record and the stream of a topic: see :mod:`ws4py.broker.scripts`."""
        return self._prefix + b"h:" + topic.encode(), self._prefix + b"m:" + topic.encode()

    def history(self, topic: str, retention: Retention, since: Position | None = None, last: int = 0) -> History:
        """See :meth:`ws4py.broker.Broker.history`. Waits until the subscriptions made so far hold, but not until what
        was published here is in it: that is delivered.
        """
        if self._closed:
            raise BrokerError("This broker is closed")
        if not self.wait_subscribed(self._timeout):
            raise BrokerError("Redis does not confirm subscriptions")
        epoch, offset = since or ("", 0)
        epoch_ttl = int(1000 * (retention.seconds + EPOCH_SECONDS))
        arguments = (epoch, offset, min(last, retention.size), epoch_ttl, os.urandom(16))
        try:
            found = self._client.execute_command(
                "EVAL", HISTORY, 2, *self._keys(topic), *arguments, **{NEVER_DECODE: True}
            )
        except redis.RedisError as error:
            raise BrokerError(f"Redis does not tell a history: {error}") from error
        publications = []
        for _, (_, data) in found[3]:
            envelope = unpack(data)
            if envelope is None:  # another version has published it
                return History((), Position(found[0].decode(), int(found[1])), False)
            publications.append(Publication(topic, envelope.opcode, envelope.payload, envelope.position))
        return History(tuple(publications), Position(found[0].decode(), int(found[1])), bool(found[2]))

    def enter(self, topic: str, name: str, info: bytes, joined: Publication, left: Publication) -> None:
        """See :meth:`ws4py.broker.Broker.enter`."""
        self._reader.hold()  # as what is published does, so that this process hears it
        self._presence.enter(topic, name, info, joined, left)

    def leave(self, topic: str, name: str) -> None:
        """See :meth:`ws4py.broker.Broker.leave`."""
        self._reader.hold()
        self._presence.leave(topic, name)

    def presence(self, topic: str) -> dict[str, bytes]:
        """See :meth:`ws4py.broker.Broker.presence`. Waits until the subscriptions made so far hold."""
        if not self._closed and not self.wait_subscribed(self._timeout):
            raise BrokerError("Redis does not confirm subscriptions")
        return self._presence.names(topic)

    def flush(self, timeout: float) -> None:
        """See :meth:`ws4py.broker.Broker.flush`."""
        if not self._buffer.flush(timeout):
            raise BrokerError(f"Redis has not taken all publications in {timeout} seconds: {len(self._buffer)} wait")

    def stats(self) -> BrokerStats:
        """See :meth:`ws4py.broker.Broker.stats`."""
        buffer, reader, writer = self._buffer, self._reader, self._writer
        return BrokerStats(
            connected=reader.connected and writer.connected,
            waiting=len(buffer),
            waiting_bytes=buffer.size,
            sent=writer.sent,
            lost=buffer.dropped + writer.refused,
            received=reader.received,
            repeated=reader.repeated,
            unknown=reader.unknown,
            reconnections=max(0, reader.connections - 1) + max(0, writer.connections - 1),
            starvations=reader.starvations,
        )

    def close(self) -> None:
        """See :meth:`ws4py.broker.Broker.close`. Waits until what was published is sent, ``close_timeout`` seconds at
        most, and not at all while Redis is away. What is left then is lost.
        """
        self._closed = True
        self._finalizer.detach()
        self._presence.end(self._close_timeout)
        self._writer.end(self._close_timeout)
        self._reader.end(self._close_timeout)
        if self._owns_pool:
            self._pool.disconnect()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def after_fork_in_child(self) -> None:
        """Be as new; the connections, and what waits, are the parent's. Called in a forked process."""
        self._finalizer.detach()
        self._reader.after_fork_in_child()
        if not self._closed:
            self._begin()


def _end(writer: Writer, reader: Reader, presence: Presence) -> None:
    """Nobody has the broker any more."""
    presence.end(0)
    writer.end(0)
    reader.end(0)

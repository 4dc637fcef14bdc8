"""Who is present, over all processes that share a Redis.

Each broker keeps who has entered by it, and tells Redis; that is an entry. It refreshes them all together, by one mark
of its own with a time: so it costs nothing for a name. Where a mark is old, its broker has died, and whoever sees that
first takes its entries out. A broker that finds its mark gone (Redis has lost its memory, or it was taken for dead)
enters all again.

In Redis there are, of each topic, a hash of the entries (by broker and name), and a hash that says by how many brokers
a name has entered; of each broker, a set of its entries; and the marks.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Any, Final

from redis import RedisError
from redis.client import NEVER_DECODE

from ws4py.broker.envelope import SENDER_SIZE, pack_head
from ws4py.broker.interface import Publication
from ws4py.exc import BrokerError

__all__ = ["Presence"]

logger = logging.getLogger("ws4py")

STRIPES: Final = 32
"""How many names may enter or leave at once."""

REAPED: Final = 500
"""How many entries of dead brokers are taken out in one step."""

_COMMON: Final = """
local prefix, broker = KEYS[1], ARGV[1]

local function now()
    local time = redis.call('TIME')
    return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function take_out(owner, entry)
    local topic, name = unpack(cmsgpack.unpack(entry))
    redis.call('SREM', prefix .. 'e:' .. owner, entry)
    local entries, names = prefix .. 'w:' .. topic, prefix .. 'n:' .. topic
    local record = redis.call('HGET', entries, owner .. name)
    if not record then return end
    redis.call('HDEL', entries, owner .. name)
    if redis.call('HINCRBY', names, name, -1) > 0 then return end
    redis.call('HDEL', names, name)
    local _, _, channel, data = unpack(cmsgpack.unpack(record))
    redis.call('PUBLISH', channel, data)
end
"""

ENTER: Final = (
    _COMMON
    + """
local _, topic, name, info, left_channel, left, joined_channel, joined, seconds = unpack(ARGV)
local entries, names = prefix .. 'w:' .. topic, prefix .. 'n:' .. topic
local known = redis.call('HEXISTS', entries, broker .. name) == 1
redis.call('HSET', entries, broker .. name, cmsgpack.pack({now(), info, left_channel, left}))
redis.call('SADD', prefix .. 'e:' .. broker, cmsgpack.pack({topic, name}))
local marked = redis.call('ZADD', prefix .. 'marks', 'NX', now() + seconds * 1000, broker)
if not known and redis.call('HINCRBY', names, name, 1) == 1 then
    redis.call('PUBLISH', joined_channel, joined)
end
return marked
"""
)
"""Enter a name; tell whether the broker's mark was not there, so that none of its other entries is."""

LEAVE: Final = (
    _COMMON
    + """
take_out(broker, cmsgpack.pack({ARGV[2], ARGV[3]}))
"""
)

REFRESH: Final = (
    _COMMON
    + """
local _, seconds = unpack(ARGV)
local there = redis.call('ZSCORE', prefix .. 'marks', broker)
redis.call('ZADD', prefix .. 'marks', now() + seconds * 1000, broker)
return there and 1 or 0
"""
)
"""Renew a broker's mark; tell whether it was there."""

REAP: Final = (
    _COMMON
    + """
local left = tonumber(ARGV[2])
for _, dead in ipairs(redis.call('ZRANGEBYSCORE', prefix .. 'marks', '-inf', now())) do
    local found = redis.call('SRANDMEMBER', prefix .. 'e:' .. dead, left)
    for _, entry in ipairs(found) do take_out(dead, entry) end
    left = left - #found
    if left <= 0 then return 1 end
    redis.call('ZREM', prefix .. 'marks', dead)
end
return 0
"""
)
"""Take out what brokers have entered whose marks are old; tell whether there may be more."""


RETIRE: Final = (
    _COMMON
    + """
redis.call('ZADD', prefix .. 'marks', 'XX', 0, broker)
"""
)
"""Make a broker's own mark old."""

PRESENT: Final = (
    _COMMON
    + """
local found = redis.call('HGETALL', prefix .. 'w:' .. ARGV[2])
local stamps, infos, result = {}, {}, {}
for index = 1, #found, 2 do
    local name = string.sub(found[index], #broker + 1)
    local stamp, info = unpack(cmsgpack.unpack(found[index + 1]))
    if not stamps[name] or stamp > stamps[name] then
        stamps[name], infos[name] = stamp, info
    end
end
for name, info in pairs(infos) do
    result[#result + 1] = name
    result[#result + 1] = info
end
return result
"""
)
"""Return the names on a topic, each with what was said when it entered last."""


class Entry:
    """A name that has entered a topic by this broker.

    :ivar count: how often it has, and has not left.
    :ivar known: whether Redis knows of it.
    """

    __slots__ = ("count", "info", "joined", "known", "left")

    info: bytes
    joined: Publication
    left: Publication

    def __init__(self) -> None:
        self.count = 0
        self.known = False


class Presence:
    """Who has entered by one broker, and who is present. Any thread may call. Its thread is started when it is needed.

    :param client: of redis-py.
    :param prefix: of the keys.
    :param channel: returns the channel of a topic.
    :param seconds: how old a mark may become; it is renewed three times meanwhile.
    """

    def __init__(self, client: Any, prefix: bytes, channel: Callable[[str], bytes], seconds: float) -> None:
        self._client = client
        self._prefix = prefix
        self._channel = channel
        self._seconds = seconds
        self._name = os.urandom(SENDER_SIZE).hex().encode()
        self._entries: dict[tuple[str, str], Entry] = {}
        self._locks = [threading.RLock() for _ in range(STRIPES)]
        self._guard = threading.RLock()
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()

    def enter(self, topic: str, name: str, info: bytes, joined: Publication, left: Publication) -> None:
        """See :meth:`ws4py.broker.Broker.enter`."""
        self._start()
        key = topic, name
        with self._lock(key):
            entry = self._entries.get(key) or Entry()
            entry.info, entry.joined, entry.left = info, joined, left
            self._entries[key] = entry  # if it is not known whether Redis knows it, it is taken out later
            self._tell(key, entry)
            entry.count += 1

    def leave(self, topic: str, name: str) -> None:
        """See :meth:`ws4py.broker.Broker.leave`. If Redis is away it is told later."""
        if self._ending.is_set():
            return  # with all others
        key = topic, name
        with self._lock(key):
            entry = self._entries.get(key)
            if entry is None or not entry.count:
                return
            entry.count -= 1
            if not entry.count:
                try:
                    self._forget(key)
                except BrokerError as error:
                    logger.info("That %r has left %r is told later: %s", name, topic, error)

    def names(self, topic: str) -> dict[str, bytes]:
        """See :meth:`ws4py.broker.Broker.presence`."""
        self._start()
        while self._ask(REAP, REAPED):
            pass
        found = self._ask(PRESENT, topic)
        return {name.decode(): info for name, info in zip(found[::2], found[1::2], strict=True)}

    def end(self, timeout: float) -> None:
        """Take all out, if Redis is there.

        :param timeout: for how many seconds to wait for that; 0 does not wait, and leaves it to the thread.
        """
        self._ending.set()
        thread = self._thread
        if thread is not None and timeout and thread is not threading.current_thread():
            thread.join(timeout)

    def _lock(self, key: tuple[str, str]) -> Any:
        return self._locks[hash(key) % STRIPES]

    def _tell(self, key: tuple[str, str], entry: Entry) -> None:
        """Have Redis know that somebody has entered.

        :raises BrokerError: if it does not answer.
        """
        left, joined = self._event(entry.left), self._event(entry.joined)
        entry.known = True  # already: another thread may find meanwhile that Redis has lost its memory
        try:
            marked = self._ask(ENTER, *key, entry.info, *left, *joined, self._seconds)
        except BrokerError:
            entry.known = False
            raise
        if marked:
            self._know_nothing(but=entry)

    def _know_nothing(self, but: Entry | None = None) -> None:
        """Redis knows of no entry, but of that one: the others are told again."""
        for entry in list(self._entries.values()):
            if entry is not but:
                entry.known = False

    def _event(self, publication: Publication) -> tuple[bytes, bytes]:
        head = pack_head(publication.opcode, self._name[:SENDER_SIZE], 0)
        return self._channel(publication.topic), head + publication.payload

    def _forget(self, key: tuple[str, str]) -> None:
        """Have Redis know that somebody has left.

        :raises BrokerError: if it does not answer.
        """
        self._ask(LEAVE, *key)
        del self._entries[key]

    def _ask(self, script: str, *arguments: Any) -> Any:
        try:
            return self._client.execute_command(
                "EVAL", script, 1, self._prefix, self._name, *arguments, **{NEVER_DECODE: True}
            )
        except RedisError as error:
            raise BrokerError(f"Redis does not say who is present: {error}") from error

    # --- its thread ---------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        with self._guard:
            if self._ending.is_set():
                raise BrokerError("This broker is closed")
            if self._thread is not None:
                return
            self._thread = threading.Thread(target=self._run, name="RedisPresence", daemon=True)
            try:
                self._thread.start()
            except RuntimeError as error:
                self._thread = None
                raise BrokerError("The system has no thread for the broker") from error

    def _run(self) -> None:
        while not self._ending.wait(self._seconds / 3):
            try:
                self._refresh()
            except BrokerError as error:
                logger.warning("%s", error)
            except Exception:
                logger.exception("Who is present could not be refreshed")
        if not self._entries:
            return
        try:
            self._ask(RETIRE)
            while self._ask(REAP, REAPED):
                pass
        except BrokerError as error:
            logger.info("That all have left is told when this broker is taken for dead: %s", error)

    def _refresh(self) -> None:
        """Renew the mark, tell Redis what it does not know, and take out what is of others that have died.

        :raises BrokerError: if it does not answer.
        """
        if self._entries and not self._ask(REFRESH, self._seconds):
            self._know_nothing()
        for key, entry in list(self._entries.items()):
            if entry.count and entry.known:
                continue
            with self._lock(key):
                if self._entries.get(key) is not entry:
                    continue
                if entry.count:
                    self._tell(key, entry)
                else:
                    self._forget(key)
        while self._ask(REAP, REAPED) and not self._ending.is_set():
            pass

"""The thread that is subscribed to Redis."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from ws4py.broker.buffer import Outgoing
from ws4py.broker.envelope import unpack
from ws4py.broker.interface import Interruption, Publication, Receiver
from ws4py.broker.link import Backoff, Broken, Link, Refused, command, wait
from ws4py.engine.wakeup import Wakeup
from ws4py.exc import BrokerError

__all__ = ["Reader"]

logger = logging.getLogger("ws4py")

PATIENCE: Final = 5.0
"""How long, in seconds, Redis may take to confirm a subscription."""

CHANNELS: Final = 1000
"""How many are subscribed to in one command."""

MAX_SENDERS: Final = 10_000
"""Of how many senders the last number is known; past it the one that was heard longest ago is forgotten."""


class Topic:
    """A topic that somebody here receives.

    :param name: of it.
    """

    __slots__ = ("name", "receivers")

    def __init__(self, name: str) -> None:
        self.name = name
        self.receivers: tuple[Receiver, ...] = ()


@dataclass
class Batch:
    """Subscriptions that Redis was asked for together.

    :ivar number: of the last one.
    :ivar replies: how many have to come.
    :ivar deadline: when they have to have come.
    """

    number: int
    replies: int
    deadline: float


class Reader:
    """Is subscribed to the channels of the topics that have receivers, and calls those, one after the other.

    Each subscription that is asked for has a number. A number holds when Redis has confirmed it and all before it.
    When the connection is lost all subscriptions are asked for again, and get a new number. The thread is started by
    the first subscription.

    :param link: of the thread.
    :param probes: the channel on which it hears itself.
    :param interval: after how many seconds it does that again. When one that was sent has not come back in this time,
        the connection is made anew.
    :param backoff: how long to wait between attempts to connect.
    :ivar probe: publishes something to a channel, before all that waits.
    :ivar asked: the number of the last subscription.
    :ivar held: the last number that holds.
    :ivar received: how many publications came.
    :ivar repeated: of those, how many had come before.
    :ivar unknown: how many messages are of another version.
    :ivar connections: how many were made.
    :ivar starvations: how many of them were given up since nothing came.
    """

    def __init__(self, link: Link, probes: bytes, interval: float, backoff: Backoff) -> None:
        self._link = link
        self._probes = probes
        self._interval = interval
        self._backoff = backoff
        self._lock = threading.RLock()
        self._progress = threading.Condition(self._lock)
        self._topics: dict[bytes, Topic] = {}  # by their channels
        self._changed: dict[bytes, None] = {}  # channels that have become, or ceased to be, a topic's
        self._subscribed: set[bytes] = set()  # as this connection was told
        self._interrupted: set[bytes] = set()  # that earlier ones were subscribed to, and this one is not yet
        self._unconfirmed: deque[Batch] = deque()
        self._numbers: dict[bytes, int] = {}  # the last one of each sender
        self._wakeup: Wakeup | None = None
        self._thread: threading.Thread | None = None
        self._ending = False
        self._lost_at: float | None = None  # when what was asked for ceased to hold
        self.probe: Callable[[bytes, bytes], Outgoing] | None = None
        self._probed: Outgoing | None = None  # the probe that has not come back
        self._probe_at = 0.0
        self._probe_number = 0
        self.asked = 0
        self.held = 0
        self.received = 0
        self.repeated = 0
        self.unknown = 0
        self.connections = 0
        self.starvations = 0

    @property
    def connected(self) -> bool:
        """Whether it is subscribed to what it should be, or to be subscribed to nothing."""
        return self._thread is None or self._lost_at is None

    # --- subscriptions, by any thread ---------------------------------------------------------------------------------

    def subscribe(self, channel: bytes, name: str, receiver: Receiver) -> None:
        """Have a receiver called with what is published to a topic. Does not wait.

        :raises BrokerError: if the broker is closed, or the system has no thread or descriptors for it.
        """
        with self._lock:
            if self._ending:
                raise BrokerError("This broker is closed")
            self._start()
            topic = self._topics.get(channel)
            if topic is None:
                topic = self._topics[channel] = Topic(name)
                self._change(channel)
            if receiver not in topic.receivers:
                topic.receivers = (*topic.receivers, receiver)

    def unsubscribe(self, channel: bytes, receiver: Receiver) -> None:
        """Have a receiver called no more. Does not wait."""
        with self._lock:
            topic = self._topics.get(channel)
            if topic is None:
                return
            topic.receivers = tuple(other for other in topic.receivers if other != receiver)
            if not topic.receivers:
                del self._topics[channel]
                self._interrupted.discard(channel)  # whoever comes later has missed nothing
                self._change(channel)

    def _change(self, channel: bytes) -> None:
        self._changed[channel] = None
        self.asked += 1
        if self._wakeup is not None:
            self._wakeup.wake()

    def wait(self, number: int, timeout: float) -> bool:
        """Wait until a number holds; tell whether it does.

        :param timeout: for how many seconds at most.
        """
        if self.held >= number:
            return True
        with self._lock:
            return self._progress.wait_for(lambda: self._ending or self.held >= number, timeout)

    def hold(self) -> None:
        """Wait until what was asked for so far holds, but not while the connection has been lost for long."""
        number = self.asked
        if self.held >= number:
            return
        lost_at = self._lost_at
        left = PATIENCE if lost_at is None else lost_at + PATIENCE - time.monotonic()
        if left > 0:
            self.wait(number, left)

    def _start(self) -> None:
        if self._thread is not None:
            return
        try:
            self._wakeup = Wakeup()
            self._thread = threading.Thread(target=self._run, name="RedisReader", daemon=True)
            self._thread.start()
        except (OSError, RuntimeError) as error:
            self._thread = None
            if self._wakeup is not None:
                self._wakeup.release()
                self._wakeup = None
            raise BrokerError(f"The system has no thread for the broker: {error}") from error

    def end(self, timeout: float) -> None:
        """Call no receiver any more, and end.

        :param timeout: for how many seconds to wait for the thread; 0 does not wait.
        """
        with self._lock:
            self._ending = True
            self._topics.clear()
            self._progress.notify_all()
            if self._wakeup is not None:
                self._wakeup.wake()
        thread = self._thread
        if thread is not None and timeout and thread is not threading.current_thread():
            thread.join(timeout)
            if thread.is_alive():
                self._link.abort()

    def after_fork_in_child(self) -> None:
        """Give back what the child has of the parent's."""
        if self._wakeup is not None:
            self._wakeup.after_fork_in_child()

    # --- its thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        assert self._wakeup is not None, "it was made before this thread"
        try:
            while not self._ending:
                try:
                    self._connect()
                    while not self._ending:
                        self._go_on(self._wakeup)
                except Broken as error:
                    self._lose(error)
                    self._pause(self._backoff.next(), self._wakeup)
        except BaseException:
            self._lost_at = time.monotonic()
            logger.critical("The thread that is subscribed to Redis has failed", exc_info=True)
        finally:
            with self._lock:
                self._ending = True
                self._progress.notify_all()
                self._wakeup.release()
                self._wakeup = None
            self._link.disconnect()

    def _connect(self) -> None:
        self._link.connect()
        self.connections += 1
        with self._lock:
            self._unconfirmed.clear()
            self._subscribed.clear()
            self._changed = dict.fromkeys((self._probes, *self._topics))
        self._probed = None
        self._probe_at = time.monotonic() + self._interval

    def _lose(self, error: Broken) -> None:
        """What was asked for does not hold any more: it is asked for once more."""
        self._link.disconnect()
        with self._lock:
            self._interrupted |= self._subscribed & self._topics.keys()
            if self._lost_at is None:
                self._lost_at = time.monotonic()
                logger.warning("Subscriptions wait for Redis: %s", error)
                self.asked += 1

    def _pause(self, seconds: float, wakeup: Wakeup) -> None:
        deadline = time.monotonic() + seconds
        while not self._ending and (left := deadline - time.monotonic()) > 0:
            wait([wakeup.fileno()], left)
            wakeup.drain()

    def _go_on(self, wakeup: Wakeup) -> None:
        """Do what there is to do, and wait for more."""
        if self._changed:
            self._ask()
        while not self._changed and self._link.has_data():
            self._take(self._link.receive())
        now = time.monotonic()
        due = self._look(now)
        if not self._changed and not self._ending:
            self._link.wait(wakeup, max(0.0, due - now))
        wakeup.drain()

    def _ask(self) -> None:
        """Tell Redis which subscriptions have changed."""
        with self._lock:
            changed, self._changed = self._changed, {}
            number = self.asked
            wanted = self._topics.keys() | {self._probes}
            coming = [channel for channel in changed if channel in wanted and channel not in self._subscribed]
            going = [channel for channel in changed if channel in self._subscribed and channel not in wanted]
            self._subscribed.update(coming)
            self._subscribed.difference_update(going)
        self._unconfirmed.append(Batch(number, len(coming) + len(going), time.monotonic() + PATIENCE))
        for name, channels in ((b"UNSUBSCRIBE", going), (b"SUBSCRIBE", coming)):
            for start in range(0, len(channels), CHANNELS):
                self._link.send(command(name, *channels[start : start + CHANNELS]))
        self._settle()

    def _settle(self) -> None:
        """Say what holds by now."""
        if not self._unconfirmed or self._unconfirmed[0].replies:
            return
        with self._lock:
            while self._unconfirmed and not self._unconfirmed[0].replies:
                self.held = self._unconfirmed.popleft().number
            self._progress.notify_all()
        self._backoff.reset()
        if self._lost_at is not None:
            self._lost_at = None
            logger.info("The subscriptions to Redis hold again")

    def _take(self, message: Any) -> None:
        if isinstance(message, Refused):
            raise Broken(str(message))
        kind = message[0]
        if kind == b"message":
            if message[1] == self._probes:
                if self._probed is not None and message[2].endswith(self._probed.payload):
                    self._probed = None
            else:
                self._deliver(message[1], message[2])
        elif kind in (b"subscribe", b"unsubscribe") and self._unconfirmed:
            if message[1] in self._interrupted:
                self._interrupted.discard(message[1])
                if (topic := self._topics.get(message[1])) is not None:
                    self._call(topic, Interruption(topic.name))
            self._unconfirmed[0].replies -= 1
            self._settle()

    def _deliver(self, channel: bytes, data: bytes) -> None:
        envelope = unpack(data)
        if envelope is None:
            self.unknown += 1
            if self.unknown == 1:
                logger.warning("There are publications of another version in Redis, which are passed over")
            return
        if envelope.number and self._is_repeated(envelope.sender, envelope.number):
            self.repeated += 1
            return
        self.received += 1
        topic = self._topics.get(channel)
        if topic is None:
            return  # nobody is on it any more
        self._call(topic, Publication(topic.name, envelope.opcode, envelope.payload, envelope.position))

    def _is_repeated(self, sender: bytes, number: int) -> bool:
        last = self._numbers.pop(sender, 0)  # and so it is the newest one of them below
        self._numbers[sender] = max(number, last)
        if len(self._numbers) > MAX_SENDERS:
            del self._numbers[next(iter(self._numbers))]
        return number <= last

    def _call(self, topic: Topic, publication: Publication | Interruption) -> None:
        for receiver in topic.receivers:
            try:
                receiver(publication)
            except BaseException:  # no receiver ends this thread
                logger.exception("A publication to the topic %r could not be delivered", topic.name)

    def _look(self, now: float) -> float:
        """See whether what was asked for has come; return when to look again.

        :raises Broken: if it has not.
        """
        if self._unconfirmed and now >= self._unconfirmed[0].deadline:
            raise Broken("subscriptions are not confirmed")
        if now >= self._probe_at:
            probe = self._probed
            if probe is None:
                self._send_probe()
            elif probe.sent_at is not None and now >= probe.sent_at + self._interval / 2:
                self.starvations += 1
                raise Broken("what is published does not come")
            self._probe_at = now + self._interval
        return min(self._probe_at, self._unconfirmed[0].deadline if self._unconfirmed else math.inf)

    def _send_probe(self) -> None:
        self._probe_number += 1
        if self.probe is not None:
            with contextlib.suppress(BrokerError):  # the broker is being closed
                self._probed = self.probe(self._probes, b"probe %d" % self._probe_number)

"""What a manager asks of a broker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from ws4py.framing import OPCODE_BINARY
from ws4py.subscriptions import Position, Publication

__all__ = [
    "KEY_SECONDS",
    "MAX_KEY_LENGTH",
    "MAX_TOPIC_SIZE",
    "Broker",
    "BrokerStats",
    "History",
    "Interruption",
    "Position",
    "Publication",
    "Receiver",
    "Retention",
    "Retentions",
    "check_name",
    "check_publication",
]

MAX_TOPIC_SIZE: Final = 255
"""How many bytes of UTF-8 the name of a topic has at most."""

MAX_KEY_LENGTH: Final = 128
"""How many characters the key of a publication has at most."""

KEY_SECONDS: Final = 300.0
"""For how long a broker knows the key of a publication."""


class Interruption(NamedTuple):
    """Publications to a topic may be missing between what came before this and what comes next.

    :ivar topic: its name.
    """

    topic: str


Receiver = Callable[[Publication | Interruption], object]
"""Is called with the publications to a topic. It must not wait for what publishes or subscribes."""


class Retention(NamedTuple):
    """How much of a topic is kept: its history.

    :ivar size: so many messages, the newest.
    :ivar seconds: until so long after the newest one.
    """

    size: int
    seconds: float


class History(NamedTuple):
    """What is kept of a topic.

    :ivar publications: in order, each with its position.
    :ivar position: of the newest one; the next one's offset is one more.
    :ivar recovered: whether these are all that came after the position that was asked for.
    """

    publications: tuple[Publication, ...]
    position: Position
    recovered: bool


class Retentions:
    """Which topics are kept, and how much of them.

    :param rules: by the name of a topic, or by what its name begins with and an asterisk, of which the longest counts:
        ``{"news": (100, 3600), "room/*": (50, 600)}``.
    :raises ValueError: for a size below 1, or no time.
    """

    def __init__(self, rules: Mapping[str, tuple[int, float]] | None = None) -> None:
        self._names: dict[str, Retention] = {}
        prefixes: dict[str, Retention] = {}
        for name, rule in (rules or {}).items():
            retention = Retention(*rule)
            if isinstance(retention.size, bool) or not isinstance(retention.size, int) or retention.size < 1:
                raise ValueError(f"The history of {name!r} is to have at least 1 message, not {retention.size!r}")
            if not 0 < retention.seconds < float("inf"):
                raise ValueError(f"The history of {name!r} is to be kept for some seconds, not {retention.seconds!r}")
            if name.endswith("*"):
                prefixes[name[:-1]] = retention
            else:
                self._names[name] = retention
        self._prefixes = sorted(prefixes.items(), key=lambda item: -len(item[0]))

    def find(self, topic: str) -> Retention | None:
        """Return how much of a topic is kept; None if nothing is."""
        retention = self._names.get(topic)
        if retention is None:
            for prefix, each in self._prefixes:
                if topic.startswith(prefix):
                    return each
        return retention


@dataclass(frozen=True)
class BrokerStats:
    """A broker at one moment. One that delivers in this process has nothing to count.

    :ivar connected: whether it is connected to what carries publications, if there is such a thing.
    :ivar waiting: publications that are not sent yet.
    :ivar waiting_bytes: what they take.
    :ivar sent: publications that were.
    :ivar lost: publications that were not, for want of room or of time, or since they were refused.
    :ivar received: publications that came, its own ones included.
    :ivar repeated: messages that had come before, and were passed over.
    :ivar unknown: messages of another version, which were passed over.
    :ivar reconnections: how often a connection was made again.
    :ivar starvations: how often one was that looked well, but brought nothing.
    """

    connected: bool = True
    waiting: int = 0
    waiting_bytes: int = 0
    sent: int = 0
    lost: int = 0
    received: int = 0
    repeated: int = 0
    unknown: int = 0
    reconnections: int = 0
    starvations: int = 0


class Broker(Protocol):
    """Carries publications to who has subscribed to their topic. Any thread may call; a signal handler may publish.

    The receivers of a topic get what is published to it in one order, one publication at a time, each once. The order
    of one thread's publications is theirs. Where a broker can't tell whether it has missed some, it says so with an
    :class:`Interruption`.

    A topic that is published to with a retention has a history. Its positions have one epoch, within which offsets are
    counted from 1 without a hole, and name a message for ever: whenever that can't be known (the broker has lost its
    memory, or may have lost the end of it) there is another epoch. An epoch says nothing to who doesn't make it. All
    who publish to a topic are to use the same retention.

    Presence is who is on a topic, by names; each name may have entered several times.
    """

    def subscribe(self, topic: str, receiver: Receiver) -> None:
        """Have ``receiver`` called with what is published to a topic from now on. Twice is as good as once.

        What this broker itself publishes from now on is delivered; what others publish, as soon as the subscription
        holds: see :meth:`wait_subscribed`. What was published before, and is still under way, may be delivered, too.

        A manager calls this, and :meth:`unsubscribe`, while it holds a lock: neither may wait for anybody.

        :raises BrokerError: if the broker is closed.
        """

    def unsubscribe(self, topic: str, receiver: Receiver) -> None:
        """Have ``receiver`` called no more, but with what is just being delivered. That it is not subscribed, or the
        broker closed, is no error.
        """

    def publish(self, publication: Publication, retention: Retention | None = None, key: str | None = None) -> None:
        """Have a publication delivered. A receiver that raises keeps it from no other one.

        In one step it gets its position, is put into the history, and goes to the receivers.

        :param publication: without a position.
        :param retention: how much of the topic is kept; None keeps nothing.
        :param key: of at most 128 characters; what has the key of another publication to the same topic, made in the
            last :data:`KEY_SECONDS`, is passed over.
        :raises BrokerError: if the broker is closed, or can take no more.
        """

    def history(self, topic: str, retention: Retention, since: Position | None = None, last: int = 0) -> History:
        """Return what is kept of a topic. May wait, for some seconds at most; a manager holds no lock meanwhile.

        What is published after the position that is returned is delivered to the receivers that had subscribed before
        the call; what is returned may be delivered to them as well. A topic that has no epoch gets one, which it keeps
        while there is a receiver in this process, and for the time of the retention afterwards.

        :param since: what came after it is returned, if all of that is kept.
        :param last: how many, at most, of the newest are returned else.
        :raises BrokerError: if the broker is closed, or does not answer.
        """

    def enter(self, topic: str, name: str, info: bytes, joined: Publication, left: Publication) -> None:
        """Have a name present on a topic. May wait as :meth:`history` does.

        :param info: of who that is.
        :param joined: is published if the name was not present; in one step, like :meth:`leave`, so that the last of
            several publications is true.
        :param left: is published when the name is present no more: when it has left as often as it has entered, or the
            broker whom it has entered by has closed or died.
        :raises BrokerError: if the broker is closed, or does not answer.
        """

    def leave(self, topic: str, name: str) -> None:
        """Undo one :meth:`enter` of a name, made by this broker. May wait as :meth:`history` does. That it is not
        present, or the broker closed, is no error.
        """

    def presence(self, topic: str) -> dict[str, bytes]:
        """Return who is present on a topic: for each name what was said when it entered last. May wait as
        :meth:`history` does.

        :raises BrokerError: if the broker is closed, or does not answer.
        """

    def wait_subscribed(self, timeout: float) -> bool:
        """Wait until the subscriptions made so far hold: whatever anybody publishes after that is delivered. Tell
        whether they do.

        :param timeout: for how many seconds at most.
        """

    def flush(self, timeout: float) -> None:
        """Wait until what was published so far is on its way to the receivers, or lost.

        :param timeout: for how many seconds at most.
        :raises BrokerError: if it is not in this time.
        """

    def stats(self) -> BrokerStats:
        """Return how it is, and what it has counted."""

    def close(self) -> None:
        """Deliver nothing more. What was published may be sent first, for some seconds. A second call does nothing."""


def check_publication(name: str, opcode: int, key: str | None) -> None:
    """Say whether a message may be published.

    :param name: of the topic.
    :raises TypeError: see :func:`check_name`.
    :raises ValueError: likewise, and for a control frame, or a key that is empty or too long.
    """
    check_name(name)
    if opcode > OPCODE_BINARY:
        raise ValueError("A control frame can't be published")
    if key is not None and not 0 < len(key) <= MAX_KEY_LENGTH:
        raise ValueError(f"The key of a publication has 1 to {MAX_KEY_LENGTH} characters, not {len(key)}")


def check_name(name: str) -> None:
    """Say whether a topic may have a name.

    :raises TypeError: for one that is no str.
    :raises ValueError: for one that is empty, or too long.
    """
    if not isinstance(name, str):
        raise TypeError(f"The name of a topic is a str, not {type(name)}")
    if not 0 < len(name.encode()) <= MAX_TOPIC_SIZE:
        raise ValueError(f"The name of a topic has 1 to {MAX_TOPIC_SIZE} bytes in UTF-8, not {len(name.encode())}")

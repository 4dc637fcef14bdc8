"""Brokers by their URLs, and a publisher for programs that have no server."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Final

from ws4py.broker.interface import Broker, Publication, Retentions, check_publication
from ws4py.broker.memory import MemoryBroker
from ws4py.exc import BrokerError
from ws4py.messaging import Message, encode_payload

__all__ = ["MEMORY", "Publisher", "connect", "make_broker"]

BROKERS: Final = {
    "redis": "ws4py.broker.redis:RedisBroker",
    "rediss": "ws4py.broker.redis:RedisBroker",
    "unix": "ws4py.broker.redis:RedisBroker",
}
"""The classes, by the schemes of their URLs. They are imported when they are asked for, since they need extras."""

MEMORY: Final = "memory://"


def make_broker(url: str) -> Broker:
    """Return a broker.

    :param url: ``redis://HOST:PORT/DATABASE``, ``rediss://`` for TLS, or ``unix://PATH``, as redis-py has them; or
        ``memory://``, for one of this process alone.
    :raises ValueError: for another URL, or a wrong one.
    :raises BrokerError: if a package is missing for it.
    """
    scheme, colon, _ = url.partition("://")
    if url == MEMORY:
        return MemoryBroker()
    if scheme not in BROKERS or not colon:
        raise ValueError(f"A broker's URL begins with {', '.join(BROKERS)} or memory, and ://")
    module, _, name = BROKERS[scheme].partition(":")
    try:
        factory = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise BrokerError(f"{scheme}:// needs {error.name}: pip install 'ws4py[redis]'") from error
    made: Broker = factory(url)
    return made


class Publisher:
    """Publishes to the topics of servers, from a program that is none. Any thread may call.

    It is a context manager, which closes it. One that is forgotten ends by itself.

    :param broker: that carries what is published; it is closed with this.
    :param timeout: for how many seconds :meth:`publish` waits.
    :param history: of which topics how much is kept, as a manager has it: see
        :class:`~ws4py.broker.interface.Retentions`. It is to be the same as the servers'.
    """

    def __init__(
        self, broker: Broker, timeout: float = 5.0, history: Mapping[str, tuple[int, float]] | None = None
    ) -> None:
        self._broker = broker
        self._timeout = timeout
        self._retentions = Retentions(history)

    def publish(
        self,
        topic: str,
        message: str | bytes | bytearray | Message,
        binary: bool = False,
        key: str | None = None,
        wait: bool = True,
    ) -> None:
        """Send a message to every websocket that is on a topic, in whatever process.

        :param topic: its name: 1 to 255 bytes in UTF-8. That nobody is on it is no error.
        :param message: what a websocket's ``send`` takes, but no generator.
        :param binary: send bytes as a binary message.
        :param key: 1 to 128 characters: what has the key of another publication to the topic, of the last five minutes,
            is passed over.
        :param wait: until the broker has taken it. Else it is sent by a thread of the broker's: see :meth:`flush`.
        :raises BrokerError: if it is not taken in time, and may be sent later; or if it, or one that another thread
            publishes meanwhile, is lost.
        :raises ValueError: for another name or key, or a message that can't be sent.
        """
        opcode, payload = encode_payload(message, binary)
        check_publication(topic, opcode, key)
        lost = self._broker.stats().lost
        self._broker.publish(Publication(topic, opcode, payload), self._retentions.find(topic), key)
        if wait:
            self._broker.flush(self._timeout)
            if self._broker.stats().lost != lost:
                raise BrokerError("The broker has not taken a publication")

    def flush(self) -> None:
        """Wait until what was published so far is taken, or lost.

        :raises BrokerError: if it is not in time.
        """
        self._broker.flush(self._timeout)

    def close(self) -> None:
        """Send what waits, for some seconds, and end. A second call does nothing."""
        self._broker.close()

    def __enter__(self) -> Publisher:
        """Return this."""
        return self

    def __exit__(self, *_: Any) -> None:
        """Close."""
        self.close()


def connect(url: str, timeout: float = 5.0, history: Mapping[str, tuple[int, float]] | None = None) -> Publisher:
    """Return what publishes to the topics of the servers that have this broker. It connects when it is first used.

    :param url: see :func:`make_broker`.
    :param timeout: for how many seconds a publication may take.
    :param history: of which topics how much is kept; to be the same as the servers'.
    :raises ValueError: for a wrong URL, or for ``memory://``: to what one process has nobody else can publish.
    :raises BrokerError: if a package is missing for it.
    """
    if url == MEMORY:
        raise ValueError(f"Nobody is on the topics of a new {MEMORY}: publish by the manager")
    return Publisher(make_broker(url), timeout, history)

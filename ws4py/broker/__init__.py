"""What carries publications between managers: a :class:`Broker`, by default a :class:`MemoryBroker`.

:class:`ws4py.broker.redis.RedisBroker` carries them between processes.
"""

from ws4py.broker.interface import (
    MAX_KEY_LENGTH,
    MAX_TOPIC_SIZE,
    Broker,
    BrokerStats,
    History,
    Interruption,
    Position,
    Publication,
    Receiver,
    Retention,
    Retentions,
    check_name,
    check_publication,
)
from ws4py.broker.memory import MemoryBroker
from ws4py.broker.urls import Publisher, connect, make_broker

__all__ = [
    "MAX_KEY_LENGTH",
    "MAX_TOPIC_SIZE",
    "Broker",
    "BrokerStats",
    "History",
    "Interruption",
    "MemoryBroker",
    "Position",
    "Publication",
    "Publisher",
    "Receiver",
    "Retention",
    "Retentions",
    "check_name",
    "check_publication",
    "connect",
    "make_broker",
]

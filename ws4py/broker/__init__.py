"""What carries publications between managers: a :class:`Broker`, by default a :class:`MemoryBroker`."""

from ws4py.broker.interface import (
    Broker,
    History,
    Interruption,
    Position,
    Publication,
    Receiver,
    Retention,
    Retentions,
)
from ws4py.broker.memory import MemoryBroker

__all__ = [
    "Broker",
    "History",
    "Interruption",
    "MemoryBroker",
    "Position",
    "Publication",
    "Receiver",
    "Retention",
    "Retentions",
]

"""What carries publications between managers: a :class:`Broker`, by default a :class:`MemoryBroker`."""

from ws4py.broker.interface import Broker, Publication, Receiver
from ws4py.broker.memory import MemoryBroker

__all__ = ["Broker", "MemoryBroker", "Publication", "Receiver"]

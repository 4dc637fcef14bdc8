"""Broadcasts: the topic that everybody is on."""

from __future__ import annotations

from typing import Final, get_args

from ws4py.broker import Interruption, Publication
from ws4py.engine import Engine
from ws4py.limits import OverflowPolicy
from ws4py.manager.fanout import SharedMessage
from ws4py.manager.registry import Registry

__all__ = ["Broadcasts"]

EVERYBODY: Final = ""
"""The topic's name, which no other one can have."""

POLICIES: Final = (None, *get_args(OverflowPolicy))
"""What is to be done where an outbox is full: its place here is the first byte of what is published."""


class Broadcasts:
    """Sends to every open websocket: of this manager, or of all that share its broker. Any thread may call.

    :param engine: whose connections they have.
    :param registry: that has them.
    :param shared: whether other managers may have the same broker.
    """

    def __init__(self, engine: Engine, registry: Registry, shared: bool) -> None:
        self._engine = engine
        self._registry = registry
        self._shared = shared
        self._receiver = self._receive
        self._accepted: dict[int, int] = {}  # of those that are just being published: by their ids
        self._forked = False

    def open(self) -> None:
        """Get the broadcasts of others from now on.

        :raises BrokerError: if the broker can't do that.
        """
        self._registry.topics.open()
        if self._shared:
            self._registry.topics.broker.subscribe(EVERYBODY, self._receiver)

    def close(self) -> None:
        """Get them no more."""
        if self._shared:
            self._registry.topics.broker.unsubscribe(EVERYBODY, self._receiver)
        self._registry.topics.close()

    def send(self, opcode: int, payload: bytes, overflow: OverflowPolicy | None) -> int:
        """See :meth:`ws4py.manager.WebSocketManager.broadcast`.

        :raises BrokerError: if the broker can't do that.
        """
        self._engine.count("broadcasts")
        if not self._shared:
            return self._offer(opcode, payload, overflow)
        publication = Publication(EVERYBODY, opcode, bytes([POLICIES.index(overflow)]) + payload)
        self._accepted[id(publication)] = 0
        try:
            self._registry.topics.broker.publish(publication)
        finally:
            accepted = self._accepted.pop(id(publication))
        return accepted

    def _receive(self, publication: Publication | Interruption) -> None:
        """Offer what was broadcast here or elsewhere. The broker calls this."""
        if self._forked or isinstance(publication, Interruption):
            return
        _, opcode, payload, _ = publication
        overflow = POLICIES[payload[0]] if payload and payload[0] < len(POLICIES) else None
        accepted = self._offer(opcode, payload[1:], overflow)
        if id(publication) in self._accepted:  # the broker has handed on the object that it was given
            self._accepted[id(publication)] = accepted

    def _offer(self, opcode: int, payload: bytes, overflow: OverflowPolicy | None) -> int:
        members = self._registry.members()
        accepted = SharedMessage(opcode, payload).offer_to_all([member.connection for member in members], overflow)
        self._engine.count("deliveries", accepted)
        return accepted

    def after_fork_in_child(self) -> None:
        """Leave the websockets to the parent."""
        self._forked = True

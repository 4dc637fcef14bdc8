"""Whose request it is that a proxy passes on: what it says in ``X-Forwarded-For`` is believed, if the proxy is."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

from ws4py.labels import address_of

__all__ = ["TrustedProxies"]

UNIX: Final = "unix"


class TrustedProxies:
    """The proxies whose word is believed.

    :param names: their addresses, or networks such as ``10.0.0.0/8``; ``"unix"`` for whoever comes by a unix socket.
    :raises ValueError: for what is neither.
    """

    def __init__(self, names: str | Iterable[str]) -> None:
        given = {names} if isinstance(names, str) else set(names)
        self._unix = UNIX in given
        self._networks = [ipaddress.ip_network(name) for name in given - {UNIX}]

    def client(self, peer: str | None, forwarded: str | None) -> str | None:
        """Return the IP address of the client.

        Each proxy appends whom it has the request from. So the client is the last one in the list that is no trusted
        proxy; what stands before it is its own word, and is passed over.

        :param peer: the address of the connection's other end; None for a unix socket.
        :param forwarded: ``X-Forwarded-For``.
        """
        client = address_of(peer) if peer is not None else None
        trusted = self._unix if peer is None else self._trusts(client)
        parts = (forwarded or "").split(",")
        while trusted and parts:
            address = address_of(parts.pop())
            if address is None:
                break
            client, trusted = address, self._trusts(address)
        return client

    def _trusts(self, address: str | None) -> bool:
        return address is not None and any(ipaddress.ip_address(address) in network for network in self._networks)

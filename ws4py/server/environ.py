"""The environ of a request: its headers, who has sent it, and what a websocket keeps of it."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Mapping
from sys import getsizeof
from typing import Any, Final

from ws4py.labels import address_of
from ws4py.packing import LARGEST_SHARED, SHARED, shared
from ws4py.server.adapters import BY_KEY

__all__ = ["MAX_KEPT", "RequestHeaders", "client_address", "kept_environ", "variable"]

MAX_KEPT: Final = 16384
"""The most bytes of memory that the texts of one environ take, names included; the longest are left out first."""

_SERVERS_OWN: Final = frozenset(
    {
        *BY_KEY,
        "wsgi.input",
        "wsgi.file_wrapper",
        "wsgi.early_hints",
        "werkzeug.request",
        "gunicorn.sock",
        "cherrypy.previous_request",
        "bottle.app",
        "bottle.request",
        "bottle.route",
        "route.handle",
        "ws4py.websocket",
        "ws4py.manager",
    }
)
"""These would keep the request's buffers, or the server's connection, alive."""

_PLAIN: Final = {"CONTENT_TYPE": "Content-Type", "CONTENT_LENGTH": "Content-Length"}
"""Headers whose names in an environ have no prefix."""


@functools.lru_cache(maxsize=256)
def variable(name: str) -> str:
    """Return the name that a header has in an environ, one and the same object each time."""
    name = name.upper().replace("-", "_")
    return name if name in _PLAIN else f"HTTP_{name}"


class RequestHeaders(Mapping[str, str]):
    """The headers of a request, by their names in any case.

    :param environ: of WSGI.
    """

    def __init__(self, environ: Mapping[str, Any]) -> None:
        self._environ = environ

    def __getitem__(self, name: str) -> str:
        """Return the value of a header; those of repeated ones are joined."""
        try:
            value: str = self._environ[variable(name)]
        except KeyError:
            raise KeyError(name) from None
        return value

    def __iter__(self) -> Iterator[str]:
        """Return the names."""
        for key in self._environ:
            if key.startswith("HTTP_"):
                yield key[5:].replace("_", "-").title()
            elif key in _PLAIN:
                yield _PLAIN[key]

    def __len__(self) -> int:
        """Return how many headers there are."""
        return sum(1 for _ in self)


def kept_environ(environ: Mapping[str, Any], keep: bool | str | Collection[str] = True) -> dict[str, Any]:
    """Return a copy of a WSGI environ for as long as the websocket lives, without the server's own objects.

    Texts take at most :data:`MAX_KEPT` bytes of memory in all, else the longest are left out, whole; but never those
    that are shared. Objects that the application has put in are kept as they are.

    :param keep: True for all of it, False for nothing, or the names that are kept.
    """
    if keep is False:
        return {}
    if keep is not True:
        names = {keep} if isinstance(keep, str) else keep
        environ = {name: environ[name] for name in names if name in environ}
    kept: dict[str, Any] = {}
    total = 0
    others: list[tuple[int, str]] = []
    for name, value in environ.items():
        if name in _SERVERS_OWN:
            continue
        if type(value) is not str:
            kept[name] = value
            continue
        size = getsizeof(value)
        own = SHARED.get(name)
        if own is not None and size <= LARGEST_SHARED:
            kept[own] = shared(value)
        else:
            kept[name] = value
            others.append((getsizeof(name) + size, name))
        total += getsizeof(name) + size
    if total > MAX_KEPT:
        others.sort()
        while total > MAX_KEPT:
            size, name = others.pop()
            total -= size
            del kept[name]
    return kept


def client_address(word: str | None, sock: Any) -> str | None:
    """Return the IP address of a request's client, None if there is none.

    :param word: what the server, or a proxy, says it is. If that is no address, it is the other end's of ``sock``.
    """
    address = address_of(word) if word else None
    if address is None:
        try:
            peer = sock.getpeername()
        except (AttributeError, OSError):  # there is no socket, or the client is gone
            return None
        address = address_of(str(peer[0])) if isinstance(peer, tuple) else None
    return address

"""Who has sent a request, and what a websocket keeps of it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Final

from ws4py.labels import address_of

__all__ = ["client_address", "kept_environ"]

_SERVERS_OWN: Final = frozenset(
    {
        "wsgi.input",
        "wsgi.file_wrapper",
        "wsgi.early_hints",
        "werkzeug.request",
        "werkzeug.socket",
        "gunicorn.socket",
        "gunicorn.sock",
        "cherrypy.previous_request",
        "bottle.app",
        "bottle.request",
        "bottle.route",
        "route.handle",
        "ws4py.socket",
        "ws4py.websocket",
        "ws4py.manager",
    }
)
"""These would keep the request's buffers, or the server's connection, alive."""


@functools.lru_cache(maxsize=1024)
def _shared(text: str) -> str:
    """Return one and the same object for equal strings, so that a crowd of similar requests shares their headers."""
    return text


def kept_environ(environ: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a WSGI environ for as long as the websocket lives, without the server's own objects."""
    return {
        _shared(name): _shared(value) if type(value) is str else value
        for name, value in environ.items()
        if name not in _SERVERS_OWN
    }


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

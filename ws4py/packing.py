"""What a websocket has of its request, in little memory: what many requests have alike is kept once."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Mapping
from sys import getrefcount, getsizeof
from typing import Any, Final

__all__ = ["LARGEST_SHARED", "SHARED", "Requested", "shared"]

LARGEST_SHARED: Final = 320
"""Bytes of memory of a value that is kept once for all who have it."""

LONGEST_NAMES: Final = 1024
"""Characters of the names in one environ beyond :data:`SHARED`, past which it is not packed: a client chooses them."""

SHARED: Final = {
    name: name
    for name in (
        "ACTUAL_SERVER_PROTOCOL",
        "GATEWAY_INTERFACE",
        "HTTP_ACCEPT",
        "HTTP_ACCEPT_ENCODING",
        "HTTP_ACCEPT_LANGUAGE",
        "HTTP_CACHE_CONTROL",
        "HTTP_CONNECTION",
        "HTTP_HOST",
        "HTTP_ORIGIN",
        "HTTP_PRAGMA",
        "HTTP_SEC_FETCH_DEST",
        "HTTP_SEC_FETCH_MODE",
        "HTTP_SEC_FETCH_SITE",
        "HTTP_SEC_WEBSOCKET_EXTENSIONS",
        "HTTP_SEC_WEBSOCKET_VERSION",
        "HTTP_UPGRADE",
        "HTTP_USER_AGENT",
        "PATH_INFO",
        "REMOTE_ADDR",
        "REQUEST_METHOD",
        "SCRIPT_NAME",
        "SERVER_NAME",
        "SERVER_PORT",
        "SERVER_PROTOCOL",
        "SERVER_SOFTWARE",
        "wsgi.url_scheme",
    )
}
"""What is alike in many requests and is no secret. Equal short values are one object, which may outlive its request."""

_OWN: Final = frozenset({"PATH_INFO", "REMOTE_ADDR"})
"""Of those, what clients that are alike in all others may differ in."""


@functools.lru_cache(maxsize=1024)
def shared(text: str) -> str:
    """Return one and the same object for equal strings."""
    return text


class _Packed(tuple[Any, ...]):
    """What :func:`_pack` makes: a layout, which is shared, and the values that are not."""

    __slots__ = ()


_Layout = tuple[tuple[tuple[str, str], ...], tuple[str, ...]]


@functools.lru_cache(maxsize=256)
def _layout(common: tuple[tuple[str, str], ...], names: tuple[str, ...]) -> _Layout:
    """Return one and the same object for equal ones.

    :param common: names and values that many requests have.
    :param names: of the other values.
    """
    return common, names


def _pack(environ: Mapping[str, Any]) -> _Packed | None:
    """Return an environ in little memory; None if its names are too long for that."""
    common: list[tuple[str, str]] = []
    names: list[str] = []
    values: list[Any] = []
    for name, value in environ.items():
        if name in SHARED and name not in _OWN and type(value) is str and getsizeof(value) <= LARGEST_SHARED:
            common.append((name, value))
        else:
            names.append(name)
            values.append(value)
    if sum(map(len, names)) > LONGEST_NAMES:
        return None
    return _Packed((_layout(tuple(common), tuple(names)), *values))


def _unpack(packed: _Packed) -> dict[str, Any]:
    """Return the environ that was packed."""
    layout, *values = packed
    common, names = layout
    return {**dict(common), **dict(zip(names, values, strict=True))}


# --- for websockets ---------------------------------------------------------------------------------------------------

_unpacking = threading.RLock()
"""Held where of several threads that ask for an environ one may be the first."""


class Requested:
    """The part of a :class:`~ws4py.websocket.WebSocket` that has the environ of its request."""

    __slots__ = ()

    _kept_environ: Any

    @property
    def environ(self) -> dict[str, Any] | None:
        """The environ of the request, without the server's own objects; None after :meth:`closed` has returned."""
        environ: Any = self._kept_environ
        if type(environ) is _Packed:
            with _unpacking:
                environ = self._kept_environ
                if type(environ) is _Packed:
                    environ = self._kept_environ = _unpack(environ)
        return environ  # type: ignore[no-any-return]

    @environ.setter
    def environ(self, environ: dict[str, Any] | None) -> None:
        self._kept_environ = environ

    def _pack(self) -> None:
        """Keep the environ in little memory until it is asked for, if nobody else has it. For who is about to run the
        websocket.
        """
        if _count_holders(self) == _ALONE:
            self._kept_environ = _pack(self._kept_environ) or self._kept_environ


def _count_holders(websocket: Any) -> int:
    """Return how many references there are to the environ of a websocket; 0 if that is no dictionary."""
    environ = getattr(websocket, "_kept_environ", None)  # a subclass may have its environ in a way of its own
    return getrefcount(environ) if type(environ) is dict else 0


class _Holder:
    """Has an environ that nobody else has."""

    def __init__(self) -> None:
        self._kept_environ: dict[str, Any] = {}


_ALONE: Final = _count_holders(_Holder())


def _after_fork_in_child() -> None:
    global _unpacking  # noqa: PLW0603
    _unpacking = threading.RLock()  # a thread of the parent's may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

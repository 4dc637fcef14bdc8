"""What the frameworks have in common: a websocket of a function, and what a view hands on to its websocket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ws4py.around import Around
from ws4py.messaging import Message
from ws4py.websocket import WebSocket

__all__ = ["Handler", "nested", "websocket_class_of"]

Handler = Callable[[WebSocket, Message], object]


def websocket_class_of(target: type[WebSocket] | Handler) -> type[WebSocket]:
    """Return a class of websockets: the one that is given, or one whose messages go to a function.

    :raises TypeError: for anything else.
    """
    if isinstance(target, type):
        if issubclass(target, WebSocket):
            return target
    elif callable(target):

        def received_message(self: WebSocket, message: Message) -> None:
            target(self, message)

        name = getattr(target, "__name__", type(target).__name__)
        body = {"received_message": received_message, "__doc__": target.__doc__, "__module__": target.__module__}
        return type(name, (WebSocket,), body)
    raise TypeError(f"A websocket is a subclass of WebSocket, or a function of (websocket, message), not {target!r}")


def nested(outer: Around, inner: Around | None) -> Around:
    """Return what surrounds callbacks by both."""
    if inner is None:
        return outer

    @contextmanager
    def both(websocket: WebSocket) -> Iterator[None]:
        with outer(websocket), inner(websocket):
            yield

    return both

"""What the frameworks have in common: websockets among an application's own routes, and a websocket of a function."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from ws4py.around import Around
from ws4py.messaging import Message
from ws4py.server.middleware import WebSocketMiddleware
from ws4py.server.serveradapter import StartResponse
from ws4py.websocket import WebSocket

__all__ = ["Handler", "RoutedMiddleware", "nested", "websocket_class_of"]

Handler = Callable[[WebSocket, Message], object]


class RoutedMiddleware(WebSocketMiddleware):
    """Stands before an application whose own routes tell which requests are a websocket's.

    To ask them takes as long as to route the request, so a page is not asked about. What is no handshake gets a 426 all
    the same where the application has nothing but a websocket: it answers that with an error, and is asked then.
    """

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        if "HTTP_UPGRADE" in environ:
            return super().__call__(environ, start_response)
        failed, asked = False, True

        def start(status: str, *arguments: Any) -> Any:
            nonlocal failed
            failed = failed or (asked and status >= "4" and self.find(environ) is not None)
            return (lambda data: None) if failed else start_response(status, *arguments)

        result = self.application(environ, start)
        asked = False  # a generator begins later: its answer is as it is
        if not failed:
            return result
        getattr(result, "close", bool)()
        return super().__call__(environ, start_response)


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

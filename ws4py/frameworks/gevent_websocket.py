"""Applications that were written for gevent-websocket, unchanged: they receive in a loop.

.. code-block:: python

    from ws4py.frameworks.gevent_websocket import with_websockets

    application = with_websockets(application)

The worker of that package becomes one of gunicorn's own (``-k gevent``); any other WSGI server will do, too. **Each
websocket takes a thread of its own**, for as long as it is open; where the process is patched by gevent, a greenlet.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable
from typing import Any

from ws4py.exc import ConnectionClosed
from ws4py.frameworks.receiving import WORKERS, Receiver, ReceivingWebSocket
from ws4py.server.wsgiutils import WebSocketWSGIApplication

__all__ = ["GeventReceiver", "with_websockets"]

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class GeventReceiver:
    """What is ``environ['wsgi.websocket']``. Its methods are for the application's thread; ``send`` for any.

    :ivar environ: of the request.
    """

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self.environ = receiver.environ

    @property
    def closed(self) -> bool:
        """Whether the websocket has ended."""
        return not self._receiver.connected

    def receive(self) -> str | bytes | None:
        """Return the next message: a str for a text, bytes for a binary one; None at the end."""
        try:
            return self._receiver.receive()
        except ConnectionClosed:
            return None

    def send(self, message: str | bytes, binary: bool | None = None) -> None:
        """Send a message; bytes are binary, unless it is said that they are not.

        :raises ConnectionClosed: if the websocket is closing or closed.
        """
        if binary is False and not isinstance(message, str):
            message = message.decode()
        self._receiver.send(message)

    def close(self, code: int = 1000, message: str | bytes = b"") -> None:
        """Close the websocket."""
        with contextlib.suppress(ConnectionClosed):
            self._receiver.close(code, message if isinstance(message, str) else message.decode())


def with_websockets(application: Application, **options: Any) -> Application:
    """Return an application that is called, for a websocket, when that is open: with ``environ['wsgi.websocket']``.

    The websocket is closed when the application has returned, with 1000, or raised, with 1011.

    :param options: as for :class:`~ws4py.server.wsgiutils.WebSocketWSGIApplication`.
    """

    class Handled(ReceivingWebSocket):
        """Calls the application."""

        def function(self, receiver: Receiver) -> None:
            environ = {
                **(receiver.environ or {}),
                "wsgi.input": io.BytesIO(),  # a handshake has no body
                "wsgi.websocket": GeventReceiver(receiver),
            }
            result = application(environ, lambda *arguments: None)
            try:
                for _ in result or ():
                    pass
            finally:
                getattr(result, "close", bool)()

    options = {"max_workers": WORKERS, "answer": True, **options}
    websockets = WebSocketWSGIApplication(handler_cls=Handled, **options)

    def switch(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        asked = environ.get("HTTP_UPGRADE", "").lower() == "websocket"
        return (websockets if asked else application)(environ, start_response)

    return switch

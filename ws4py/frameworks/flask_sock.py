"""Handlers that were written for Flask-Sock, unchanged: functions that receive in a loop.

.. code-block:: python

    from ws4py.frameworks.flask_sock import Sock    # from flask_sock import Sock

    sock = Sock(app)

    @sock.route("/echo")
    def echo(ws):
        while True:
            ws.send(ws.receive())

**Each websocket takes a thread of its own**, for as long as it is open, since such a function waits in ``receive()``:
thousands of idle websockets are thousands of threads. It is for moving code here step by step: a class or a function
behind :meth:`ws4py.frameworks.flask.WebSockets.route` takes none. All else is as there: any WSGI server, limits, Pings,
and 1001 to all when the server stops.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final, TypeVar

from flask import Blueprint, Flask, copy_current_request_context, request

from ws4py.exc import ConnectionClosed
from ws4py.frameworks.flask import WebSockets
from ws4py.messaging import CloseCode, Message
from ws4py.websocket import WebSocket

__all__ = ["ConnectionClosed", "Receiver", "Sock"]

logger = logging.getLogger("ws4py")

Target = TypeVar("Target", bound=Callable[..., Any])

WAITING: Final = 32
"""How many messages wait for their function; past them the peer is pushed back."""

WORKERS: Final = 8
"""How many workers may wait for functions that do not receive."""


class Receiver:
    """What the function is given. Its methods are for the function's thread; ``send`` and ``close`` for any.

    :ivar environ: of the request.
    :ivar subprotocol: that was negotiated; None if none was.
    """

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._changed = threading.Condition()
        self._messages: deque[str | bytes] = deque()
        self._ended = False  # nothing more comes
        self._left = False  # nobody receives any more
        self._code: int | None = None
        self._reason = ""
        self.environ = websocket.environ
        self.subprotocol = websocket.subprotocol

    @property
    def connected(self) -> bool:
        """Whether the websocket is open."""
        return not self._ended

    def receive(self, timeout: float | None = None) -> str | bytes | None:
        """Return the next message: a str for a text, bytes for a binary one; None after ``timeout`` seconds.

        :raises ConnectionClosed: at the end; it says how the peer has closed.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._messages or self._ended, timeout):
                return None
            if not self._messages:
                raise ConnectionClosed("The websocket has ended", code=self._code, reason=self._reason)
            self._changed.notify_all()
            return self._messages.popleft()

    def send(self, data: str | bytes) -> None:
        """Send a message: a text for a str, a binary one for bytes.

        :raises ConnectionClosed: if the websocket is closing or closed.
        """
        self._websocket.send(data, isinstance(data, (bytes, bytearray, memoryview)))

    def close(self, reason: int | None = None, message: str | None = None) -> None:
        """Close the websocket, and end the function by :class:`ConnectionClosed`.

        :param reason: the code; 1000 by default.
        :param message: what goes with it.
        :raises ConnectionClosed: always.
        """
        code = CloseCode.NORMAL_CLOSURE.value if reason is None else reason
        self._websocket.close(code, message or "")
        raise ConnectionClosed("The function has closed the websocket", code=code, reason=message or "")

    # --- for callbacks ------------------------------------------------------------------------------------------------

    def put(self, message: str | bytes) -> None:
        """Hand a message on. Waits for the function if too many do."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._messages) < WAITING or self._left)
            if not self._left:
                self._messages.append(message)
                self._changed.notify_all()

    def end(self, code: int, reason: str) -> None:
        """The websocket has ended."""
        with self._changed:
            self._code, self._reason, self._ended = code, reason, True
            self._changed.notify_all()

    def leave(self) -> None:
        """The function has returned."""
        with self._changed:
            self._left = True
            self._messages.clear()
            self._changed.notify_all()


class _Received(WebSocket):
    """Has a function receive its messages, in a thread."""

    call: Callable[[Receiver], object]
    _receiver: Receiver

    def opened(self) -> None:
        self._receiver = Receiver(self)
        threading.Thread(target=self._handle, name=f"{type(self).__name__}-receiver", daemon=True).start()

    def _handle(self) -> None:
        receiver = self._receiver
        code = CloseCode.NORMAL_CLOSURE
        try:
            self.call(receiver)
        except ConnectionClosed:
            pass
        except BaseException:
            logger.exception("The function of %r raised", self)
            code = CloseCode.INTERNAL_ERROR
        finally:
            receiver.leave()
            self.close(code)

    def received_message(self, message: Message) -> None:
        self._receiver.put(message.text if message.is_text else message.data)

    def closed(self, code: int, reason: str | bytes | None = None) -> None:
        if hasattr(self, "_receiver"):  # it was opened
            self._receiver.end(code, self.close_reason or "")


class Sock:
    """In the place of Flask-Sock's class of this name.

    :param app: the application; without one, :meth:`init_app` is to be called.
    :param options: as for :class:`~ws4py.frameworks.flask.WebSockets`.
    """

    def __init__(self, app: Flask | None = None, **options: Any) -> None:
        self._websockets = WebSockets(app, **{"max_workers": WORKERS, **options})

    def init_app(self, app: Flask) -> None:
        """Have an application answer the routes."""
        self._websockets.init_app(app)

    def route(self, path: str, bp: Blueprint | None = None, **options: Any) -> Callable[[Target], Target]:
        """Return a decorator for a function of a :class:`Receiver` and the rule's arguments.

        The function runs in a copy of the handshake's request context, so it has ``request``, ``session`` and what
        extensions keep there. The websocket is closed when it returns, with 1000, or raises, with 1011.

        :param bp: the blueprint whose prefix the path has.
        :param options: as for :meth:`~ws4py.frameworks.flask.WebSockets.route`.
        """
        if bp is not None:
            path = (bp.url_prefix or "").rstrip("/") + path

        def decorate(function: Target) -> Target:
            websocket_class = type(function.__name__, (_Received,), {"__module__": function.__module__})
            decorators = [_handing_on(function), *options.pop("decorators", ())]
            self._websockets.route(path, decorators=decorators, **options)(websocket_class)
            return function

        return decorate


def _handing_on(function: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator of the view, which gives the websocket its function, in the context of the request."""

    def decorate(view: Callable[..., Any]) -> Callable[..., Any]:
        def consent(**view_args: Any) -> Any:
            @copy_current_request_context
            def call(receiver: Receiver) -> None:
                function(receiver, **view_args)

            request.environ["ws4py.websocket"].call = call
            return view(**view_args)

        return consent

    return decorate

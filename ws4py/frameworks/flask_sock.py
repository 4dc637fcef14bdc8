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

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from flask import Blueprint, Flask, copy_current_request_context, request

from ws4py.exc import ConnectionClosed
from ws4py.frameworks.flask import WebSockets
from ws4py.frameworks.receiving import WORKERS, Receiver, ReceivingWebSocket

__all__ = ["ConnectionClosed", "Receiver", "Sock"]

Target = TypeVar("Target", bound=Callable[..., Any])


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

    def route(
        self, path: str, bp: Blueprint | None = None, *, decorators: Sequence[Callable[..., Any]] = (), **options: Any
    ) -> Callable[[Target], Target]:
        """Return a decorator for a function of a :class:`Receiver` and the rule's arguments.

        The function runs in a copy of the handshake's request context, so it has ``request``, ``session`` and what
        extensions keep there. The websocket is closed when it returns, with 1000, or raises, with 1011.

        :param bp: the blueprint whose prefix the path has.
        :param decorators: of the view that answers the handshake.
        :param options: as for :meth:`~ws4py.frameworks.flask.WebSockets.route`.
        """
        if bp is not None:
            path = (bp.url_prefix or "").rstrip("/") + path

        def decorate(function: Target) -> Target:
            websocket_class = type(function.__name__, (ReceivingWebSocket,), {"__module__": function.__module__})
            views = [_handing_on(function), *decorators]
            self._websockets.route(path, decorators=views, **options)(websocket_class)
            return function

        return decorate


def _handing_on(function: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator of the view, which gives the websocket its function, in the context of the request."""

    def decorate(view: Callable[..., Any]) -> Callable[..., Any]:
        def consent(**view_args: Any) -> Any:
            @copy_current_request_context
            def call(receiver: Receiver) -> None:
                function(receiver, **view_args)

            request.environ["ws4py.websocket"].function = call
            return view(**view_args)

        return consent

    return decorate

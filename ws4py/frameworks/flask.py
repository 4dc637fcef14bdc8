"""Websockets in a Flask application.

.. code-block:: python

    app = Flask(__name__)
    websockets = WebSockets(app)

    @websockets.route("/chat/<room>")
    class Chat(WebSocket):
        def opened(self):
            self.send(f"Welcome to {self.view_args['room']}, {self.session['user']}")

    @websockets.route("/echo")
    def echo(websocket, message):
        websocket.send(message)

Flask answers the handshake as any request: with its hooks, its session, its login. If it answers with a 2xx the
websocket is accepted; anything else goes to the client. Who serves the application is as free as for any Flask
application: see :mod:`ws4py.server.adapters`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, TypeVar

from flask import Flask, request, session
from werkzeug.exceptions import HTTPException

from ws4py.frameworks.routes import RoutedMiddleware, nested, websocket_class_of
from ws4py.server.wsgiutils import WebSocketWSGIApplication
from ws4py.websocket import WebSocket

__all__ = ["WebSockets"]

Target = TypeVar("Target", bound=Callable[..., Any])
View = Callable[..., Any]


class WebSockets:
    """The websockets of a Flask application.

    :param app: the application; without one, :meth:`init_app` is to be called.
    :param manager: who is to run the websockets, on servers that don't bring one.
    :param options: of every websocket, as for :class:`~ws4py.server.wsgiutils.WebSocketWSGIApplication`: ``origins``,
        ``hosts``, ``compression``, ``protocols``, ``around``, limits, and so on.
    """

    def __init__(self, app: Flask | None = None, manager: Any = None, **options: Any) -> None:
        self._options = {"manager": manager, **options}
        self._routes: list[_Route] = []
        self._handshakes: list[_Handshakes] = []
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Have an application answer the routes that there are, and those that follow."""
        handshakes = _Handshakes(app)
        self._handshakes.append(handshakes)
        for route in self._routes:
            handshakes.add(route)

    def route(
        self,
        rule: str,
        *,
        endpoint: str | None = None,
        defaults: dict[str, Any] | None = None,
        decorators: Sequence[Callable[[View], View]] = (),
        **options: Any,
    ) -> Callable[[Target], Target]:
        """Return a decorator that puts a class of websockets, or a function of (websocket, message), behind a rule.

        The websocket has the rule's arguments as ``view_args``, and a copy of Flask's session as ``session``. Each
        callback runs within an application context of its own; so what an extension gives back at the end of that, a
        database session, say, is given back after each callback.

        :param rule: as Flask's routes have it.
        :param endpoint: its name, for ``url_for``; the name of the class or of the function by default.
        :param defaults: of the rule's arguments.
        :param decorators: of the view that answers the handshake, such as ``login_required``; the first is the
            innermost.
        :param options: of these websockets, in the place of those of :class:`WebSockets`. What is ``around`` a callback
            is within the application context.
        :raises TypeError: if the target is neither, or an option is unknown.
        :raises ValueError: for an option out of range.
        """

        def decorate(target: Target) -> Target:
            websocket_class = websocket_class_of(target)
            view: View = _consent
            for decorator in decorators:
                view = decorator(view)
            merged = {**self._options, **options}
            route = _Route(rule, endpoint or websocket_class.__name__, defaults, view, websocket_class, merged)
            for handshakes in self._handshakes:
                handshakes.add(route)
            self._routes.append(route)
            return target

        return decorate


class _Route(NamedTuple):
    """What is behind a rule."""

    rule: str
    endpoint: str
    defaults: dict[str, Any] | None
    view: View
    websocket_class: type[WebSocket]
    options: dict[str, Any]


class _Handshakes(RoutedMiddleware):
    """Stands before an application, which is asked about the handshakes."""

    def __init__(self, app: Flask) -> None:
        super().__init__(app.wsgi_app, {})
        self._app = app
        self._websockets: dict[str, WebSocketWSGIApplication] = {}  # by the endpoint
        app.wsgi_app = self  # type: ignore[method-assign]

    def add(self, route: _Route) -> None:
        """Put a websocket behind a rule."""
        options = dict(route.options)
        options["around"] = nested(self._within_app, options.get("around"))
        websockets = WebSocketWSGIApplication(handler_cls=route.websocket_class, **options)
        self._app.add_url_rule(
            route.rule, route.endpoint, route.view, methods=["GET"], defaults=route.defaults, websocket=True
        )
        self._websockets[route.endpoint] = websockets

    def _within_app(self, websocket: WebSocket) -> AbstractContextManager[object]:
        return self._app.app_context()

    def find(self, environ: dict[str, Any]) -> WebSocketWSGIApplication | None:
        """Return what is behind the rule that the application has for a request."""
        try:
            adapter = self._app.create_url_adapter(self._app.request_class(environ))
            if adapter is None:
                return None
            endpoint, _ = adapter.match(method="GET", websocket=True)
        except HTTPException:
            return None  # the application says so itself
        return self._websockets.get(endpoint)


def _consent(**view_args: Any) -> str:
    """Let the websocket in, and give it what it is to know of the request."""
    websocket = request.environ["ws4py.websocket"]
    websocket.view_args = view_args
    websocket.session = dict(session)
    return ""

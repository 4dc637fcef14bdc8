"""Websockets in a Django application, under WSGI.

.. code-block:: python

    # urls.py
    urlpatterns = [
        path("", index),
        websocket_path("chat/<str:room>", Chat, decorators=[login_required]),
    ]

    # wsgi.py
    application = WebSockets(get_wsgi_application())

.. code-block:: python

    class Chat(WebSocket):
        def opened(self):
            self.send(f"Welcome to {self.view_args['room']}, {self.user}")

Django answers the handshake as any request: with its middlewares, its session, its login. If it answers with a 2xx the
websocket is accepted; anything else goes to the client. ``manage.py runserver`` serves what ``WSGI_APPLICATION`` names,
and so websockets, too; see :mod:`ws4py.server.adapters` for other servers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.core.handlers.wsgi import get_path_info
from django.db import close_old_connections
from django.http import HttpRequest, HttpResponse
from django.urls import Resolver404, URLPattern, path, resolve

from ws4py.frameworks.routes import Handler, RoutedMiddleware, nested, websocket_class_of
from ws4py.server.wsgiutils import WebSocketWSGIApplication
from ws4py.websocket import WebSocket

__all__ = ["WebSockets", "websocket_path"]

View = Callable[..., Any]


def websocket_path(
    route: str,
    target: type[WebSocket] | Handler,
    kwargs: dict[str, Any] | None = None,
    name: str | None = None,
    *,
    decorators: Sequence[Callable[[View], View]] = (),
    **options: Any,
) -> URLPattern:
    """Return an element of ``urlpatterns`` for a class of websockets, or for a function of (websocket, message).

    The websocket has the route's arguments as ``view_args``, and what Django knows of the request as ``session`` and
    ``user``, where the middlewares for that are there. Old database connections are closed around each callback, as
    around each request; so there are never more of them than workers.

    :param route: as Django's ``path`` has it.
    :param kwargs: further arguments.
    :param name: for ``reverse``.
    :param decorators: of the view that answers the handshake, such as ``login_required``; the first is the innermost.
    :param options: as for :class:`~ws4py.server.wsgiutils.WebSocketWSGIApplication`: ``origins``, ``hosts``,
        ``compression``, ``protocols``, ``around``, ``manager``, limits, and so on.
    :raises TypeError: if the target is neither, or an option is unknown.
    :raises ValueError: for an option out of range.
    """
    options["around"] = nested(_with_fresh_connections, options.get("around"))
    websockets = WebSocketWSGIApplication(handler_cls=websocket_class_of(target), **options)
    view: View = _consent
    for decorator in decorators:
        view = decorator(view)
    return path(route, _View(view, websockets), kwargs, name)


class WebSockets(RoutedMiddleware):
    """Stands before Django's WSGI application, which is asked about the handshakes.

    :param application: what ``get_wsgi_application()`` returns.
    :param manager: who is to run the websockets, on servers that don't bring one.
    """

    def __init__(self, application: Callable[..., Any], manager: Any = None) -> None:
        super().__init__(application, {}, manager)
        self._manager = manager

    def find(self, environ: dict[str, Any]) -> WebSocketWSGIApplication | None:
        """Return what is behind the path of a request in ``ROOT_URLCONF``."""
        try:
            view = resolve(get_path_info(environ)).func
        except Resolver404:
            return None
        if not isinstance(view, _View):
            return None
        websockets = view.websockets
        if websockets.manager is None:
            websockets.manager = self._manager
        return websockets


class _View:
    """The view of a websocket, and what accepts its handshake."""

    def __init__(self, view: View, websockets: WebSocketWSGIApplication) -> None:
        self._view = view
        self.websockets = websockets

    def __call__(self, request: HttpRequest, **arguments: Any) -> Any:
        """Answer a handshake."""
        if "ws4py.websocket" not in request.environ:
            return HttpResponse("wsgi.py has to wrap the application: see ws4py.frameworks.django", status=501)
        return self._view(request, **arguments)


def _consent(request: HttpRequest, **arguments: Any) -> HttpResponse:
    """Let the websocket in, and give it what it is to know of the request."""
    websocket = request.environ["ws4py.websocket"]
    websocket.view_args = arguments
    websocket.session = getattr(request, "session", None)
    user = getattr(request, "user", None)
    if user is not None:
        bool(user.is_authenticated)  # looks it up now, so that the copy is no longer bound to the request
    websocket.user = copy.copy(user)
    return HttpResponse()


@contextmanager
def _with_fresh_connections(websocket: WebSocket) -> Iterator[None]:
    """Have old database connections closed around a callback."""
    close_old_connections()
    try:
        yield
    finally:
        close_old_connections()

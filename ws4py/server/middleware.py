"""WebSockets on some paths of a WSGI application, whatever framework made it.

The application is asked first. For the handshake on a path that is a websocket's, it is called as for any request: with
its session, its cookies, its login, its own rules. If it answers with a 2xx, that is its consent: the handshake is
accepted, and carries the ``Set-Cookie`` headers of that answer. Any other answer, a 401 or a redirect, goes to the
client as it is, and there is no websocket.

The websocket is there already while the application answers, as ``environ['ws4py.websocket']``: a view may set
attributes on it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ws4py.exc import HandshakeError
from ws4py.server.environ import kept_environ
from ws4py.server.routes import Routes
from ws4py.server.serveradapter import StartResponse
from ws4py.server.wsgiutils import WebSocketWSGIApplication, refuse
from ws4py.websocket import WebSocket

__all__ = ["WebSocketMiddleware"]

Application = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]


class WebSocketMiddleware:
    """A WSGI application around another one, some paths of which are websockets.

    :param application: that answers everything else, and is asked about each handshake.
    :param websockets: what is behind a path: a class of websockets, or a
        :class:`~ws4py.server.wsgiutils.WebSocketWSGIApplication`, which can have options. A path that ends with ``*``
        stands for all that begin so. The path is the whole one, ``SCRIPT_NAME`` included.
    :param manager: who is to run the websockets, on servers that don't bring one: see :mod:`ws4py.server.adapters`.
    :param ask: ask the application about each handshake. Without that it doesn't have to know the paths, and whoever
        connects is let in; cookies can still be read in ``opened()``.
    :param options: of each websocket, as for :class:`~ws4py.server.wsgiutils.WebSocketWSGIApplication`.
    """

    def __init__(
        self,
        application: Application,
        websockets: Mapping[str, Callable[..., WebSocket] | WebSocketWSGIApplication],
        manager: Any = None,
        *,
        ask: bool = True,
        **options: Any,
    ) -> None:
        self.application = application
        self.ask = ask
        targets: dict[str, WebSocketWSGIApplication] = {}
        for path, target in websockets.items():
            if not isinstance(target, WebSocketWSGIApplication):
                target = WebSocketWSGIApplication(handler_cls=target, manager=manager, **options)  # noqa: PLW2901
            elif target.manager is None:
                target.manager = manager
            targets[path] = target
        self._routes = Routes(targets)

    def find(self, environ: dict[str, Any]) -> WebSocketWSGIApplication | None:
        """Return what is behind the path of a request; None if that is no websocket. May be overridden."""
        return self._routes.find(environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""))

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request. A bad handshake gets its 4xx without the application being asked."""
        target = self.find(environ)
        if target is None:
            return self.application(environ, start_response)
        try:
            prepared = target.prepare(environ)
        except HandshakeError as error:
            return refuse(error, start_response)
        websocket = prepared.websocket
        cookies: list[tuple[str, str]] = []
        if self.ask:
            answer = _Answer(self.application, environ)
            if not answer.consents:
                prepared.server.refused(int(answer.status[:3]))
                websocket.sock = None
                environ.pop("ws4py.websocket", None)
                return answer.pass_on(start_response)
            answer.close()
            cookies = [header for header in answer.headers if header[0].lower() == "set-cookie"]
            if websocket.environ is not None:  # the application may have put things into its own
                websocket.environ.update(kept_environ(environ, target.keep_environ))
        return target.accept(prepared, environ, start_response, cookies)


class _Answer:
    """What the application says about a handshake.

    :raises Exception: whatever the application raises.
    """

    def __init__(self, application: Application, environ: dict[str, Any]) -> None:
        self.status = ""
        self.headers: list[tuple[str, str]] = []
        self._written: list[bytes] = []
        self._result: Iterable[bytes] = ()
        try:
            self._result = application(environ, self._start_response)
            self._body = iter(self._result)
            # An application that is a generator has not said anything before its first part.
            self._first = next(self._body, b"") if not self.status else b""
        except BaseException:
            environ["ws4py.websocket"].sock = None
            self.close()
            raise

    def _start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        self.status = status
        self.headers = list(headers)
        return self._written.append

    @property
    def consents(self) -> bool:
        """Whether there is to be a websocket."""
        return self.status.startswith("2")

    def close(self) -> None:
        """Let the application finish its request."""
        close = getattr(self._result, "close", None)
        if close is not None:
            close()

    def pass_on(self, start_response: StartResponse) -> Iterable[bytes]:
        """Answer the request with this."""
        start_response(self.status, self.headers)
        return _Body(itertools.chain(self._written, (self._first,), self._body), self.close)


class _Body:
    """The body of a response that somebody else made."""

    def __init__(self, parts: Iterator[bytes], close: Callable[[], None]) -> None:
        self._parts = parts
        self.close = close

    def __iter__(self) -> Iterator[bytes]:
        return self._parts

"""The statistics as a page handler of CherryPy, with its tools: sessions, authentication, its log.

.. code-block:: python

    class Root:
        stats = StatsHandler(plugin.manager)

The other way, ``cherrypy.tree.graft(StatsApplication(plugin.manager), '/stats')``, needs none of them. See
:mod:`ws4py.server.stats`.
"""

from __future__ import annotations

from typing import Any

import cherrypy

from ws4py.manager import WebSocketManager
from ws4py.server.cherrypyserver import WebSocketTool, environ_of
from ws4py.server.stats import FEED_LIMITS, TOO_MANY_VIEWERS, StatsApplication

__all__ = ["StatsHandler"]


class StatsHandler:
    """Serves what :class:`~ws4py.server.stats.StatsApplication` does, wherever it is put into the tree of handlers.

    :param manager: whose figures it serves: the plugin's.
    :param options: of the application, such as ``authorize``.
    """

    _cp_config = {"response.stream": False}  # noqa: RUF012 - this is how CherryPy reads it

    def __init__(self, manager: WebSocketManager, **options: Any) -> None:
        self.application = StatsApplication(manager, **options)
        self._manager = manager
        self._tool = WebSocketTool()

    @cherrypy.expose  # type: ignore[untyped-decorator]
    def index(self, **_: Any) -> bytes | None:
        """Serve the dashboard. Called by CherryPy."""
        return self._serve("/")

    @cherrypy.expose  # type: ignore[untyped-decorator]
    def default(self, *parts: str, **_: Any) -> bytes | None:
        """Serve what is behind a path. Called by CherryPy."""
        return self._serve("/" + "/".join(parts))

    def _serve(self, path: str) -> bytes | None:
        request, response = cherrypy.serving.request, cherrypy.serving.response
        environ = {**environ_of(request), "PATH_INFO": path}

        def start_response(status: str, headers: list[tuple[str, str]]) -> None:
            response.status = status
            for name, value in headers:
                response.headers[name] = value

        if path == "/feed":
            if not self.application.allows(environ):
                raise cherrypy.HTTPError(403, "These statistics are not for everybody")
            if not self.application.has_room:
                raise cherrypy.HTTPError(503, TOO_MANY_VIEWERS)
            self._tool.upgrade(
                handler_cls=self.application.viewer(self._manager), hosts=self.application.hosts, **FEED_LIMITS
            )
            request.hooks.attach("before_finalize", self._tool.complete)
            request.hooks.attach("after_error_response", self._tool.complete)
            request.hooks.attach("on_end_request", self._tool.start_handler, priority=100, failsafe=True)
            return None
        return b"".join(self.application(environ, start_response))

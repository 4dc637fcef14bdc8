"""An echo server on CherryPy for the Autobahn test suite: ``cherrypy_echo.py PORT``, at ``/ws``."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable

import cherrypy

from ws4py.server.cherrypyserver import WebSocketPlugin, WebSocketTool
from ws4py.websocket import EchoWebSocket

# The cases 9.* send up to 16 MiB in a message, and 65,536 fragments.
LIMITS = {"max_message_size": 32 * 1024 * 1024, "max_fragments": 100_000}


def parameters_of(function: Callable[..., object]) -> Iterable[inspect.Parameter]:
    return inspect.signature(function).parameters.values()


class Root:
    @cherrypy.expose
    def ws(self) -> None:
        """Nothing to do: the tool upgrades."""


def main() -> None:
    cherrypy.config.update(
        {
            "server.socket_host": "127.0.0.1",
            "server.socket_port": int(sys.argv[1]),
            "engine.autoreload.on": False,
            "log.screen": True,
        }
    )
    WebSocketPlugin(cherrypy.engine).subscribe()
    cherrypy.tools.websocket = WebSocketTool()
    settings = {"tools.websocket.on": True, "tools.websocket.handler_cls": EchoWebSocket}
    # The suite runs against ws4py 0.6 too, to compare: that has no limits, and refuses the names.
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters_of(WebSocketTool.upgrade)):
        from ws4py.extensions.permessage_deflate import PerMessageDeflate

        # With context takeover unless the suite asks for none, and for messages of every size.
        compression = PerMessageDeflate(False, False, threshold=0)
        settings |= {f"tools.websocket.{name}": value for name, value in LIMITS.items()}
        settings["tools.websocket.compression"] = compression
    cherrypy.quickstart(Root(), "/", config={"/ws": settings})


if __name__ == "__main__":
    main()

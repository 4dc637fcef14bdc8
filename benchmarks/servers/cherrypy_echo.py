"""An echo server on CherryPy, for this ws4py and for 0.6: ``cherrypy_echo.py PORT [OPTION=VALUE ...]``.

The options, whole numbers or None, are the plugin's.
"""

import sys
import threading

import cherrypy

from ws4py.server.cherrypyserver import WebSocketPlugin, WebSocketTool
from ws4py.websocket import EchoWebSocket


class Root:
    @cherrypy.expose
    def index(self):
        return "ws4py"

    @cherrypy.expose
    @cherrypy.tools.json_out()
    def threads(self):
        """Tell the threads' names by their numbers in the system."""
        return {str(thread.native_id): thread.name for thread in threading.enumerate()}

    @cherrypy.expose
    def ws(self):
        pass


def main():
    options = {}
    for option in sys.argv[2:]:
        name, _, value = option.partition("=")
        options[name] = None if value == "None" else int(value)
    cherrypy.config.update(
        {
            "environment": "production",
            "log.screen": False,
            "server.socket_port": int(sys.argv[1]),
            "server.socket_queue_size": 1024,
        }
    )
    WebSocketPlugin(cherrypy.engine, **options).subscribe()
    cherrypy.tools.websocket = WebSocketTool()
    config = {"/ws": {"tools.websocket.on": True, "tools.websocket.handler_cls": EchoWebSocket}}
    cherrypy.quickstart(Root(), "/", config)


if __name__ == "__main__":
    main()

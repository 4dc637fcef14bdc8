"""Structured logs: a line of JSON for each record, which says whose connection it is about.

    python examples/json_logs.py

Then connect to ws://localhost:9000/ws, with ``ws4py connect`` for example, and send ``oops``.
"""

from __future__ import annotations

import json
import logging
import sys
import time

import cherrypy

from ws4py.logs import ATTRIBUTES
from ws4py.messaging import Message
from ws4py.server.cherrypyserver import WebSocketPlugin, WebSocketTool
from ws4py.websocket import WebSocket


class JSONFormatter(logging.Formatter):
    """Writes a record as one line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{record.msecs:03.0f}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        # connection_id, address and path: records of the logger ws4py have them, others don't.
        line |= {name: value for name in ATTRIBUTES if (value := getattr(record, name, None)) is not None}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure() -> None:
    """Send the records of all loggers to the standard output. DEBUG would tell of each peer that vanishes, too."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JSONFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


class Fragile(WebSocket):
    """Echoes, and has a fault."""

    def received_message(self, message: Message) -> None:
        if str(message) == "oops":
            raise RuntimeError("this is what an error in a handler looks like")
        self.send(message.data, message.is_binary)


class Root:
    @cherrypy.expose
    def ws(self) -> None:
        """Become a websocket."""


def main(port: int = 9000) -> None:
    configure()
    WebSocketPlugin(cherrypy.engine).subscribe()
    cherrypy.tools.websocket = WebSocketTool()
    cherrypy.config.update({"server.socket_port": port, "log.screen": False})
    cherrypy.quickstart(Root(), "/", {"/ws": {"tools.websocket.on": True, "tools.websocket.handler_cls": Fragile}})


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

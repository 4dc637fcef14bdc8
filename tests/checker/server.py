"""A server in a process of its own: ``python -m tests.checker.server PORT BROKER``."""

from __future__ import annotations

import logging
import sys
from typing import Any

from ws4py.broker import Broker
from ws4py.broker.redis import RedisBroker
from ws4py.pubsub import PubSubWebSocket
from ws4py.server.threadedserver import WebSocketServer

__all__ = ["HISTORY", "make_server"]

HISTORY = {"room/*": (5000, 60.0)}


class Anybody(PubSubWebSocket):
    """Everybody may do everything, and is who the query says."""

    grace = 0.3

    def may_subscribe(self, topic: str) -> bool:
        return True

    may_publish = may_see = may_subscribe

    def opened(self) -> None:
        assert self.environ is not None
        self.name = self.environ["QUERY_STRING"]

    def identify(self, topic: str) -> tuple[str, Any] | None:
        return (self.name, None) if self.name else None


def make_server(port: int, broker: Broker) -> WebSocketServer:
    """Return a server that is to be started."""
    options: dict[str, Any] = {"broker": broker, "history": HISTORY, "drain_timeout": 0.5}
    return WebSocketServer(("127.0.0.1", port), Anybody, **options)


if __name__ == "__main__":
    logging.getLogger("ws4py").setLevel(logging.CRITICAL)
    server = make_server(int(sys.argv[1]), RedisBroker(sys.argv[2], presence_seconds=2.0))
    server.start()
    print("ready", flush=True)
    server.serve_forever()

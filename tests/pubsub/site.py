"""A server of publish and subscribe that can be stopped, and started again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.helpers import PATIENCE
from tests.serving import free_port
from ws4py.broker import Broker, MemoryBroker, Publication, Retention
from ws4py.framing import OPCODE_TEXT
from ws4py.pubsub import PubSubWebSocket, serve_client
from ws4py.server.threadedserver import WebSocketServer

PAGE = b"""<!doctype html><title>Page</title><link rel="icon" href="data:,"><script type="module">
import {PubSub} from "/pubsub.js";
window.open_ = (options = {}) => {
    window.states = [];
    window.others = [];
    window.pubsub = new PubSub("/ws", {
        initial: 50, onstate: (state, detail) => states.push([state, detail.code ?? null]),
        onother: (message) => others.push(message), ...options,
    });
};
window.follow = (topic, options = {}) => {
    const log = window[topic] = {messages: [], offsets: [], subscribed: [], errors: [], present: null};
    log.subscription = pubsub.subscribe(topic, {
        onsubscribed: (recovery) => log.subscribed.push(recovery),
        onmessage: (data, offset) => { log.messages.push(data); log.offsets.push(offset ?? null); },
        onpresence: (present) => { log.present = [...present.keys()].sort(); },
        onerror: (error) => log.errors.push(error.code),
        ...options,
    });
};
window.sent = [];
window.say = (topic, text) => pubsub.publish(topic, text).then(
    () => sent.push(text), (error) => sent.push(`${text} ${error.code}`));
</script>"""


class Room(PubSubWebSocket):
    grace = 0.0
    allowed = True

    def may_subscribe(self, topic: str) -> bool:
        return self.allowed and not topic.startswith("private")

    may_publish = may_see = may_subscribe

    def identify(self, topic: str) -> tuple[str, Any] | None:
        return (f"somebody {self.peer_address[1]}", None) if topic.startswith("room") else None

    def received_request(self, request: dict[str, Any]) -> None:
        if request["type"] == "sing":
            super().received_request(request)
        self.send_json({"type": "echo", "of": request["type"]})


def page(environ: dict[str, Any], start_response: Callable[..., object]) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(PAGE)))])
    return [PAGE]


class Site:
    """A server that can be stopped and started again, on one port and with one broker."""

    def __init__(self) -> None:
        self.port = free_port()
        self.broker = MemoryBroker()
        self.kind: type[PubSubWebSocket] = Room
        self._server: WebSocketServer | None = None

    @property
    def manager(self) -> Any:
        assert self._server is not None
        return self._server.manager

    def start(self) -> None:
        self._server = WebSocketServer(
            ("127.0.0.1", self.port),
            {"/ws": self.kind},
            applications={"/page": page, "/pubsub.js": serve_client},
            broker=self.broker,
            history={"room*": (100, 60.0)},
            drain_timeout=0.5,
        )
        self._server.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.join(PATIENCE)
            self._server = None


def publish_by(broker: Broker, text: str, topic: str = "room") -> None:
    """Publish while there may be no server."""
    broker.publish(Publication(topic, OPCODE_TEXT, text.encode()), Retention(100, 60.0))

"""Two managers of greenlets that share a Redis: ``gevent_redis.py patched|unpatched URL``.

It says, as JSON, what the peers of their websockets have got.
"""

import json
import sys

if sys.argv[1] == "patched":
    from gevent import monkey

    monkey.patch_all()

import threading

import gevent
from gevent import socket

from ws4py.server.geventmanager import GreenletManager
from ws4py.websocket import WebSocket

PATIENCE = 20.0


class OnTopic(WebSocket):
    """Is on a topic from the beginning."""

    def opened(self) -> None:
        self.subscribe("news")
        self.send("opened")


def receive(peer: socket.socket) -> str:
    """Return a short text."""
    head = peer.recv(2, socket.MSG_WAITALL)
    return str(peer.recv(head[1], socket.MSG_WAITALL), "utf-8")


managers = [GreenletManager(broker=sys.argv[2]) for _ in range(2)]
peers = []
for manager in managers:
    manager.start()
    ours, theirs = socket.socketpair()
    theirs.settimeout(PATIENCE)
    manager.add(OnTopic(ours))
    assert receive(theirs) == "opened"
    assert manager.broker.wait_subscribed(PATIENCE)
    peers.append(theirs)

got = []
with gevent.Timeout(PATIENCE):
    for number, manager in enumerate(managers):
        manager.publish("news", f"publication {number}")
        got.append([receive(peer) for peer in peers])
        manager.broadcast(f"broadcast {number}")
        got.append([receive(peer) for peer in peers])
    for peer in peers:
        peer.close()
    for manager in managers:
        manager.stop()
        manager.join()

names = [thread.name for thread in threading.enumerate() if thread.name.startswith("Redis")]
print(json.dumps({"got": got, "left": names, "states": [manager.state for manager in managers]}))

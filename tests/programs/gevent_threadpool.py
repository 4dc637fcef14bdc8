"""A manager of greenlets in a patched process, while threads of gevent's pool ask for its statistics.

It prints what was refused, and how many faults there were.
"""

from gevent import monkey

monkey.patch_all()

import socket  # noqa: E402
import sys  # noqa: E402

import gevent  # noqa: E402

from ws4py.server.geventmanager import GreenletManager  # noqa: E402
from ws4py.websocket import EchoWebSocket  # noqa: E402

sys.setswitchinterval(1e-5)
manager = GreenletManager(drain_timeout=1)
manager.start()
ended = False


def ask() -> None:
    while not ended:
        manager.stats()


threads = gevent.get_hub().threadpool
asking = [threads.spawn(ask) for _ in range(2)]
for _ in range(500):
    ours, theirs = socket.socketpair()
    theirs.settimeout(10)
    manager.add(EchoWebSocket(ours))
    theirs.sendall(b"\x81\x81\0\0\0\0x")
    assert theirs.recv(3) == b"\x81\x01x"
    theirs.close()
ended = True
for thread in asking:
    thread.get()
threads.spawn(manager.count_refusal, 503).get()
manager.stop()
manager.join(10)
stats = manager.stats()
print(dict(stats.connections.refused), stats.faults)

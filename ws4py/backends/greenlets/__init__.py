"""Greenlets of gevent: the hub polls, and a greenlet for each websocket runs its callbacks.

All of it happens in the thread of one hub; another thread may send. The hub watches the sockets; what has become ready
in one round of its loop is read as one batch, each connection's greenlet has its turn, and what they have sent leaves
as another batch.
"""

from ws4py.backends.greenlets.backend import Greenlets
from ws4py.backends.greenlets.sockets import close_socket, take_socket

__all__ = ["Greenlets", "close_socket", "take_socket"]

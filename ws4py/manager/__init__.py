"""The manager of websockets: one thread for all sockets, a pool of workers for the callbacks."""

from ws4py.manager.limits import Limits
from ws4py.manager.pollers import EPollPoller, KQueuePoller, Poller, SelectPoller
from ws4py.manager.selector import WebSocketManager

__all__ = ["EPollPoller", "KQueuePoller", "Limits", "Poller", "SelectPoller", "WebSocketManager"]

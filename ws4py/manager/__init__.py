"""The manager of websockets: one thread for all sockets, a pool of workers for the callbacks."""

from ws4py.manager.limits import Limits
from ws4py.manager.pollers import EPollPoller, KQueuePoller, Poller, SelectPoller
from ws4py.manager.selector import WebSocketManager

__all__ = ["EPollPoller", "KQueuePoller", "Limits", "Poller", "SelectPoller", "WebSocketManager"]


# --- names of 0.6 -----------------------------------------------------------------------------------------------------

import logging

from ws4py.logs import format_addresses  # noqa: F401

logger = logging.getLogger("ws4py")

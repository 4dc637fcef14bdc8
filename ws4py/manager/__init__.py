"""The manager of websockets: who is open, and who runs their callbacks."""

from ws4py.engine.pollers import EPollPoller, KQueuePoller, Poller, PollPoller, SelectPoller
from ws4py.limits import Limits
from ws4py.manager.manager import WebSocketManager

__all__ = ["EPollPoller", "KQueuePoller", "Limits", "PollPoller", "Poller", "SelectPoller", "WebSocketManager"]


# --- names of 0.6 -----------------------------------------------------------------------------------------------------

import logging

from ws4py.logs import format_addresses  # noqa: F401

logger = logging.getLogger("ws4py")

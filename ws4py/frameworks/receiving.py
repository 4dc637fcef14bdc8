"""Functions that receive in a loop, each in a thread of its own: for code that was written so.

A websocket's callbacks hand its messages on to the function, which waits for them. Where the process is patched by
gevent, a thread is a greenlet.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from ws4py.closing import State
from ws4py.exc import ConnectionClosed
from ws4py.messaging import CloseCode, Message
from ws4py.websocket import WebSocket

__all__ = ["WORKERS", "Receiver", "ReceivingWebSocket"]

logger = logging.getLogger("ws4py")

WAITING: Final = 32
"""How many messages wait for their function; past them the peer is pushed back."""

WORKERS: Final = 8
"""How many workers may wait for functions that do not receive."""

LOOK_INTERVAL: Final = 1.0
"""How often, in seconds, a worker that waits for a function looks whether the peer is gone: nothing says so to it."""


class Receiver:
    """What the function is given. Its methods are for the function's thread; ``send`` and ``close`` for any.

    :ivar environ: of the request.
    :ivar subprotocol: that was negotiated; None if none was.
    """

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._changed = threading.Condition()
        self._messages: deque[str | bytes] = deque()
        self._ended = False  # nothing more comes
        self._left = False  # nothing more is taken in: the function has returned, or was too slow
        self._code: int | None = None
        self._reason = ""
        self.environ = websocket.environ
        self.subprotocol = websocket.subprotocol

    @property
    def connected(self) -> bool:
        """Whether the websocket is open."""
        return not self._ended

    def receive(self, timeout: float | None = None) -> str | bytes | None:
        """Return the next message: a str for a text, bytes for a binary one; None after ``timeout`` seconds.

        :raises ConnectionClosed: at the end; it says how the peer has closed.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._messages or self._ended, timeout):
                return None
            if not self._messages:
                raise ConnectionClosed("The websocket has ended", code=self._code, reason=self._reason)
            self._changed.notify_all()
            return self._messages.popleft()

    def send(self, data: str | bytes) -> None:
        """Send a message: a text for a str, a binary one for bytes.

        :raises ConnectionClosed: if the websocket is closing or closed.
        """
        self._websocket.send(data, isinstance(data, (bytes, bytearray, memoryview)))

    def close(self, reason: int | None = None, message: str | None = None) -> None:
        """Close the websocket, and end the function by :class:`ConnectionClosed`.

        :param reason: the code; 1000 by default.
        :param message: what goes with it.
        :raises ConnectionClosed: always.
        """
        code = CloseCode.NORMAL_CLOSURE.value if reason is None else reason
        self._websocket.close(code, message or "")
        raise ConnectionClosed("The function has closed the websocket", code=code, reason=message or "")

    # --- for callbacks ------------------------------------------------------------------------------------------------

    def put(self, message: str | bytes) -> None:
        """Hand a message on. Waits for the function while too many do, but not if the peer is gone.

        A function that receives nothing for as long as a ``send`` would wait for a peer is as slow a consumer: its
        websocket is closed with 1013.
        """
        deadline = time.monotonic() + self._websocket._writer().send_timeout
        with self._changed:
            while len(self._messages) >= WAITING and not self._left and not self._is_lost:
                patience = deadline - time.monotonic()
                if patience <= 0:
                    break
                self._changed.wait(min(patience, LOOK_INTERVAL))
            if self._left:
                return
            if len(self._messages) < WAITING:
                self._messages.append(message)
                self._changed.notify_all()
                return
            self._left = True  # what is missing here is the end of what there was
        if not self._is_lost:
            logger.warning("The function of %r does not receive", self._websocket)
            self._websocket.close(CloseCode.TRY_AGAIN_LATER, "The function does not receive")

    @property
    def _is_lost(self) -> bool:
        """Whether the connection is at its end, although ``closed()`` is still to come."""
        return self._websocket.stream.closing_handshake.state is State.CLOSED

    def end(self, code: int, reason: str) -> None:
        """The websocket has ended."""
        with self._changed:
            self._code, self._reason, self._ended = code, reason, True
            self._changed.notify_all()

    def leave(self) -> None:
        """The function has returned."""
        with self._changed:
            self._left = True
            self._messages.clear()
            self._changed.notify_all()


class ReceivingWebSocket(WebSocket):
    """Has a function receive its messages, in a thread.

    :ivar function: the function.
    """

    function: Callable[[Receiver], object]
    _receiver: Receiver

    def opened(self) -> None:
        """Start the thread."""
        self._receiver = Receiver(self)
        threading.Thread(target=self._handle, name=f"{type(self).__name__}-receiver", daemon=True).start()

    def _handle(self) -> None:
        receiver = self._receiver
        code = CloseCode.NORMAL_CLOSURE
        try:
            self.function(receiver)
        except ConnectionClosed:
            pass
        except BaseException:
            logger.exception("The function of %r raised", self)
            code = CloseCode.INTERNAL_ERROR
        finally:
            receiver.leave()
            self.close(code)

    def received_message(self, message: Message) -> None:
        """Hand a message on; wait if the function is far behind."""
        self._receiver.put(message.text if message.is_text else message.data)

    def closed(self, code: int, reason: str | bytes | None = None) -> None:
        """Say that nothing more comes."""
        if hasattr(self, "_receiver"):  # it was opened
            self._receiver.end(code, self.close_reason or "")

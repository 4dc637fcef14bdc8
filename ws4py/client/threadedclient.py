"""A client that runs in a thread of its own."""

from __future__ import annotations

import logging
import threading

from ws4py.backends.ports import forks
from ws4py.client.base import WebSocketBaseClient

__all__ = ["WebSocketClient"]

logger = logging.getLogger("ws4py")


class ClientThread(threading.Thread):
    """Runs a client. To wait for its end, wait for ``done``: join() of Python 3.11, say, forgets it at a Ctrl-C."""

    def __init__(self, client: WebSocketBaseClient, daemon: bool) -> None:
        super().__init__(target=client.run, name="WebSocketClient", daemon=daemon)
        self.done = threading.Event()
        self.forks = forks()

    def run(self) -> None:
        """Run the client until its end. What a callback raises that is no Exception ends it, and nothing else."""
        try:
            super().run()
        except BaseException:
            logger.exception("The thread of a client has ended")
        finally:
            self.done.set()


class WebSocketClient(WebSocketBaseClient):
    """A :class:`~ws4py.client.WebSocketBaseClient` whose callbacks are called by a thread that :meth:`connect`
    starts."""

    _th: ClientThread
    _client_previous: ClientThread | None
    _client_pulled = False

    def _prepare(self) -> None:
        before: ClientThread | None = getattr(self, "_th", None)
        # __init__ may be run again by a callback: until the new thread starts, it is the old one that is waited for.
        self._client_previous = before if threading.current_thread() is before else None
        self._th = ClientThread(self, self._client_fresh or self._th.daemon)

    @property
    def daemon(self) -> bool:
        """Whether the process may end while the thread runs: True, unless set before :meth:`connect`."""
        return self._th.daemon

    @daemon.setter
    def daemon(self, flag: bool) -> None:
        self._th.daemon = flag

    def handshake_ok(self) -> None:
        """Start the thread. It calls :meth:`opened` first."""
        if self._th.forks != forks():  # a thread that was made before a fork can't be started, from 3.13 on
            self._th = ClientThread(self, self._th.daemon)
        self._th.start()

    def run_forever(self) -> None:
        """Wait until the websocket has ended and :meth:`closed` has returned. Ctrl-C interrupts it with
        KeyboardInterrupt; it can be called again then.

        A websocket that was connected again, in :meth:`closed` say, is waited for too.

        :raises RuntimeError: if it was never connected.
        """
        waited: ClientThread | None = None
        while True:
            newest = self._th
            thread = self._client_previous if newest.ident is None else newest
            if thread is None and waited is None:
                raise RuntimeError("This websocket is not connected")
            if thread is None or thread is waited or thread is threading.current_thread():
                return
            thread.done.wait()
            waited = thread

    def _wait_for_end(self) -> None:
        thread = self._th
        if thread is threading.current_thread() or thread.ident is None:
            return
        limits = self._limits or {}
        if not thread.done.wait(limits["send_timeout"] + limits["close_timeout"]):  # a callback blocks
            self.close_connection()

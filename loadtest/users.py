"""A user of locust who has a websocket: what happens to it is reported by locust's own events.

Its requests, in locust's statistics and on its page, are of the type ``WS``: ``connect`` (with the whole handshake),
``round trip`` (from a message to its answer), ``delivery`` (from the stamp in a broadcast to its arrival here),
``close`` (from our Close to the server's). A websocket that the server, or the network, ends is a failure of ``close``.
"""

from __future__ import annotations

import functools
import json
import logging
import ssl
import time
from typing import Any

import gevent
from gevent.event import AsyncResult
from locust import User

from loadtest.tally import tally_of
from ws4py.client.geventclient import WebSocketClient
from ws4py.exc import WebSocketException
from ws4py.messaging import Message

__all__ = ["WebSocketUser"]

logger = logging.getLogger(__name__)

ANSWER_TIMEOUT = 10.0
CLOSE_TIMEOUT = 10.0
RETRY = 1.0  # seconds after which a user that could not connect tries again


class LostError(Exception):
    """A websocket ended that was to stay."""


class AnswerError(Exception):
    """The answer to a message did not come, or is another one."""


class _Client(WebSocketClient):
    """The websocket of a user."""

    def __init__(self, user: WebSocketUser, url: str, **options: Any) -> None:
        super().__init__(url, proxy=None, ping_interval=None, close_timeout=CLOSE_TIMEOUT, **options)
        self._user = user

    def received_message(self, message: Message) -> None:
        self._user.received(message)

    def closed(self, code: int, reason: str | bytes | None = None) -> None:
        self._user.ended(self, code)


@functools.lru_cache(maxsize=1)
def _tls_context(verify: str) -> ssl.SSLContext:
    """Return one context for all: to make one takes longer than a handshake."""
    context = ssl.create_default_context(cafile=verify if verify not in ("", "no") else None)
    if verify == "no":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class WebSocketUser(User):
    """Has a websocket while it runs, and makes another one when it is lost.

    The tasks of a subclass use :meth:`ask` and :meth:`send`, and may override :meth:`heard`. Its host is given to
    locust as for HTTP: ``http://...`` or ``https://...``.
    """

    abstract = True

    path = "/echo"
    """Where on the host its websocket is."""

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self.websocket: _Client | None = None
        self._answer: AsyncResult | None = None
        self._open = False
        self._leaving = False
        self._tally = tally_of(environment)

    # --- what locust calls --------------------------------------------------------------------------------------------

    def on_start(self) -> None:
        """Connect, and try again until that succeeds."""
        while not self.connect():
            gevent.sleep(RETRY)

    def on_stop(self) -> None:
        """Close the websocket, and wait for the server's Close."""
        self.disconnect()

    # --- what tasks call ----------------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether there is a websocket, open."""
        return self._open

    @property
    def url(self) -> str:
        """Of the websocket."""
        host = self.host or ""
        return host.replace("http", "ws", 1).rstrip("/") + self.path

    def connect(self) -> bool:
        """Connect, and report how long that took; tell whether it succeeded."""
        options = self.environment.parsed_options
        arguments: dict[str, Any] = {}
        if getattr(options, "compress", False):
            arguments["compression"] = True
        if self.url.startswith("wss"):
            arguments["ssl_context"] = _tls_context(getattr(options, "verify", ""))
        websocket = _Client(self, self.url, **arguments)
        self._leaving = False
        self.websocket = websocket  # a broadcast may come before connect() returns
        begin = time.perf_counter()
        try:
            websocket.connect()
        except (OSError, WebSocketException) as error:
            self.websocket = None
            self.report("connect", begin, error=error)
            return False
        if self.websocket is websocket:  # else it has ended already
            self._open = True
            self._tally.opened()
        self.report("connect", begin)
        return self._open

    def disconnect(self) -> None:
        """Close the websocket, and report how long the server's Close took."""
        websocket = self.websocket
        if websocket is None or not self._open:  # a user may be told to leave while it connects
            return
        self._leaving = True
        begin = time.perf_counter()
        websocket.close()
        with gevent.Timeout(CLOSE_TIMEOUT + 1.0, False):
            websocket.run_forever()
        error = None if websocket.close_code == 1000 else LostError(f"closed with {websocket.close_code}")
        self.report("close", begin, error=error)

    def send(self, payload: str | bytes) -> bool:
        """Send a message; tell whether that succeeded. If not, it is reported, and there is no websocket any more."""
        if not self._open and not self.connect():
            gevent.sleep(RETRY)
            return False
        assert self.websocket is not None
        begin = time.perf_counter()
        try:
            self.websocket.send(payload, isinstance(payload, bytes))
        except (OSError, WebSocketException) as error:
            self.report("send", begin, error=error)
            gevent.sleep(RETRY)
            return False
        return True

    def ask(self, payload: str, name: str = "round trip") -> str | None:
        """Send a message and wait for the next one that :meth:`heard` does not keep; report how long that took.

        :returns: the answer, None if there is none.
        """
        answer = self._answer = AsyncResult()
        begin = time.perf_counter()
        if not self.send(payload):
            return None
        error: Exception | None = None
        text: str | None = None
        try:
            text = answer.get(timeout=ANSWER_TIMEOUT)
        except gevent.Timeout:
            error = AnswerError(f"no answer in {ANSWER_TIMEOUT:g} s")
        except LostError as lost:
            error = lost
        finally:
            self._answer = None
        self.report(name, begin, len(text or ""), error)
        return text

    def report(self, name: str, begin: float, length: int = 0, error: Exception | None = None) -> None:
        """Report something that began at a time of ``time.perf_counter`` as a request of locust."""
        self._fire(name, (time.perf_counter() - begin) * 1000, length, error)

    def _fire(self, name: str, milliseconds: float, length: int = 0, error: Exception | None = None) -> None:
        self.environment.events.request.fire(
            request_type="WS",
            name=name,
            response_time=milliseconds,
            response_length=length,
            exception=error,
            context=self.context(),
        )

    # --- what the websocket calls -------------------------------------------------------------------------------------

    def received(self, message: Message) -> None:
        """Called with each message: it is a broadcast, an answer, or neither."""
        text = str(message)
        if self.heard(text):
            return
        if self._answer is not None and not self._answer.ready():
            self._answer.set(text)

    def heard(self, text: str) -> bool:
        """Keep a message that is no answer, if this is one: a broadcast. Its delay is reported."""
        if not text.startswith('{"news"'):
            return False
        news = json.loads(text)
        delay = (time.time() - news["at"]) * 1000
        self._tally.delivered(news["news"], delay, news["at"])
        self._fire("delivery", delay, len(text))
        return True

    def ended(self, websocket: WebSocketClient, code: int) -> None:
        """Called when a websocket has ended."""
        if websocket is not self.websocket:
            return
        self.websocket = None
        if self._open:
            self._open = False
            self._tally.closed(lost=not self._leaving)
        if not self._leaving:
            error = LostError(f"lost: {code}")
            if self._answer is not None and not self._answer.ready():
                self._answer.set_exception(error)
            self._fire("close", 0.0, 0, error)

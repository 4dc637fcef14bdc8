"""Runs code that receives in a loop, as it was written for Flask-Sock and for gevent-websocket, without a change.

EACH WEBSOCKET TAKES A THREAD for as long as it lives (under gevent: a greenlet), as it did there. It is a beginning:
what is rewritten as callbacks takes none. See ``docs/moving.rst``.
"""

import logging
import queue
import threading

from flask import current_app

from ws4py import ConnectionClosed, State, WebSocket, WebSocketWSGIApplication
from ws4py.frameworks.flask import WebSockets

logger = logging.getLogger(__name__)
END = object()


class Loop(WebSocket):
    """A websocket that :meth:`handle` reads, in a thread of its own.

    If that is 64 messages behind the peer, the peer is pushed back; a worker of the manager waits meanwhile.
    """

    def handle(self):
        """Receive and send; the websocket is closed when this returns, and with 1011 if it raises."""
        raise NotImplementedError

    def opened(self):
        self._messages = queue.Queue(64)
        self._left = False
        threading.Thread(target=self._run, daemon=True).start()

    def received_message(self, message):
        self._put(message.text if message.is_text else message.data)

    def closed(self, code, reason=None):
        self._put(END)

    def receive(self, timeout=None):
        """Return the next message, or None if there is none in so many seconds.

        :raises ConnectionClosed: when the websocket has ended, and all messages have been received.
        """
        try:
            message = self._messages.get(block=timeout != 0, timeout=timeout or None)
        except queue.Empty:
            return None
        if message is END:
            self._messages.put(END)  # for the next call
            raise ConnectionClosed(code=self.close_code, reason=self.close_reason)
        return message

    def _put(self, message):
        if not self._left:
            self._messages.put(message)

    def _run(self):
        code = 1000
        try:
            self.handle()
        except ConnectionClosed:
            pass
        except Exception:
            logger.exception("The loop of a websocket has ended")
            code = 1011
        finally:
            self._left = True
            while not self._messages.empty():  # a callback that waits to put a message can go on
                self._messages.get_nowait()
            self.close(code)


# --- Flask-Sock -------------------------------------------------------------------------------------------------------


class SockFace:
    """What a function of Flask-Sock is called with."""

    def __init__(self, loop):
        self._loop = loop
        self.receive = loop.receive

    def send(self, data):
        self._loop.send(data, binary=isinstance(data, bytes))

    def close(self, reason=None, message=None):
        self._loop.close(reason or 1000, message or "")

    @property
    def connected(self):
        return self._loop.state is State.OPEN


class Sock:
    """What Flask-Sock has under this name. Options are those of ``ws4py.frameworks.flask.WebSockets``."""

    def __init__(self, app=None, **options):
        self._websockets = WebSockets(app, **options)
        self.init_app = self._websockets.init_app

    def route(self, rule, **options):
        def decorate(function):
            class Handled(Loop):
                def opened(self):
                    self._app = current_app._get_current_object()
                    super().opened()

                def handle(self):
                    with self._app.request_context(self.environ):
                        function(SockFace(self), **self.view_args)

            options.setdefault("endpoint", function.__name__)
            self._websockets.route(rule, **options)(Handled)
            return function

        return decorate


# --- gevent-websocket -------------------------------------------------------------------------------------------------


class GeventFace:
    """What is in ``environ['wsgi.websocket']``."""

    def __init__(self, loop):
        self._loop = loop
        self.environ = loop.environ

    def receive(self):
        try:
            return self._loop.receive()
        except ConnectionClosed:
            return None

    def send(self, message, binary=None):
        self._loop.send(message, binary=not isinstance(message, str) if binary is None else binary)

    def close(self, code=1000, message=b""):
        self._loop.close(code, message)

    @property
    def closed(self):
        return self._loop.state is not State.OPEN


def with_websockets(application, **options):
    """Return an application that is called with ``environ['wsgi.websocket']`` for each handshake."""

    class Handled(Loop):
        def handle(self):
            environ = {**self.environ, "wsgi.websocket": GeventFace(self)}
            for _ in application(environ, lambda *arguments: None) or ():
                pass

    websockets = WebSocketWSGIApplication(handler_cls=Handled, answer=True, **options)

    def switch(environ, start_response):
        asked = environ.get("HTTP_UPGRADE", "").lower() == "websocket"
        return (websockets if asked else application)(environ, start_response)

    return switch

"""Publish and subscribe for browsers: a protocol of a few JSON messages over a websocket.

:class:`PubSubWebSocket` is what an application subclasses on a server; :data:`CLIENT` is the file that a page loads,
and :func:`serve_client` a WSGI application that answers with it.
:class:`ws4py.pubsub.client.PubSubClient` is a client in Python. ``docs/pubsub.rst`` has the protocol.
"""

from ws4py.pubsub.protocol import Refused
from ws4py.pubsub.script import CLIENT, serve_client
from ws4py.pubsub.websocket import PubSubWebSocket

__all__ = ["CLIENT", "PubSubWebSocket", "Refused", "serve_client"]

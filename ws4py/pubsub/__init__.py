"""Publish and subscribe for browsers: a protocol of a few JSON messages over a websocket.

:class:`PubSubWebSocket` is what an application subclasses on a server. ``docs/pubsub.rst`` has the protocol.
"""

from ws4py.pubsub.websocket import PubSubWebSocket, Refused

__all__ = ["PubSubWebSocket", "Refused"]

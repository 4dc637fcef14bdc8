"""The messages between a client and a :class:`~ws4py.pubsub.PubSubWebSocket`: one JSON object each, in a text message.

``docs/pubsub.rst`` describes them for who writes a client. Nothing here sends or waits.
"""

from __future__ import annotations

import base64
import json
from typing import Any, Final

from ws4py.broker import MAX_KEY_LENGTH
from ws4py.framing import OPCODE_TEXT
from ws4py.subscriptions import Position, Publication

__all__ = [
    "MAX_ID",
    "MAX_TOPIC",
    "BadRequest",
    "Refused",
    "Request",
    "checked_text",
    "encode",
    "encode_publication",
    "parse",
    "presence_topic",
    "read_id",
    "read_key",
    "read_last",
    "read_since",
    "read_topic",
]

MAX_TOPIC: Final = 200
"""How many bytes of UTF-8 the name of a topic has at most, for a client."""
MAX_ID: Final = 64
"""How many characters the id of a request has at most."""
MAX_OFFSET: Final = 2**53 - 1
"""The greatest integer that JavaScript is sure of (RFC 8259, section 6)."""

Request = dict[str, Any]

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class BadRequest(ValueError):
    """A message of a client is none of the protocol's.

    :param text: what is wrong, for people.
    """


class Refused(Exception):
    """What a client asks for is not done: an application raises it, and a client in Python gets it.

    :param text: why, for people.
    :param code: of the error.
    """

    def __init__(self, text: str, code: str = "refused") -> None:
        super().__init__(text)
        self.code = code


def encode(message: dict[str, Any]) -> str:
    """Return the text of a message."""
    return _encode(message)


def encode_publication(publication: Publication) -> str:
    """Return the text of the message that brings a publication."""
    topic, opcode, payload, position = publication
    message: dict[str, Any] = {"type": "message", "topic": topic}
    if position is not None:
        message["offset"] = position.offset
    if opcode == OPCODE_TEXT:
        message["data"] = payload.decode(errors="replace")
    else:
        message["binary"] = base64.b64encode(payload).decode()
    return _encode(message)


def presence_topic(topic: str) -> str:
    """Return the topic to which it is published who joins and leaves. No client can name it."""
    return f"\x01{topic}"


def parse(data: bytes) -> Request:
    """Return the request in a text message: an object that has a type.

    :raises BadRequest: if it is none.
    """
    try:
        request = json.loads(data)
    except (ValueError, RecursionError):
        raise BadRequest("This is not JSON") from None
    if not isinstance(request, dict) or not isinstance(request.get("type"), str):
        raise BadRequest("A request is a JSON object with a type")
    return request


def read_id(request: Request) -> int | str | None:
    """Return the id of a request, which its answer has; None if it has none.

    :raises BadRequest: for what is no id; so do the others.
    """
    value = request.get("id")
    if value is None or (type(value) is int and abs(value) <= MAX_OFFSET):
        return value
    return checked_text("id", value, MAX_ID)


def read_topic(request: Request) -> str:
    """Return the topic of a request: printable characters, and spaces."""
    topic = checked_text("topic", request.get("topic"), MAX_TOPIC)
    if not topic or not topic.isprintable() or len(topic.encode()) > MAX_TOPIC:
        raise BadRequest(f"topic has 1 to {MAX_TOPIC} bytes in UTF-8, and no control characters")
    return topic


def read_since(request: Request) -> Position | None:
    """Return the position of a request; None if it has none."""
    value = request.get("since")
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2:
        raise BadRequest("since is [epoch, offset]")
    epoch, offset = value
    if type(offset) is not int or not 0 <= offset <= MAX_OFFSET:
        raise BadRequest("An offset is an integer, not below 0")
    return Position(checked_text("An epoch", epoch, 64), offset)


def read_last(request: Request, most: int) -> int:
    """Return how many messages a request wants to begin with, but not more than ``most``."""
    value = request.get("last", 0)
    if type(value) is not int or value < 0:
        raise BadRequest("last is an integer, not below 0")
    return min(value, most)


def read_key(request: Request) -> str | None:
    """Return the key of a publication; None if it has none."""
    value = request.get("key")
    if value is None:
        return None
    key = checked_text("key", value, MAX_KEY_LENGTH)
    if not key:
        raise BadRequest("key can't be empty")
    return key


def checked_text(name: str, value: object, longest: int | None = None) -> str:
    """Return a string that has UTF-8.

    :param longest: how many characters it has at most.
    """
    if not isinstance(value, str):
        raise BadRequest(f"{name} must be a string")
    if longest is not None and len(value) > longest:
        raise BadRequest(f"{name} has at most {longest} characters")
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON can spell half a character
        raise BadRequest(f"{name} is not valid Unicode") from None
    return value

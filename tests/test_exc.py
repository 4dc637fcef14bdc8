"""The exceptions: what they are besides exceptions of ours, which is what programs catch."""

from __future__ import annotations

import copy
import pickle

import pytest

from ws4py import exc
from ws4py.exc import HandshakeError, WebSocketException


@pytest.mark.parametrize("name", exc.__all__)
def test_each_is_a_websocket_exception(name: str) -> None:
    assert issubclass(getattr(exc, name), WebSocketException)


def test_all_are_exported() -> None:
    defined = {name for name, value in vars(exc).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert defined == set(exc.__all__)


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("ConnectionClosed", RuntimeError),
        ("SlowConsumer", exc.ConnectionClosed),
        ("ManagerError", RuntimeError),
        ("InvalidCloseCode", ValueError),
        ("TextFrameEncodingException", ValueError),
    ],
)
def test_what_they_are_besides(name: str, base: type[Exception]) -> None:
    assert issubclass(getattr(exc, name), base)


def test_a_handshake_error_carries_the_answer() -> None:
    error = HandshakeError("no", 403, [("Name", "value")])
    assert (str(error), error.msg, error.status, error.headers) == ("no", "no", 403, (("Name", "value"),))
    assert (HandshakeError("no").status, HandshakeError("no").headers) == (400, ())


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_handshake_error_can_be_copied(protocol: int) -> None:
    error = HandshakeError("no", 403, [("Name", "value")])
    for other in (copy.copy(error), pickle.loads(pickle.dumps(error, protocol))):
        assert (str(other), other.status, other.headers) == ("no", 403, (("Name", "value"),))

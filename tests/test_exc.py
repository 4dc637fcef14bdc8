"""The exceptions: what they are besides exceptions of ours, which is what programs catch."""

from __future__ import annotations

import copy
import pickle

import pytest

from ws4py import exc
from ws4py.exc import ConnectionClosed, HandshakeError, SlowConsumer, WebSocketException


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


def test_a_connection_that_is_closed_has_a_code_and_a_reason() -> None:
    bare = ConnectionClosed("gone")
    assert (str(bare), bare.args, bare.code, bare.reason) == ("gone", ("gone",), None, None)
    told = ConnectionClosed("gone", code=4000, reason="so \x1blong")
    assert (told.args, told.code, told.reason) == (("gone",), 4000, "so \x1blong")
    assert str(told) == r"gone (closed with 4000: 'so \x1blong')"
    assert str(ConnectionClosed("gone", code=1005, reason="")) == "gone (closed with 1005)"
    assert str(ConnectionClosed(code=1001)) == "closed with 1001"
    assert str(ConnectionClosed()) == ""


@pytest.mark.parametrize("kind", [ConnectionClosed, SlowConsumer])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_can_be_copied_with_them(kind: type[ConnectionClosed], protocol: int) -> None:
    for error in (kind("gone"), kind("gone", code=1001, reason="so long")):
        for other in (copy.copy(error), pickle.loads(pickle.dumps(error, protocol))):
            assert type(other) is kind
            assert (str(other), other.args, other.code) == (str(error), error.args, error.code)
            assert other.reason == error.reason

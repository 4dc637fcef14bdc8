"""The header Sec-WebSocket-Extensions, and the interface of extensions, by one of the tests' own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest

from ws4py.exc import HandshakeError, InvalidBytesError
from ws4py.extensions import Codec, Extension, Parameters
from ws4py.extensions.header import format_extension, parse_extensions
from ws4py.extensions.permessage_deflate import PerMessageDeflate, with_compression
from ws4py.framing import RSV1, build_frame
from ws4py.handshake import (
    Acceptance,
    Response,
    accept_key,
    build_request,
    check_response,
    generate_key,
    negotiate,
    offer_extensions,
)
from ws4py.streaming import Stream

KEY = b"\x37\xfa\x21\x3d"


# --- the header -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "parsed"),
    [
        ("", []),
        (" , ,", []),
        ("a", [("a", ())]),
        ("a,b , c", [("a", ()), ("b", ()), ("c", ())]),
        ("a;b", [("a", (("b", None),))]),
        (" a ; b = c ;\td", [("a", (("b", "c"), ("d", None)))]),
        ('a; b="c"; d="e\\f"', [("a", (("b", "c"), ("d", "ef")))]),
        ("a;b=1;b=2", [("a", (("b", "1"), ("b", "2")))]),
        ("a; b=1, a; c", [("a", (("b", "1"),)), ("a", (("c", None),))]),
        ("permessage-deflate; client_max_window_bits", [("permessage-deflate", (("client_max_window_bits", None),))]),
        ("!#$%&'*+-.^_`|~09azAZ", [("!#$%&'*+-.^_`|~09azAZ", ())]),
    ],
)
def test_the_header_is_read(value: str, parsed: list[tuple[str, Parameters]]) -> None:
    assert parse_extensions(value) == parsed


@pytest.mark.parametrize(
    "value",
    [
        *(
            "a b",
            "a;",
            ";a",
            "a;;b",
            "a=b",
            "a; b=",
            "a; =b",
            "a; b c",
            'a; b="c',
            'a; b="c d"',
            'a; b=""',
            "a; b='c d'",
        ),
        *('a; b="c"d', 'a; b="c,d"', "a;b=c=d", "a/b", "a\x00", "é", "a\nb", "(a)"),
    ],
)
def test_a_malformed_header_is_refused(value: str) -> None:
    """By both roles, as section 9.1 of RFC 6455 demands."""
    with pytest.raises(ValueError, match="malformed"):
        parse_extensions(value)
    with pytest.raises(HandshakeError, match="malformed") as refused:
        negotiate("GET", request(value))
    assert refused.value.status == 400
    with pytest.raises(HandshakeError, match="malformed"):
        answer(value, [PerMessageDeflate()])


def test_it_is_read_in_linear_time() -> None:
    for value in ("a;" * 20000, 'a; b="' + "\\c" * 20000, "a" + " " * 40000 + "b", "," * 40000):
        try:
            parse_extensions(value)
        except ValueError:
            continue


def test_it_is_written() -> None:
    assert format_extension("a", ()) == "a"
    assert format_extension("a", (("b", None), ("c", "1"))) == "a; b; c=1"


def request(value: str | None, **changes: str) -> dict[str, str]:
    headers = {
        "Host": "example.org",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": generate_key(),
        "Sec-WebSocket-Version": "13",
    }
    if value is not None:
        headers["Sec-WebSocket-Extensions"] = value
    return {**headers, **changes}


def answer(value: str, extensions: Sequence[str | Extension]) -> Acceptance:
    """Return what a client makes of a server's header."""
    key = generate_key()
    headers = [
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-accept", accept_key(key)),
        ("sec-websocket-extensions", value),
    ]
    return check_response(Response(101, "", tuple(headers)), key, extensions=extensions)


# --- an extension of one's own --------------------------------------------------------------------------------------


class Reverse:
    """Turns what is long around: an extension, its agreement and its codec in one."""

    name = "x-reverse"
    ordered = False
    shareable = "reverse"

    def offers(self) -> Sequence[Parameters]:
        return ((("from", "4"),), ())

    def accept(self, offer: Parameters) -> tuple[Parameters, Reverse] | None:
        return None if offer else ((("from", "2"),), self)

    def check(self, answer: Parameters) -> Reverse:
        if answer != (("from", "2"),):
            raise ValueError("it has no from=2")
        return self

    def codec(self) -> Codec:
        return self

    def wants(self, payload: bytes) -> bool:
        return len(payload) >= 2

    def encode(self, payload: bytes) -> tuple[int, bytes]:
        return RSV1, payload[::-1]

    def encode_parts(self) -> Callable[[bytes, bool], bytes]:
        return lambda part, last: part[::-1]

    def decode(self, payload: bytes, last: bool, room: int | None) -> Iterator[bytes]:
        if payload == b"bad":
            raise InvalidBytesError("This can't be turned around")
        yield payload[::-1]


def test_a_second_extension_can_be_added() -> None:
    extensions: list[str | Extension] = [PerMessageDeflate(), Reverse()]
    offered = offer_extensions(extensions)
    assert offered == (
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover; client_max_window_bits, "
        "x-reverse; from=4, x-reverse"
    )
    accepted = negotiate("GET", request(offered), extensions=[Reverse()])
    assert accepted.extensions == ("x-reverse",)
    assert accepted.agreement is not None
    granted = answer("x-reverse; from=2", extensions)
    assert granted.agreement is not None
    server, client = Stream(), Stream(True, False)
    server.use(accepted.agreement.codec())
    client.use(granted.agreement.codec())
    for text in (b"", b"a", b"abc"):
        (message,) = server.receive(client.encode_message(1, text))
        assert message.data == text
    encode = client.begin_fragments()
    (message,) = server.receive(encode(2, b"ab") + encode(0, b"") + encode(0x80, b"cd"))
    assert message.data == b"abcd"
    server.receive(build_frame(0xC1, b"bad", KEY))
    assert server.error is not None
    assert server.error.code == 1007


def test_at_most_one_extension_has_the_messages() -> None:
    """The first acceptable offer in the client's order."""
    extensions: list[str | Extension] = [PerMessageDeflate(), Reverse()]
    for offered, granted in (
        ("x-reverse, permessage-deflate", ("x-reverse",)),
        ("permessage-deflate, x-reverse", ("permessage-deflate",)),
        ("x-reverse; from=4, permessage-deflate; bad, x-reverse, x-other", ("x-reverse",)),
        ("x-reverse; from=4, permessage-deflate; bad", ()),
    ):
        assert negotiate("GET", request(offered), extensions=extensions).extensions == granted
    with pytest.raises(HandshakeError, match="too many"):
        answer("permessage-deflate; server_no_context_takeover, x-reverse; from=2", extensions)
    with pytest.raises(HandshakeError, match="x-reverse wrongly: it has no from=2"):
        answer("x-reverse", extensions)


def test_names_are_granted_beside_it_as_in_0_6() -> None:
    accepted = negotiate("GET", request("x-one, x-reverse, x-two; a"), extensions=["x-one", "x-two", Reverse()])
    assert accepted.extensions == ("x-one", "x-reverse")
    assert dict(accepted.headers)["Sec-WebSocket-Extensions"] == "x-one, x-reverse; from=2"
    assert negotiate("GET", request("x-one"), extensions="x-one, x-two").agreement is None
    assert offer_extensions(["x-one", Reverse()]) == "x-reverse; from=4, x-reverse, x-one"
    assert offer_extensions("x-one,x-two") == "x-one, x-two"
    assert offer_extensions(()) == ""
    build_request("/", [("Sec-WebSocket-Extensions", offer_extensions([PerMessageDeflate()]))])


def test_the_argument_compression() -> None:
    own = PerMessageDeflate(level=9)
    assert with_compression(None, None) == with_compression((), False) == []
    assert with_compression(["x"], True) == ["x", PerMessageDeflate()]
    assert with_compression("x, y", own) == ["x", "y", own]
    reverse = Reverse()
    assert with_compression(None, reverse) == [reverse]
    for wrong in ("permessage-deflate", 1, object()):
        with pytest.raises(TypeError, match="compression must be"):
            with_compression(None, wrong)  # type: ignore[arg-type]

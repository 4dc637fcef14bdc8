"""Messages: what an application sends and receives, and the names that programs for 0.6 use on them."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import pytest

from ws4py import messaging
from ws4py.exc import (
    FrameTooLargeException,
    InvalidCloseCode,
    TextFrameEncodingException,
)
from ws4py.framing import OPCODE_BINARY, OPCODE_CLOSE, OPCODE_PING, OPCODE_PONG, OPCODE_TEXT, FrameParser, apply_mask
from ws4py.messaging import (
    BinaryMessage,
    CloseCode,
    CloseControlMessage,
    Message,
    PingControlMessage,
    PongControlMessage,
    TextMessage,
    is_wire_code,
)

WIRE_CODES = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]
OTHER_CODES = [1, 2, 125, 999, 1004, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535, 65536, -1, 2**64]


# --- data messages --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["café ☃", "café ☃".encode(), bytearray("café ☃".encode())])
def test_a_text_message_keeps_bytes_and_reads_as_text(text: str | bytes | bytearray) -> None:
    message = TextMessage(text)
    assert message.data == b"caf\xc3\xa9 \xe2\x98\x83"
    assert type(message.data) is bytes
    assert str(message) == message.__unicode__() == "café ☃"
    assert len(message) == 6
    assert (message.opcode, message.encoding, message.completed) == (OPCODE_TEXT, "utf-8", True)
    assert (message.is_text, message.is_binary) == (True, False)


@pytest.mark.parametrize("data", [b"\0\xff\xfe", bytearray(b"\0\xff\xfe"), memoryview(b"\0\xff\xfe")])
def test_a_binary_message_keeps_bytes(data: bytes | bytearray | memoryview) -> None:
    message = BinaryMessage(data)
    assert message.data == b"\0\xff\xfe"
    assert type(message.data) is bytes
    assert len(message) == 3
    assert (message.opcode, message.encoding, message.completed) == (OPCODE_BINARY, None, True)
    assert (message.is_text, message.is_binary) == (False, True)


def test_a_binary_message_is_no_text() -> None:
    message = BinaryMessage(b"abc")
    with pytest.raises(TypeError):
        str(message)
    with pytest.raises(TypeError):
        message.__unicode__()
    with pytest.raises(TypeError, match="encoding"):
        BinaryMessage("abc")  # type: ignore[arg-type]


def test_the_text_of_a_message() -> None:
    assert TextMessage("café ☃").text == "café ☃"
    assert TextMessage(b"").text == ""
    with pytest.raises(TypeError, match="a BinaryMessage has no encoding: use its data"):
        BinaryMessage(b"abc").text  # noqa: B018
    own = TextMessage("abc")
    own.text = "mine"
    assert (own.text, str(own)) == ("mine", "abc")


@pytest.mark.parametrize(
    ("data", "value"),
    [
        ('{"a": [1, null, true]}', {"a": [1, None, True]}),
        (' "caf\u00e9 ☃" ', "café ☃"),
        ("12345678901234567890", 12345678901234567890),
        ("1\n", 1),
    ],
)
def test_the_json_of_a_message(data: str, value: object) -> None:
    assert TextMessage(data).json() == value
    assert BinaryMessage(data.encode()).json() == value


@pytest.mark.parametrize(
    "data", [b"", b"{", b"nothing", b'{"a": 1} 2', b"\xff", "1".encode("utf-16"), b"[" * 200_000, b"1" * 10_000]
)
def test_what_is_no_json_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - which words they are is json's affair
        BinaryMessage(data).json()


def test_the_arguments_keep_their_names() -> None:
    assert TextMessage(text="a").data == b"a"
    assert BinaryMessage(bytes=b"a").data == b"a"
    assert Message(opcode=OPCODE_TEXT, data="é", encoding="latin-1").data == b"\xe9"
    assert CloseControlMessage(code=1001, reason="r").data == b"\x03\xe9r"
    assert PingControlMessage(data=b"a").data == PongControlMessage(data=b"a").data == b"a"


@pytest.mark.parametrize("data", [None, 5, 1.5, ["a"], object()])
@pytest.mark.parametrize("kind", [TextMessage, BinaryMessage])
def test_data_of_another_type_is_refused(kind: Callable[[object], Message], data: object) -> None:
    with pytest.raises(TypeError):
        kind(data)


@pytest.mark.parametrize("kind", [TextMessage, BinaryMessage, PingControlMessage, PongControlMessage])
def test_the_data_of_a_message_does_not_change_with_what_it_was_made_of(kind: Callable[[bytearray], Message]) -> None:
    data = bytearray(b"abc")
    message = kind(data)
    data[:] = b"xyz"
    assert message.data == b"abc"


@pytest.mark.parametrize("more", [b"def", bytearray(b"def"), "def"])
def test_extend(more: str | bytes | bytearray) -> None:
    message = TextMessage("abc")
    message.extend(more)
    assert message.data == b"abcdef"
    assert type(message.data) is bytes


def test_extend_refuses_what_a_constructor_refuses() -> None:
    with pytest.raises(TypeError):
        BinaryMessage(b"").extend("text")
    with pytest.raises(TypeError):
        TextMessage("").extend(5)  # type: ignore[arg-type]


def test_data_and_completed_can_be_assigned() -> None:
    message = TextMessage("")
    message.data = b"new"
    message.completed = True
    assert str(message) == "new"
    assert message.completed is True


@pytest.mark.parametrize("message", [TextMessage(""), BinaryMessage(b""), PingControlMessage()])
def test_an_empty_message_is_false(message: Message) -> None:
    assert not message
    message.extend(b"x")
    assert message


def test_repr_shows_the_size_and_not_the_data() -> None:
    assert repr(TextMessage("secret" * 1000)) == "<TextMessage of 6000 bytes>"


@pytest.mark.parametrize(
    "message", [TextMessage("a"), BinaryMessage(b"a"), CloseControlMessage(4000, "a"), PongControlMessage(b"a")]
)
def test_a_message_can_be_pickled(message: Message) -> None:
    copy = pickle.loads(pickle.dumps(message))
    assert type(copy) is type(message)
    assert (copy.data, copy.opcode, copy.encoding) == (message.data, message.opcode, message.encoding)


# --- on the wire ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        (TextMessage("Hello"), "810548656c6c6f"),
        (BinaryMessage(b"\x01"), "820101"),
        (PingControlMessage("Hello"), "890548656c6c6f"),
        (PongControlMessage("Hello"), "8a0548656c6c6f"),
        (CloseControlMessage(), "880203e8"),
        (CloseControlMessage(1001, "bye"), "880503e9627965"),
        (TextMessage(""), "8100"),
    ],
)
def test_single(message: Message, wire: str) -> None:
    assert message.single().hex() == wire
    masked = message.single(mask=True)
    assert masked[0] == message.single()[0]
    assert masked[1] == 0x80 | len(message.data)
    assert apply_mask(masked[6:], masked[2:6]) == message.data


@pytest.mark.parametrize(
    ("first", "last", "byte"), [(True, True, 0x81), (True, False, 0x01), (False, False, 0x00), (False, True, 0x80)]
)
def test_fragment(first: bool, last: bool, byte: int) -> None:
    message = TextMessage("abc")
    assert message.fragment(first, last) == bytes((byte, 3)) + b"abc"
    masked = message.fragment(first=first, last=last, mask=True)
    assert masked[:2] == bytes((byte, 0x83))
    assert apply_mask(masked[6:], masked[2:6]) == b"abc"


def test_each_frame_has_a_key_of_its_own() -> None:
    message = BinaryMessage(b"")
    assert len({message.single(mask=True) for _ in range(50)}) > 45
    assert len({message.fragment(mask=True) for _ in range(50)}) > 45


def test_fragments_join_to_the_message() -> None:
    parts = [BinaryMessage(b"a"), BinaryMessage(b""), BinaryMessage(b"c")]
    wire = b"".join(part.fragment(index == 0, index == 2, mask=True) for index, part in enumerate(parts))
    frames: list[tuple[int, bytes]] = []
    FrameParser().feed(wire, frames)
    assert frames == [(0x02, b"a"), (0x00, b""), (0x80, b"c")]


# --- control messages -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "opcode"), [(PingControlMessage, OPCODE_PING), (PongControlMessage, OPCODE_PONG)])
@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"p", b"p"), ("é", b"\xc3\xa9"), (bytearray(b"p"), b"p"), (b"", b""), ("", b""), (None, b""), (b"\xff", b"\xff")],
)
def test_ping_and_pong(
    kind: Callable[[object], Message], opcode: int, data: str | bytes | bytearray | None, expected: bytes
) -> None:
    message = kind(data)
    assert (message.opcode, message.data, message.is_text, message.is_binary) == (opcode, expected, False, False)


def test_the_text_of_a_ping_and_a_pong() -> None:
    assert str(PongControlMessage(b"caf\xc3\xa9")) == "café"
    assert str(PingControlMessage("text")) == PingControlMessage("text").__unicode__() == "text"


@pytest.mark.parametrize("kind", [PingControlMessage, PongControlMessage])
@pytest.mark.parametrize(("longest", "too_long"), [(b"x" * 125, b"x" * 126), ("é" * 62 + "x", "é" * 63)])
def test_a_control_message_takes_125_bytes(
    kind: Callable[[object], Message], longest: str | bytes, too_long: str | bytes
) -> None:
    assert len(kind(longest).single()) == 127
    with pytest.raises(FrameTooLargeException, match="126"):
        kind(too_long)


@pytest.mark.parametrize(
    ("longest", "too_long"), [("x" * 123, "x" * 124), ("é" * 61 + "x", "é" * 62), (b"x" * 123, b"x" * 124)]
)
def test_a_reason_takes_123_bytes(longest: str | bytes, too_long: str | bytes) -> None:
    assert len(CloseControlMessage(1000, longest).data) == 125
    with pytest.raises(FrameTooLargeException):
        CloseControlMessage(1000, too_long)


@pytest.mark.parametrize("code", WIRE_CODES)
@pytest.mark.parametrize(("reason", "encoded"), [("", b""), ("é", b"\xc3\xa9"), (b"r", b"r"), (bytearray(b"r"), b"r")])
def test_a_close_with_a_code(code: int, reason: str | bytes | bytearray, encoded: bytes) -> None:
    message = CloseControlMessage(code, reason)
    assert message.opcode == OPCODE_CLOSE
    assert message.data == code.to_bytes(2, "big") + encoded
    assert (message.code, message.reason) == (code, encoded)
    assert type(message.reason) is bytes
    assert str(message) == message.__unicode__() == encoded.decode()


@pytest.mark.parametrize("code", [None, 1005, CloseCode.NO_STATUS_RECEIVED])
@pytest.mark.parametrize("reason", ["", None, b"", "a reason needs a code"])
def test_a_close_without_a_code_is_empty(code: int | None, reason: str | bytes | None) -> None:
    message = CloseControlMessage(code, reason)
    assert message.data == b""
    assert message.code == 1005
    assert message.single() == b"\x88\x00"


def test_a_close_without_a_reason() -> None:
    assert CloseControlMessage(1000, None).data == b"\x03\xe8"
    assert CloseControlMessage(1000, None).reason == b""
    assert CloseControlMessage().code == 1000


@pytest.mark.parametrize("code", [*OTHER_CODES, True, "1000", 1000.0, 1000.5, b"x"])
def test_a_code_that_may_not_be_sent_is_refused(code: object) -> None:
    with pytest.raises(InvalidCloseCode):
        CloseControlMessage(code)  # type: ignore[arg-type]


def test_0_stands_for_no_code_as_in_0_6() -> None:
    assert CloseControlMessage(0).data == b""


@pytest.mark.parametrize("code", [CloseCode.GOING_AWAY, CloseCode.TRY_AGAIN_LATER])
def test_a_code_can_be_a_member_of_the_enumeration(code: CloseCode) -> None:
    assert CloseControlMessage(code).data == int(code).to_bytes(2, "big")


@pytest.mark.parametrize(
    "reason",
    [b"\xff", bytearray(b"\xc3"), b"ok\xed\xa0\x80", b"\xc0\x80", "\ud800"],
    ids=["no start", "cut", "surrogate", "overlong", "surrogate in a str"],
)
@pytest.mark.parametrize("code", [1000, None])
def test_a_reason_that_is_not_utf_8_is_refused(code: int | None, reason: str | bytes | bytearray) -> None:
    with pytest.raises(TextFrameEncodingException):
        CloseControlMessage(code, reason)


def test_a_length_is_a_number_of_characters() -> None:
    assert len(CloseControlMessage(1000, "éé")) == 2
    assert len(PingControlMessage("éé")) == 2


def test_the_codes_that_may_be_on_the_wire() -> None:
    assert [code for code in range(3000) if is_wire_code(code)] == WIRE_CODES[:12]
    assert all(map(is_wire_code, range(3000, 5000)))
    assert not any(map(is_wire_code, range(5000, 65536)))


def test_the_enumeration_names_the_registry() -> None:
    assert {int(code) for code in CloseCode} == {1000, 1001, 1002, 1003, *range(1005, 1016)}
    assert {code for code in CloseCode if not is_wire_code(code)} == {1005, 1006, 1015}


@pytest.mark.parametrize("kind", [CloseControlMessage, PingControlMessage, PongControlMessage])
def test_a_control_message_is_neither_text_nor_binary(kind: Callable[[], Message]) -> None:
    assert not kind().is_text
    assert not kind().is_binary


def test_all_names_exist() -> None:
    assert sorted(messaging.__all__) == sorted(set(messaging.__all__))
    assert all(hasattr(messaging, name) for name in messaging.__all__)

"""The state machine of one websocket: RFC 6455, sections 5 to 8.

A test with a ``connection`` runs in both roles, and on bytes that come at once, one by one, and five by five.
"""

from __future__ import annotations

import sys
from typing import NamedTuple

import pytest

from ws4py import streaming
from ws4py.exc import (
    FrameTooLargeException,
    InvalidCloseCode,
    TextFrameEncodingException,
    WebSocketException,
)
from ws4py.extensions.permessage_deflate import DeflateCodec, PerMessageDeflate
from ws4py.framing import OPCODE_BINARY, OPCODE_PING, OPCODE_TEXT, RSV1, Opcode, apply_mask, build_frame
from ws4py.messaging import (
    BinaryMessage,
    CloseControlMessage,
    Message,
    PingControlMessage,
    PongControlMessage,
    TextMessage,
    is_wire_code,
)
from ws4py.streaming import DEFAULT_MAX_FRAGMENTS, DEFAULT_MAX_MESSAGE_SIZE, Stream, Utf8Validator

KEY = b"\x37\xfa\x21\x3d"
FIN = 0x80
TEXT, BINARY, CLOSE, PING, PONG = (FIN | opcode for opcode in (1, 2, 8, 9, 10))
FIRST_TEXT, FIRST_BINARY, MIDDLE, LAST = 0x01, 0x02, 0x00, 0x80

PROTOCOL_ERROR, INVALID_PAYLOAD, MESSAGE_TOO_BIG = 1002, 1007, 1009


class Connection(NamedTuple):
    """A stream, and the way in which the test's bytes reach it."""

    is_server: bool
    step: int | None
    stream: Stream

    def frame(self, first: int, payload: bytes = b"") -> bytes:
        return build_frame(first, payload, KEY if self.is_server else None)

    def receive(self, data: bytes) -> list[Message]:
        step = self.step or len(data) or 1
        return [
            message
            for start in range(0, len(data), step)
            for message in self.stream.receive(data[start : start + step])
        ]

    def receive_frames(self, *frames: tuple[int, bytes]) -> list[Message]:
        return self.receive(b"".join(self.frame(first, payload) for first, payload in frames))

    def error_code(self) -> int | None:
        return None if self.stream.error is None else self.stream.error.code

    def has_failed(self, code: int) -> bool:
        """Tell whether it failed with this code, and takes nothing in any more."""
        if self.error_code() != code or self.stream.closing is not None:
            return False
        error = self.stream.error
        ignored = self.receive_frames((TEXT, b"later"), (CLOSE, b""), (0xFF, b"\xff"))
        return ignored == [] and self.stream.error is error and self.stream.closing is None


def make_stream(is_server: bool, max_message_size: int | None = 1 << 20, max_fragments: int | None = 4096) -> Stream:
    return Stream(not is_server, is_server, max_message_size, max_fragments)


@pytest.fixture(params=[None, 1, 5], ids=["whole", "by 1", "by 5"])
def step(request: pytest.FixtureRequest) -> int | None:
    step: int | None = request.param
    return step


@pytest.fixture(params=[True, False], ids=["server", "client"])
def is_server(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def connection(is_server: bool, step: int | None) -> Connection:
    return Connection(is_server, step, make_stream(is_server))


def contents(messages: list[Message]) -> list[tuple[int, bytes]]:
    return [(message.opcode, message.data) for message in messages]


# --- messages -------------------------------------------------------------------------------------------------------


def test_nothing_comes_of_nothing(connection: Connection) -> None:
    assert connection.receive(b"") == []
    assert (connection.stream.error, connection.stream.closing) == (None, None)


@pytest.mark.parametrize("text", ["", "Hello", "Κόσμε 𝄞 ☃", "\0", "x" * 125, "é" * 63, "z" * 70000])
def test_a_text(is_server: bool, text: str) -> None:
    for step in (None, 997):
        connection = Connection(is_server, step, make_stream(is_server))
        (message,) = connection.receive_frames((TEXT, text.encode()))
        assert type(message) is TextMessage
        assert (str(message), message.data, message.encoding) == (text, text.encode(), "utf-8")
        assert (message.is_text, message.completed) == (True, True)
        assert type(message.data) is bytes


@pytest.mark.parametrize("data", [b"", b"\0\xff\xc0\xed\xa0\x80", bytes(126), bytes(range(256)) * 257])
def test_a_binary(is_server: bool, data: bytes) -> None:
    for step in (None, 997):
        connection = Connection(is_server, step, make_stream(is_server))
        (message,) = connection.receive_frames((BINARY, data))
        assert type(message) is BinaryMessage
        assert (message.data, message.encoding, len(message)) == (data, None, len(data))
        assert (message.is_binary, message.completed) == (True, True)
        assert type(message.data) is bytes


def test_many_messages_keep_their_order(connection: Connection) -> None:
    frames = [(TEXT, b"a"), (BINARY, b"b"), (PING, b"c"), (PONG, b"d"), (TEXT, b""), (PING, b""), (BINARY, b"e")] * 3
    assert contents(connection.receive_frames(*frames)) == [(first & 0xF, payload) for first, payload in frames]


@pytest.mark.parametrize("first", [FIRST_TEXT, FIRST_BINARY])
def test_a_message_in_fragments(connection: Connection, first: int) -> None:
    frames = [(first, b"one, "), (MIDDLE, b""), (MIDDLE, b"two, "), (LAST, b"three")]
    (message,) = connection.receive_frames(*frames)
    assert (message.opcode, message.data, message.completed) == (first, b"one, two, three", True)
    assert type(message.data) is bytes
    assert contents(connection.receive_frames((first, b""), (LAST, b""), (FIN | first, b"x"))) == [
        (first, b""),
        (first, b"x"),
    ]


def test_control_frames_come_between_the_fragments_of_a_message(connection: Connection) -> None:
    messages = connection.receive_frames((FIRST_TEXT, b"a"), (PING, b"p"), (MIDDLE, b"b"), (PONG, b"q"), (LAST, b"c"))
    assert [type(message) for message in messages] == [PingControlMessage, PongControlMessage, TextMessage]
    assert contents(messages) == [(9, b"p"), (10, b"q"), (1, b"abc")]


def test_a_message_comes_with_its_last_byte(is_server: bool) -> None:
    connection = Connection(is_server, None, make_stream(is_server))
    wire = connection.frame(FIRST_TEXT, b"a") + connection.frame(LAST, b"bc")
    assert connection.receive(wire[:-1]) == []
    assert contents(connection.receive(wire[-1:])) == [(1, b"abc")]


@pytest.mark.parametrize(("first", "kind"), [(PING, PingControlMessage), (PONG, PongControlMessage)])
@pytest.mark.parametrize("payload", [b"", b"Hello", b"\xff\xfe\x00", b"x" * 125])
def test_a_ping_and_a_pong(connection: Connection, first: int, kind: type[Message], payload: bytes) -> None:
    (message,) = connection.receive_frames((first, payload))
    assert type(message) is kind
    assert message.data == payload


def test_a_ping_is_answered_by_a_pong_of_the_same_payload() -> None:
    stream = Stream(always_mask=False)
    assert stream.reply(PingControlMessage(b"x")) == (Opcode.PONG, b"x")
    for message in (PongControlMessage(b"x"), TextMessage(b"x"), BinaryMessage(b"x"), CloseControlMessage(1000)):
        assert stream.reply(message) is None, message


# --- rules about frames ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "first",
    [
        *(FIN | opcode for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
        *(FIN | bit | opcode for bit in (0x10, 0x20, 0x40) for opcode in (1, 2, 8, 9, 10)),
        *(0x08, 0x09, 0x0A),
        *(MIDDLE, LAST),
    ],
    ids=hex,
)
def test_a_first_byte_without_a_meaning_fails_with_1002(connection: Connection, first: int) -> None:
    messages = connection.receive_frames((TEXT, b"before"), (first, b""), (TEXT, b"after"))
    assert contents(messages) == [(OPCODE_TEXT, b"before")]
    assert connection.has_failed(PROTOCOL_ERROR)


@pytest.mark.parametrize("first", [TEXT, BINARY, FIRST_TEXT, FIRST_BINARY])
def test_a_message_within_a_message_fails_with_1002(connection: Connection, first: int) -> None:
    assert connection.receive_frames((FIRST_TEXT, b"a"), (MIDDLE, b"b"), (first, b"c"), (LAST, b"d")) == []
    assert connection.has_failed(PROTOCOL_ERROR)


@pytest.mark.parametrize("first", [TEXT, BINARY, CLOSE, PING, PONG])
def test_the_wrong_masking_fails_with_1002(connection: Connection, first: int) -> None:
    good, bad = connection.frame(PING, b"good"), build_frame(first, b"", None if connection.is_server else KEY)
    assert contents(connection.receive(good + bad)) == [(OPCODE_PING, b"good")]
    assert connection.has_failed(PROTOCOL_ERROR)


@pytest.mark.parametrize(
    ("first", "length"),
    [
        (PING, "7e007e"),
        (CLOSE, "7f0000000000010000"),
        (TEXT, "7e007d"),
        (BINARY, "7f000000000000ffff"),
        (BINARY, "7f8000000000000000"),
    ],
)
def test_a_bad_length_fails_with_1002(connection: Connection, first: int, length: str) -> None:
    header = bytearray((first, *bytes.fromhex(length)))
    if connection.is_server:
        header[1] |= 0x80
        header += KEY
    assert connection.receive(bytes(header)) == []
    assert connection.has_failed(PROTOCOL_ERROR)


def test_every_header_of_two_bytes(is_server: bool) -> None:
    """What is allowed at the start of a connection, spelled out."""
    beginnings = {0x01, 0x02, 0x81, 0x82}
    controls = {0x88, 0x89, 0x8A}
    for first in range(256):
        for second in range(256):
            stream = make_stream(is_server)
            stream.receive(bytes((first, second)))
            good = first in beginnings or (first in controls and second & 0x7F < 126)
            # A continuation is known to be out of place when its header is whole.
            pending = first in (0x00, 0x80) and (is_server or second > 125)
            masked_as_it_should = bool(second & 0x80) is is_server
            expected = None if masked_as_it_should and (good or pending) else PROTOCOL_ERROR
            assert (stream.error and stream.error.code) == expected, (hex(first), hex(second))


# --- closing --------------------------------------------------------------------------------------------------------


def test_a_close_without_a_code(connection: Connection) -> None:
    messages = connection.receive_frames((TEXT, b"before"), (CLOSE, b""))
    assert [type(message) for message in messages] == [TextMessage, CloseControlMessage]
    closing = connection.stream.closing
    assert closing is messages[-1]
    assert closing is not None
    assert (closing.code, closing.reason, closing.data) == (1005, b"", b"")
    assert connection.stream.error is None


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999])
@pytest.mark.parametrize("reason", ["", "Κόσμε", "x" * 123])
def test_a_close_with_a_code_and_a_reason(connection: Connection, code: int, reason: str) -> None:
    payload = code.to_bytes(2, "big") + reason.encode()
    connection.receive_frames((CLOSE, payload))
    closing = connection.stream.closing
    assert closing is not None
    assert (closing.code, closing.reason, str(closing)) == (code, reason.encode(), reason)
    assert closing.single() == build_frame(CLOSE, payload), "it can be sent back as it came"


@pytest.mark.parametrize("code", [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
@pytest.mark.parametrize("reason", [b"", b"reason", b"\xff"])
def test_a_code_that_may_not_be_sent_fails_with_1002(connection: Connection, code: int, reason: bytes) -> None:
    assert connection.receive_frames((CLOSE, code.to_bytes(2, "big") + reason)) == []
    assert connection.has_failed(PROTOCOL_ERROR)


def test_every_code_is_taken_or_refused(is_server: bool) -> None:
    key = KEY if is_server else None
    for code in range(0x10000):
        stream = make_stream(is_server)
        stream.receive(build_frame(CLOSE, code.to_bytes(2, "big"), key))
        assert (stream.closing is not None) is is_wire_code(code)
        assert (stream.error is None) is is_wire_code(code)


@pytest.mark.parametrize("half", [b"\0", b"\x03", b"\xff"])
def test_half_a_code_fails_with_1002(connection: Connection, half: bytes) -> None:
    assert connection.receive_frames((CLOSE, half)) == []
    assert connection.has_failed(PROTOCOL_ERROR)


@pytest.mark.parametrize("reason", [b"\xff", b"ok\xe2\x98", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80"])
def test_a_reason_that_is_not_utf_8_fails_with_1007(connection: Connection, reason: bytes) -> None:
    assert connection.receive_frames((CLOSE, b"\x03\xe8" + reason)) == []
    assert connection.has_failed(INVALID_PAYLOAD)


@pytest.mark.parametrize("after", [[(TEXT, b"x")], [(PING, b"")], [(CLOSE, b"\x03\xe9")], [(0xFF, b"\xff" * 200)]])
def test_after_a_close_the_bytes_are_ignored(connection: Connection, after: list[tuple[int, bytes]]) -> None:
    (closing,) = connection.receive_frames((CLOSE, b"\x03\xe8"), *after)
    assert connection.receive_frames(*after) == []
    assert connection.stream.closing is closing
    assert connection.stream.error is None


def test_a_close_may_cut_a_message_short(connection: Connection) -> None:
    (closing,) = connection.receive_frames((FIRST_TEXT, b"\xe2"), (CLOSE, b""), (LAST, b"\x98\x83"))
    assert closing is connection.stream.closing
    assert connection.stream.error is None


@pytest.mark.parametrize("bad", [(TEXT, b"\xff"), (0xFF, b""), (LAST, b""), (CLOSE, b"\0"), (BINARY, bytes(1001))])
def test_what_came_before_an_error_is_delivered(is_server: bool, bad: tuple[int, bytes]) -> None:
    connection = Connection(is_server, None, make_stream(is_server, max_message_size=1000))
    messages = connection.receive_frames((TEXT, b"a"), (PING, b"b"), (FIRST_BINARY, b"c"), (LAST, b"d"), bad)
    assert contents(messages) == [(1, b"a"), (9, b"b"), (2, b"cd")]
    assert connection.stream.error is not None


def test_the_first_error_is_the_one_reported(connection: Connection) -> None:
    connection.receive_frames((TEXT, b"\xff"), (0xFF, b""))
    assert connection.has_failed(INVALID_PAYLOAD)


def test_an_error_says_what_was_wrong_and_can_be_sent(connection: Connection) -> None:
    connection.receive_frames((0xFF, b""))
    error = connection.stream.error
    assert error is not None
    assert "0xf" in str(error)
    assert error.single()[0] == CLOSE


# --- UTF-8 ----------------------------------------------------------------------------------------------------------

INVALID_UTF_8 = {
    "a lone continuation": b"\x80",
    "the last continuation": b"\xbf",
    "no start 0xc0": b"\xc0\xaf",
    "no start 0xc1": b"\xc1\xbf",
    "no start 0xf5": b"\xf5\x80\x80\x80",
    "no start 0xff": b"\xff",
    "overlong in 3": b"\xe0\x80\xaf",
    "the longest overlong in 3": b"\xe0\x9f\xbf",
    "overlong in 4": b"\xf0\x80\x80\xaf",
    "the longest overlong in 4": b"\xf0\x8f\xbf\xbf",
    "the first surrogate": b"\xed\xa0\x80",
    "the last surrogate": b"\xed\xbf\xbf",
    "a pair of surrogates": b"\xed\xa0\x80\xed\xb0\x80",
    "past the last code point": b"\xf4\x90\x80\x80",
    "2 of 3, then ASCII": b"\xe2\x98x",
    "1 of 2, then a start": b"\xc3\xc3\xa9",
    "3 of 4, then a start": b"\xf0\x9d\x84\xf0\x9d\x84\x9e",
    "5 bytes": b"\xf8\x88\x80\x80\x80",
}
EDGES_OF_UTF_8 = [
    "\x7f",
    "\x80",
    "\u07ff",
    "\u0800",
    "\ud7ff",
    "\ue000",
    "\ufffd",
    "\uffff",
    "\U00010000",
    "\U0010ffff",
]


@pytest.mark.parametrize("bad", INVALID_UTF_8.values(), ids=INVALID_UTF_8.keys())
@pytest.mark.parametrize("prefix", [b"", "Κόσμε ☃".encode()])
@pytest.mark.parametrize("fragmented", [False, True], ids=["", "fragments"])
def test_a_text_that_is_not_utf_8_fails_with_1007(
    connection: Connection, prefix: bytes, bad: bytes, fragmented: bool
) -> None:
    payload = prefix + bad + b"more"
    if fragmented:
        frames = [(FIRST_TEXT, b""), *((MIDDLE, bytes((octet,))) for octet in payload), (LAST, b"")]
    else:
        frames = [(TEXT, payload)]
    assert connection.receive_frames(*frames) == []
    assert connection.has_failed(INVALID_PAYLOAD)


@pytest.mark.parametrize("cut", ["☃".encode()[:1], "☃".encode()[:2], "𝄞".encode()[:1], "𝄞".encode()[:3]])
def test_a_text_that_ends_within_a_character_fails_with_1007(connection: Connection, cut: bytes) -> None:
    assert connection.receive_frames((PING, b""), (TEXT, b"ok" + cut))[1:] == []
    assert connection.has_failed(INVALID_PAYLOAD)


@pytest.mark.parametrize("last", [b"", b"x"])
def test_a_text_in_fragments_that_ends_within_a_character_fails_with_1007(connection: Connection, last: bytes) -> None:
    assert connection.receive_frames((FIRST_TEXT, b"ok\xe2\x98")) == []
    assert connection.stream.error is None
    assert connection.receive_frames((LAST, last)) == []
    assert connection.has_failed(INVALID_PAYLOAD)


@pytest.mark.parametrize("text", EDGES_OF_UTF_8, ids=ascii)
def test_a_character_can_be_cut_by_frames_and_by_reads(connection: Connection, text: str) -> None:
    payload = f"a{text}b{text}".encode()
    (whole,) = connection.receive_frames((TEXT, payload))
    fragments = [(MIDDLE, payload[index : index + 1]) for index in range(len(payload))]
    (joined,) = connection.receive_frames((FIRST_TEXT, b""), *fragments, (LAST, b""))
    assert str(whole) == str(joined) == f"a{text}b{text}"


@pytest.mark.parametrize("bad", INVALID_UTF_8.values(), ids=INVALID_UTF_8.keys())
def test_a_bad_text_fails_before_its_frame_is_whole(is_server: bool, bad: bytes) -> None:
    """Section 8.1: the rest of the frame never comes."""
    connection = Connection(is_server, None, make_stream(is_server))
    wire = connection.frame(TEXT, b"good" + bad + b"x" * 1000)
    connection.receive(wire[:-1000])
    assert connection.has_failed(INVALID_PAYLOAD)


@pytest.mark.parametrize(("good", "bad"), [(b"\xce\xba\xe1\xbd", b"\xff"), (b"\xed", b"\xa0"), (b"\xf4", b"\x90")])
def test_a_bad_text_fails_at_its_first_bad_byte(is_server: bool, good: bytes, bad: bytes) -> None:
    connection = Connection(is_server, 1, make_stream(is_server))
    wire = connection.frame(FIRST_TEXT, good + bad + b"x" * 9)
    connection.receive(wire[:-10])
    assert connection.stream.error is None
    connection.receive(wire[-10:-9])
    assert connection.has_failed(INVALID_PAYLOAD)


def test_a_text_begins_anew_after_another(connection: Connection) -> None:
    snowman = "☃".encode()
    frames = [(FIRST_TEXT, snowman[:1]), (PING, b"\xff"), (LAST, snowman[1:])]
    messages = connection.receive_frames(*frames, (FIRST_BINARY, b"\xff"), (LAST, b"\xe2"), *frames)
    assert [message.data for message in messages if not isinstance(message, PingControlMessage)] == [
        snowman,
        b"\xff\xe2",
        snowman,
    ]


def test_the_payload_of_a_binary_is_not_checked(connection: Connection) -> None:
    assert len(connection.receive_frames((FIRST_BINARY, b"\xff\xc0"), (MIDDLE, b"\x80"), (LAST, b"\xed"))) == 1


# --- limits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 125, 126, 1000, 65536])
def test_a_message_of_the_largest_size_passes(is_server: bool, size: int) -> None:
    for step in (None, 997):
        connection = Connection(is_server, step, make_stream(is_server, max_message_size=size))
        messages = connection.receive_frames((TEXT, b"x" * size), (FIRST_BINARY, bytes(size)), (LAST, b""))
        assert [len(message.data) for message in messages] == [size, size]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 1000, 65536])
@pytest.mark.parametrize("first", [TEXT, BINARY, FIRST_TEXT, FIRST_BINARY])
def test_a_larger_message_fails_with_1009_at_its_header(is_server: bool, size: int, first: int) -> None:
    connection = Connection(is_server, None, make_stream(is_server, max_message_size=size))
    wire = connection.frame(first, b"x" * (size + 1))
    assert connection.receive(wire[: -size - 1]) == []
    assert connection.has_failed(MESSAGE_TOO_BIG)


@pytest.mark.parametrize("last", [LAST, MIDDLE])
def test_fragments_are_counted_together(connection: Connection, last: int) -> None:
    connection.stream.limit(10, None)
    exact = [(FIRST_TEXT, b"x" * 6), (PING, b"x" * 100), (MIDDLE, b"x" * 4), (LAST, b"")]
    assert len(connection.receive_frames(*exact, *exact)) == 4
    connection.receive_frames((FIRST_TEXT, b"x" * 6))
    assert connection.receive(connection.frame(last, b"x" * 5)[:-5]) == []
    assert connection.has_failed(MESSAGE_TOO_BIG)


def test_an_announced_length_costs_no_memory(is_server: bool) -> None:
    """A header of the longest frame, within a limit that lets it pass."""
    stream = make_stream(is_server, max_message_size=None)
    mask_bit, key = (0x80, bytes(4)) if is_server else (0, b"")
    stream.receive(bytes((BINARY, mask_bit | 127)) + b"\x7f" + b"\xff" * 7 + key)
    assert stream.receive(bytes(1000)) == []
    assert stream.error is None


@pytest.mark.parametrize("count", [1, 2, 10])
def test_fragments_have_a_limit(is_server: bool, count: int) -> None:
    connection = Connection(is_server, None, make_stream(is_server, max_fragments=count))
    exact = [(TEXT, b"")] if count == 1 else [(FIRST_TEXT, b""), *[(MIDDLE, b"")] * (count - 2), (LAST, b"")]
    assert len(connection.receive_frames(*exact, *exact)) == 2
    assert connection.receive_frames((FIRST_TEXT, b""), *[(MIDDLE, b"")] * (count - 1), (LAST, b"")) == []
    assert connection.has_failed(MESSAGE_TOO_BIG)


def test_the_reads_in_which_a_frame_came_are_no_fragments(is_server: bool) -> None:
    connection = Connection(is_server, 1, make_stream(is_server, max_fragments=1))
    assert len(connection.receive_frames((TEXT, b"x" * 100))) == 1


def test_the_limits_that_are_not_given() -> None:
    assert (DEFAULT_MAX_MESSAGE_SIZE, DEFAULT_MAX_FRAGMENTS) == (1024 * 1024, 4096)
    stream = Stream()
    assert len(stream.receive(build_frame(BINARY, bytes(1 << 20), KEY))) == 1
    stream.receive(build_frame(FIRST_BINARY, b"", KEY) + build_frame(MIDDLE, b"", KEY) * 4094)
    assert len(stream.receive(build_frame(LAST, b"", KEY))) == 1
    for over in (
        build_frame(BINARY, bytes((1 << 20) + 1), KEY),
        build_frame(FIRST_BINARY, b"", KEY) + build_frame(MIDDLE, b"", KEY) * 4095,
    ):
        stream = Stream()
        assert stream.receive(over) == []
        assert stream.error is not None
        assert stream.error.code == MESSAGE_TOO_BIG


def test_none_is_no_limit(is_server: bool) -> None:
    connection = Connection(is_server, None, make_stream(is_server, None, None))
    messages = connection.receive_frames(
        (BINARY, bytes((1 << 20) + 1)), (FIRST_BINARY, b""), *[(MIDDLE, b"x")] * 5000, (LAST, b"")
    )
    assert [len(message.data) for message in messages] == [(1 << 20) + 1, 5000]


def test_a_limit_can_be_set_later(connection: Connection) -> None:
    connection.stream.limit(3, 2)
    assert len(connection.receive_frames((TEXT, b"abc"), (FIRST_TEXT, b"a"), (LAST, b"b"))) == 2
    assert connection.receive_frames((TEXT, b"abcd")) == []
    assert connection.has_failed(MESSAGE_TOO_BIG)


# --- writing, and the names of 0.6 ----------------------------------------------------------------------------------


def test_the_arguments_and_attributes_of_0_6() -> None:
    stream = Stream(always_mask=True, expect_masking=False)
    assert (stream.always_mask, stream.expect_masking) == (True, False)
    assert (stream.closing, stream.error) == (None, None)
    stream = Stream()
    assert (stream.always_mask, stream.expect_masking) == (False, True)


def test_the_role_can_be_assigned() -> None:
    """As a program does that makes its own stream, and turns it into a client's."""
    stream = Stream(always_mask=False)
    stream.always_mask = True
    stream.expect_masking = False
    assert stream.ping(b"")[1] == 0x80
    assert len(stream.receive(build_frame(TEXT, b"bare"))) == 1


@pytest.mark.parametrize("first", [TEXT, BINARY, FIRST_TEXT, MIDDLE, LAST, CLOSE, PING, PONG])
@pytest.mark.parametrize("payload", [b"", b"Hello"])
def test_encode_masks_on_the_clients_side(is_server: bool, first: int, payload: bytes) -> None:
    wire = make_stream(is_server).encode(first, payload)
    if is_server:
        assert wire == build_frame(first, payload)
    else:
        assert wire[:2] == bytes((first, 0x80 | len(payload)))
        assert apply_mask(wire[6:], wire[2:6]) == payload


def test_each_frame_is_masked_with_a_key_of_its_own() -> None:
    stream = make_stream(is_server=False)
    assert len({stream.encode(TEXT, b"")[2:6] for _ in range(50)}) > 45


@pytest.mark.parametrize("data", [b"Hello", "Hello", bytearray(b"Hello")])
def test_ping_and_pong_are_frames(is_server: bool, data: str | bytes | bytearray) -> None:
    ours, theirs = make_stream(is_server), make_stream(not is_server)
    messages = theirs.receive(ours.ping(data) + ours.pong(data) + ours.ping() + ours.pong())
    assert contents(messages) == [(9, b"Hello"), (10, b"Hello"), (9, b""), (10, b"")]
    with pytest.raises(FrameTooLargeException):
        ours.ping(b"x" * 126)
    with pytest.raises(FrameTooLargeException):
        ours.pong("é" * 63)


def test_the_messages_to_send(is_server: bool) -> None:
    ours, theirs = make_stream(is_server), make_stream(not is_server)
    to_send: list[Message] = [ours.text_message("é"), ours.binary_message(b"\xff"), ours.close(4000, "bye")]
    assert [type(message) for message in to_send] == [TextMessage, BinaryMessage, CloseControlMessage]
    received = theirs.receive(b"".join(message.single(ours.always_mask) for message in to_send))
    assert contents(received) == contents(to_send)
    assert ours.close().data == b"\x03\xe8"
    assert ours.close(None).data == ours.close(1005).data == b""


def test_a_close_that_may_not_be_sent_is_refused() -> None:
    stream = Stream()
    with pytest.raises(InvalidCloseCode):
        stream.close(1006)
    with pytest.raises(FrameTooLargeException):
        stream.close(1000, "x" * 124)
    with pytest.raises(TextFrameEncodingException):
        stream.close(1000, b"\xff")


def test_every_failure_has_a_close_code() -> None:
    """What the parser may raise is answered, and with nothing that can't be sent."""
    assert all(issubclass(failure, WebSocketException) for failure in streaming._CLOSE_CODES)
    assert all(map(is_wire_code, streaming._CLOSE_CODES.values()))


def test_a_stream_has_no_dictionary() -> None:
    with pytest.raises(AttributeError):
        Stream().anything = 1  # type: ignore[attr-defined]


def test_an_idle_stream_is_small() -> None:
    stream = Stream()
    stream.receive(build_frame(FIRST_TEXT, b"x" * 1000, KEY) + build_frame(LAST, b"x" * 1000, KEY))
    kept = [getattr(stream, name) for name in ("_buffer", "_validator")]
    assert kept == [None, None]
    assert sys.getsizeof(stream) + sys.getsizeof(stream._parser) < 400


@pytest.mark.parametrize("last", [(0xFF, b""), (CLOSE, b"")])
def test_a_message_that_never_ends_is_let_go(connection: Connection, last: tuple[int, bytes]) -> None:
    connection.receive_frames((FIRST_TEXT, b"x" * 1000), last)
    assert (connection.stream._buffer, connection.stream._validator) == (None, None)


# --- Utf8Validator --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (b"", b"", (True, True, 0, 0)),
        (b"ab", b"c", (True, True, 1, 3)),
        (b"a\xe2", b"\x98", (True, False, 1, 3)),
        (b"a\xe2\x98", b"\x83", (True, True, 1, 4)),
        (b"a\xe2\x98", b"", (True, False, 0, 3)),
        (b"abc", b"de\xffg", (False, False, 2, 5)),
        (b"abc\xe2\x98", b"\x83de\xff", (False, False, 3, 8)),
        (b"abc\xe2\x98", b"\xff", (False, False, 0, 5)),
    ],
)
def test_utf8_validator(first: bytes, second: bytes, expected: tuple[bool, bool, int, int]) -> None:
    for convert in (bytes, bytearray):
        validator = Utf8Validator()
        validator.validate(convert(first))
        assert validator.validate(convert(second)) == expected
        validator.reset()
        assert validator.validate(convert(b"ab")) == (True, True, 2, 2)


@pytest.mark.parametrize("bad", INVALID_UTF_8.values(), ids=INVALID_UTF_8.keys())
def test_utf8_validator_refuses(bad: bytes) -> None:
    assert Utf8Validator().validate(bad)[0] is False
    validator = Utf8Validator()
    assert not all(validator.validate(bytes((octet,)))[0] for octet in bad)


def test_an_accelerator_can_replace_the_validator(is_server: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the interface that ``wsaccel`` has: a class, and validate() with four results."""
    pieces: list[bytes] = []

    class Replacement:
        def validate(self, data: bytes) -> tuple[bool, bool, int, int]:
            pieces.append(data)
            return b"bad" not in data, True, len(data), 0

    monkeypatch.setattr("ws4py.streaming.Utf8Validator", Replacement)
    connection = Connection(is_server, None, make_stream(is_server))
    assert len(connection.receive_frames((FIRST_TEXT, b"one"), (LAST, b"two"))) == 1
    assert pieces == [b"one", b"two"]
    connection.receive_frames((FIRST_TEXT, b"bad"))
    assert connection.has_failed(INVALID_PAYLOAD)


# --- limits of what is taken in at once -------------------------------------------------------------------------------


def mixed_frames(connection: Connection, encode: DeflateCodec, end: bytes) -> bytes:
    """Return frames of all kinds, with and without compression, and at last ``end``."""

    def compressed(payload: bytes) -> bytes:
        return encode.encode(payload)[1]

    return b"".join(
        [
            *(connection.frame(TEXT, str(number).encode()) for number in range(20)),
            connection.frame(FIRST_BINARY, b"one"),
            connection.frame(PING, b"between"),
            connection.frame(MIDDLE, bytes(500)),
            connection.frame(LAST, b"two"),
            connection.frame(TEXT | RSV1, compressed("ä".encode() * 100_000)),
            connection.frame(PONG),
            connection.frame(BINARY | RSV1, compressed(bytes(300_000))),
            connection.frame(BINARY, bytes(70_000)),
            end,
        ]
    )


@pytest.mark.parametrize("step", [None, 1000, 7])
@pytest.mark.parametrize("end", ["nothing", "close", "broken header", "broken text", "rest"])
@pytest.mark.parametrize("limits", [{"frames": 1}, {"messages": 1}, {"size": 1}, {"frames": 3, "size": 70_000}])
def test_limits_change_nothing_but_when_messages_come(
    is_server: bool, step: int | None, end: str, limits: dict[str, int]
) -> None:
    agreed = PerMessageDeflate().accept(())
    assert agreed is not None
    first = Connection(is_server, None, make_stream(is_server))
    ends = {
        "nothing": b"",
        "close": first.frame(CLOSE, b"\x03\xe8") + first.frame(TEXT, b"ignored"),
        "broken header": first.frame(0x83),
        "broken text": first.frame(TEXT, b"\xff"),
        "rest": first.frame(FIRST_TEXT, b"begun"),
    }
    data = mixed_frames(first, DeflateCodec(agreed[1]), ends[end])
    other = make_stream(is_server)
    for stream in (first.stream, other):
        stream.use(agreed[1].codec())
    expected = first.stream.receive(data)
    found: list[Message] = []
    for start in range(0, len(data), step or len(data)):
        piece = data[start : start + (step or len(data))]
        while piece or other.more:
            messages = other.receive_some(piece, **limits)
            assert len(messages) <= limits.get("messages", len(messages))
            found += messages
            piece = b""
    assert [(message.opcode, message.data) for message in found] == [(item.opcode, item.data) for item in expected]
    assert (other.ended, other.unfinished) == (first.stream.ended, first.stream.unfinished)
    assert str(other.error) == str(first.stream.error)
    if not other.ended:
        assert other.frames_received == first.stream.frames_received
    assert other.decoded_to == first.stream.decoded_to


def test_no_more_frames_are_begun_than_may_be(is_server: bool) -> None:
    connection = Connection(is_server, None, make_stream(is_server))
    data = connection.frame(TEXT, b"x") * 10
    assert len(connection.stream.receive_some(data, frames=3)) == 3
    assert connection.stream.more
    assert connection.stream.held_back
    assert connection.stream.frames_received == 3
    assert connection.stream.receive_some(frames=0) == []
    assert len(connection.stream.receive_some(connection.frame(PING), frames=100)) == 8
    assert not connection.stream.more


def test_a_large_message_is_decoded_in_pieces(is_server: bool) -> None:
    agreed = PerMessageDeflate().accept(())
    assert agreed is not None
    stream = make_stream(is_server)
    stream.limit(None, None)
    stream.use(agreed[1].codec())
    connection = Connection(is_server, None, stream)
    payload = DeflateCodec(agreed[1]).encode(bytes(10 << 20))[1]
    found = stream.receive_some(connection.frame(BINARY | RSV1, payload), size=1 << 20)
    while not found:
        before = stream.unfinished_size
        found = stream.receive_some(size=1 << 20)
        assert stream.more is not bool(found)
        assert stream.unfinished_size - before <= (1 << 20) + 65536
    assert found[0].data == bytes(10 << 20)
    assert (stream.unfinished, stream.unfinished_size) == (False, 0)


def test_all_names_exist() -> None:
    assert sorted(streaming.__all__) == sorted(set(streaming.__all__))
    assert all(hasattr(streaming, name) for name in streaming.__all__)
    assert {int(opcode) for opcode in Opcode} >= {OPCODE_TEXT, OPCODE_BINARY, OPCODE_PING}

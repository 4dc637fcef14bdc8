"""Frames on the wire: RFC 6455, section 5, in both roles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from ws4py import framing, pureframing
from ws4py.exc import (
    FrameTooLargeException,
    MessageTooBigException,
    ProtocolException,
    UnsupportedFrameTypeException,
    WebSocketException,
)
from ws4py.framing import (
    OPCODE_BINARY,
    OPCODE_CLOSE,
    OPCODE_CONTINUATION,
    OPCODE_PING,
    OPCODE_PONG,
    OPCODE_TEXT,
    Frame,
    FrameParser,
    Opcode,
    apply_mask,
    build_frame,
    fragments,
)
from ws4py.messaging import BinaryMessage, TextMessage

KEY = b"\x37\xfa\x21\x3d"  # the one of the examples in section 5.7
FIN = 0x80
DATA_OPCODES = (OPCODE_TEXT, OPCODE_BINARY)
CONTROL_OPCODES = (OPCODE_CLOSE, OPCODE_PING, OPCODE_PONG)
RESERVED_OPCODES = (0x3, 0x4, 0x5, 0x6, 0x7, 0xB, 0xC, 0xD, 0xE, 0xF)

Frames = list[tuple[int, bytes]]


class Role(NamedTuple):
    """One end of a connection, and what its peer puts on the wire."""

    masked: bool

    @property
    def key(self) -> bytes | None:
        return KEY if self.masked else None

    def parser(self, max_message_size: int | None = None, max_fragments: int | None = None) -> FrameParser:
        return FrameParser(self.masked, max_message_size, max_fragments)

    def frame(self, first: int, payload: bytes = b"") -> bytes:
        return build_frame(first, payload, self.key)

    def header(self, first: int, length: int, extended: bytes = b"") -> bytes:
        """Return any header: the peer of a test need not keep to the rules."""
        return bytes((first, (0x80 if self.masked else 0) | length)) + extended + (KEY if self.masked else b"")


@pytest.fixture(params=[True, False], ids=["server", "client"])
def role(request: pytest.FixtureRequest) -> Role:
    return Role(request.param)


@pytest.fixture(params=[None, 1, 3], ids=["whole", "by 1", "by 3"])
def feed(request: pytest.FixtureRequest) -> Callable[[FrameParser, bytes], Frames]:
    """Feed a parser in pieces of the same size, and return the frames as they were on the wire."""
    step = request.param

    def feed_in_pieces(parser: FrameParser, data: bytes) -> Frames:
        frames: Frames = []
        try:
            for piece in pieces(data, step):
                parser.feed(piece, frames)
        except WebSocketException as error:
            error.args += (frames,)
            raise
        return frames

    return feed_in_pieces


def pieces(data: bytes, step: int | None) -> Iterator[bytes]:
    step = step or len(data) or 1
    return (data[start : start + step] for start in range(0, len(data), step))


def joined(frames: Frames) -> Frames:
    """Join the fragments of each message, as its receiver would."""
    messages: Frames = []
    current: tuple[int, bytes] | None = None
    for first, payload in frames:
        if first & 0x08:
            messages.append((first, payload))
            continue
        current = (first & 0x4F, payload) if current is None else (current[0], current[1] + payload)
        if first & FIN:
            messages.append((FIN | current[0], current[1]))
            current = None
    return messages


# --- masking --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 7, 8, 125, 2046, 2047, 2048, 2049, 2050, 2051, 70001])
@pytest.mark.parametrize("key", [KEY, b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\x01", b"\x80\0\0\0"])
def test_apply_mask_is_the_exclusive_or_of_each_octet_with_the_key(size: int, key: bytes) -> None:
    data = (bytes(range(256)) * (size // 256 + 1))[:size]
    masked = apply_mask(data, key)
    assert masked == bytes(octet ^ key[index % 4] for index, octet in enumerate(data))
    assert type(masked) is bytes
    assert apply_mask(masked, key) == data


@pytest.mark.parametrize("size", [5, 5000])
def test_apply_mask_leaves_what_it_was_given_alone(size: int) -> None:
    data = bytearray(size)
    assert apply_mask(bytes(data), KEY) == (KEY * size)[:size]
    assert data == bytes(size)


# --- writing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "payload", "key", "wire"),
    [
        (0x81, b"Hello", None, "810548656c6c6f"),
        (0x81, b"Hello", KEY, "818537fa213d7f9f4d5158"),
        (0x01, b"Hel", None, "010348656c"),
        (0x80, b"lo", None, "80026c6f"),
        (0x89, b"Hello", None, "890548656c6c6f"),
        (0x8A, b"Hello", KEY, "8a8537fa213d7f9f4d5158"),
    ],
)
def test_the_examples_of_the_rfc(first: int, payload: bytes, key: bytes | None, wire: str) -> None:
    assert build_frame(first, payload, key).hex() == wire
    frames: Frames = []
    parser = FrameParser(expect_masking=key is not None)
    if first == 0x80:
        parser.feed(bytes.fromhex("0100"), [])
    parser.feed(bytes.fromhex(wire), frames)
    assert frames == [(first, payload)]


@pytest.mark.parametrize(
    ("size", "length"),
    [
        (0, "00"),
        (1, "01"),
        (125, "7d"),
        (126, "7e007e"),
        (127, "7e007f"),
        (256, "7e0100"),
        (65535, "7effff"),
        (65536, "7f0000000000010000"),
        (65537, "7f0000000000010001"),
    ],
)
def test_a_length_is_written_in_its_shortest_form(size: int, length: str) -> None:
    header = bytes.fromhex(length)
    payload = b"x" * size
    assert build_frame(0x82, payload) == b"\x82" + header + payload
    masked = bytes((header[0] | 0x80,)) + header[1:]
    assert build_frame(0x82, payload, KEY) == b"\x82" + masked + KEY + apply_mask(payload, KEY)


def test_a_frame_longer_than_can_be_written_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pureframing, "MAX_PAYLOAD", 65536)
    assert len(pureframing.build_frame(0x82, bytes(65536))) == 65546
    with pytest.raises(FrameTooLargeException):
        pureframing.build_frame(0x82, bytes(65537))


# --- reading --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 124, 125, 126, 127, 65535, 65536, 65537])
@pytest.mark.parametrize("opcode", DATA_OPCODES)
def test_a_frame_of_any_length_comes_back(role: Role, opcode: int, size: int) -> None:
    payload = (b"0123456789abcdef!" * (size // 17 + 1))[:size]
    for step in (None, 1009):
        frames: Frames = []
        parser = role.parser()
        for piece in pieces(role.frame(FIN | opcode, payload) + role.frame(0x89, b"after"), step):
            parser.feed(piece, frames)
        assert joined(frames) == [(FIN | opcode, payload), (0x89, b"after")]


@pytest.mark.parametrize("opcode", CONTROL_OPCODES)
@pytest.mark.parametrize("size", [0, 1, 124, 125])
def test_a_control_frame_comes_whole(
    role: Role, feed: Callable[[FrameParser, bytes], Frames], opcode: int, size: int
) -> None:
    payload = b"x" * size
    assert feed(role.parser(), role.frame(FIN | opcode, payload)) == [(FIN | opcode, payload)]


@pytest.mark.parametrize("opcode", CONTROL_OPCODES)
@pytest.mark.parametrize(("length", "extended"), [(126, b"\0\x7e"), (126, b"\0\x01"), (127, bytes(7) + b"\x7e")])
def test_a_control_frame_over_125_bytes_is_refused(
    role: Role, feed: Callable[[FrameParser, bytes], Frames], opcode: int, length: int, extended: bytes
) -> None:
    with pytest.raises(ProtocolException, match="125"):
        feed(role.parser(), role.header(FIN | opcode, length, extended))


@pytest.mark.parametrize("opcode", CONTROL_OPCODES)
@pytest.mark.parametrize("length", [126, 127])
def test_two_bytes_are_enough_to_refuse_a_long_control_frame(role: Role, opcode: int, length: int) -> None:
    with pytest.raises(ProtocolException):
        role.parser().feed(role.header(FIN | opcode, length)[:2], [])


@pytest.mark.parametrize("opcode", CONTROL_OPCODES)
def test_a_control_frame_is_never_a_fragment(
    role: Role, feed: Callable[[FrameParser, bytes], Frames], opcode: int
) -> None:
    with pytest.raises(ProtocolException, match="fragmented"):
        feed(role.parser(), role.frame(opcode))


@pytest.mark.parametrize("opcode", RESERVED_OPCODES)
@pytest.mark.parametrize("fin", [0, FIN])
@pytest.mark.parametrize("rsv1", [False, True], ids=["", "rsv1 allowed"])
def test_a_reserved_opcode_is_refused(
    role: Role, feed: Callable[[FrameParser, bytes], Frames], opcode: int, fin: int, rsv1: bool
) -> None:
    parser = role.parser()
    if rsv1:
        parser.allow_rsv1()
    with pytest.raises(UnsupportedFrameTypeException, match=f"{opcode:#x}"):
        feed(parser, role.frame(fin | opcode))


@pytest.mark.parametrize("opcode", [int(opcode) for opcode in Opcode])
@pytest.mark.parametrize("reserved", [bits << 4 for bits in range(1, 8)])
def test_a_reserved_bit_is_refused(
    role: Role, feed: Callable[[FrameParser, bytes], Frames], opcode: int, reserved: int
) -> None:
    with pytest.raises(UnsupportedFrameTypeException, match="bit"):
        feed(role.parser(), role.frame(FIN | reserved | opcode))


@pytest.mark.parametrize("fin", [0, FIN])
@pytest.mark.parametrize("opcode", DATA_OPCODES)
def test_rsv1_can_be_allowed_on_the_first_frame_of_a_message(
    role: Role, feed: Callable[[FrameParser, bytes], Frames], opcode: int, fin: int
) -> None:
    parser = role.parser()
    parser.allow_rsv1()
    wire = role.frame(fin | 0x40 | opcode, b"abcdefg") + (b"" if fin else role.frame(FIN, b"hi"))
    assert joined(feed(parser, wire)) == [(FIN | 0x40 | opcode, b"abcdefg" if fin else b"abcdefghi")]


@pytest.mark.parametrize("first", [0xC8, 0xC9, 0xCA, 0xC0, 0x40, 0xE1, 0xD2, 0x71, 0x62])
def test_rsv1_is_refused_elsewhere_though_it_is_allowed(role: Role, first: int) -> None:
    parser = role.parser()
    parser.allow_rsv1()
    parser.feed(role.frame(OPCODE_TEXT), [])
    with pytest.raises(UnsupportedFrameTypeException):
        parser.feed(role.frame(first), [])


@pytest.mark.parametrize("opcode", [int(opcode) for opcode in Opcode])
def test_masking_must_be_as_the_role_demands(
    role: Role, feed: Callable[[FrameParser, bytes], Frames], opcode: int
) -> None:
    parser = role.parser()
    feed(parser, role.frame(OPCODE_TEXT, b"so that a continuation has its place"))
    with pytest.raises(ProtocolException, match="must be masked" if role.masked else "may not be masked"):
        feed(parser, build_frame(FIN | opcode, b"", None if role.masked else KEY))


def test_the_masking_that_is_expected_can_be_changed() -> None:
    parser = FrameParser()
    assert parser.expect_masking is True
    parser.expect_masking = False
    assert parser.expect_masking is False
    frames: Frames = []
    parser.feed(build_frame(0x81, b"bare"), frames)
    assert frames == [(0x81, b"bare")]
    with pytest.raises(ProtocolException):
        parser.feed(build_frame(0x81, b"masked", KEY), frames)


@pytest.mark.parametrize(
    ("length", "extended"),
    [
        (126, "0000"),
        (126, "0001"),
        (126, "007d"),
        (127, "0000000000000000"),
        (127, "000000000000007d"),
        (127, "000000000000007e"),
        (127, "000000000000ffff"),
    ],
)
@pytest.mark.parametrize("opcode", DATA_OPCODES)
def test_a_length_not_in_its_shortest_form_is_refused(
    role: Role, feed: Callable[[FrameParser, bytes], Frames], opcode: int, length: int, extended: str
) -> None:
    with pytest.raises(ProtocolException, match="shortest"):
        feed(role.parser(), role.header(FIN | opcode, length, bytes.fromhex(extended)))


@pytest.mark.parametrize("extended", ["8000000000000000", "ffffffffffffffff", "8000000000000001"])
@pytest.mark.parametrize("limit", [None, 10])
def test_the_most_significant_bit_of_a_length_must_be_0(
    role: Role, feed: Callable[[FrameParser, bytes], Frames], extended: str, limit: int | None
) -> None:
    with pytest.raises(ProtocolException, match="significant"):
        feed(role.parser(limit), role.header(0x82, 127, bytes.fromhex(extended)))


def test_the_longest_frame_there_can_be_needs_no_memory_at_its_header(role: Role) -> None:
    frames: Frames = []
    parser = role.parser()
    parser.feed(role.header(0x82, 127, b"\x7f" + b"\xff" * 7), frames)
    parser.feed(apply_mask(b"begin", KEY) if role.masked else b"begin", frames)
    assert frames == [(OPCODE_BINARY, b""), (OPCODE_CONTINUATION, b"begin")]


# --- messages of several frames -------------------------------------------------------------------------------------


@pytest.mark.parametrize("opcode", DATA_OPCODES)
def test_fragments_keep_their_order_with_control_frames_between(
    role: Role, feed: Callable[[FrameParser, bytes], Frames], opcode: int
) -> None:
    wire = (
        role.frame(opcode, b"one,")
        + role.frame(0x89, b"ping")
        + role.frame(OPCODE_CONTINUATION, b"")
        + role.frame(0x8A, b"")
        + role.frame(OPCODE_CONTINUATION, b"two,")
        + role.frame(FIN, b"three")
        + role.frame(FIN | opcode, b"next")
    )
    frames = feed(role.parser(), wire)
    assert [frame for frame in frames if frame[0] & 8] == [(0x89, b"ping"), (0x8A, b"")]
    assert joined(frames) == [(0x89, b"ping"), (0x8A, b""), (FIN | opcode, b"one,two,three"), (FIN | opcode, b"next")]


def test_an_empty_last_fragment_ends_a_message(role: Role, feed: Callable[[FrameParser, bytes], Frames]) -> None:
    wire = role.frame(OPCODE_TEXT) + role.frame(OPCODE_CONTINUATION) + role.frame(FIN)
    assert feed(role.parser(), wire) == [(OPCODE_TEXT, b""), (OPCODE_CONTINUATION, b""), (FIN, b"")]


@pytest.mark.parametrize("fin", [0, FIN])
@pytest.mark.parametrize("before", [(), (0x81,), (0x01, 0x80), (0x89,)])
def test_a_continuation_must_continue_something(
    role: Role, feed: Callable[[FrameParser, bytes], Frames], before: tuple[int, ...], fin: int
) -> None:
    parser = role.parser()
    feed(parser, b"".join(role.frame(first, b"x") for first in before))
    with pytest.raises(ProtocolException, match="continue"):
        feed(parser, role.frame(fin | OPCODE_CONTINUATION))


@pytest.mark.parametrize("fin", [0, FIN])
@pytest.mark.parametrize("opcode", DATA_OPCODES)
@pytest.mark.parametrize("between", [(), (0x00,), (0x89,)])
def test_a_message_must_end_before_the_next_begins(
    role: Role, feed: Callable[[FrameParser, bytes], Frames], between: tuple[int, ...], opcode: int, fin: int
) -> None:
    parser = role.parser()
    feed(parser, role.frame(OPCODE_TEXT, b"x") + b"".join(role.frame(first, b"y") for first in between))
    with pytest.raises(ProtocolException, match="ended"):
        feed(parser, role.frame(fin | opcode))


def test_what_came_before_a_bad_header_is_not_lost(role: Role, feed: Callable[[FrameParser, bytes], Frames]) -> None:
    wire = role.frame(0x81, b"one") + role.frame(0x89, b"two") + role.frame(0x83, b"three") + role.frame(0x81, b"four")
    with pytest.raises(UnsupportedFrameTypeException) as caught:
        feed(role.parser(), wire)
    assert joined(caught.value.args[-1]) == [(0x81, b"one"), (0x89, b"two")]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 130])
def test_a_payload_is_handed_on_as_it_comes_and_unmasked_where_it_was_cut(role: Role, size: int) -> None:
    payload = bytes(range(size))
    wire = role.frame(0x82, payload)
    header = len(wire) - size
    for cut in range(header, len(wire)):
        frames: Frames = []
        parser = role.parser()
        parser.feed(wire[:cut], frames)
        assert frames == [(OPCODE_BINARY, payload[: cut - header])], "all that has come, and not yet final"
        parser.feed(b"", frames)
        assert len(frames) == 1
        parser.feed(wire[cut:], frames)
        assert frames[1:] == [(FIN, payload[cut - header :])]


def test_nothing_is_handed_on_before_a_header_is_whole(role: Role) -> None:
    wire = role.frame(0x82, bytes(70000))
    parser = role.parser()
    frames: Frames = []
    for octet in wire[: len(wire) - 70001]:
        parser.feed(bytes((octet,)), frames)
    assert frames == []


# --- a whole message at once ----------------------------------------------------------------------------------------


def taken_whole(parser: FrameParser, data: bytes) -> bytes | None:
    """Return the payload of the message that a parser takes; None if it leaves it to be fed."""
    message = parser.take_message(data, TextMessage, BinaryMessage)
    assert message is None or type(message) is (TextMessage if data[0] & 1 else BinaryMessage)
    return None if message is None else message.data


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 125])
@pytest.mark.parametrize("first", [0x81, 0x82])
def test_a_short_message_that_comes_by_itself_is_taken_whole(role: Role, first: int, size: int) -> None:
    payload = bytes(range(size))
    assert taken_whole(role.parser(), role.frame(first, payload)) == payload


@pytest.mark.parametrize("difference", [-1, 0, 1])
def test_nothing_else_is_taken_whole(role: Role, difference: int) -> None:
    """Whatever the header: what is taken is what the parser would have found, and nothing is left out."""
    for first in range(256):
        for second in range(256):
            length = (second & 0x7F) + (4 if role.masked else 0)
            data = bytes((first, second)) + bytes(number % 100 for number in range(length))  # ASCII if it is a text
            data = data[:-1] if difference < 0 else data + bytes(difference)
            payload = taken_whole(role.parser(), data)
            right = first in (0x81, 0x82) and second & 0x7F < 126 and bool(second & 0x80) is role.masked
            assert (payload is not None) is (right and not difference)
            if payload is not None:
                frames: Frames = []
                role.parser().feed(data, frames)
                assert frames == [(first, payload)]


@pytest.mark.parametrize("limit", [None, 0, 5, 125])
def test_short_frames_are_parsed_as_any_others(role: Role, limit: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The branch for them in ``feed`` finds what the rest of it would."""
    data = [
        bytes((first, second)) + bytes(range(position, position + length))
        for position, first in enumerate([0x81, 0x82, 0x01, 0x80, 0x82, 0xC1, 0x89, 0x81])
        for second in (0x00, 0x05, 0x7D, 0x7E, 0x80, 0x81, 0xFD)
        for length in ((second & 0x7F) + (4 if role.masked else 0), 1)
    ]
    wires = [before + last for before in (b"", role.frame(0x82, b"x"), role.frame(0x01, b"x")) for last in data]

    def parse(wire: bytes) -> tuple[Any, ...]:
        parser = role.parser(limit)
        frames: Frames = []
        try:
            parser.feed(wire, frames, 3)
            error = None
        except WebSocketException as raised:
            error = type(raised), str(raised)
        return frames, error, parser.count, parser.more, parser.inside_message

    by_the_short_way = [parse(wire) for wire in wires]
    monkeypatch.setattr("ws4py.pureframing._SHORT_SIZES", 0)
    assert by_the_short_way == [parse(wire) for wire in wires]


def test_a_text_that_is_not_utf8_is_not_taken_whole(role: Role) -> None:
    """The connection is to be closed for it, which is not the parser's business."""
    for payload, valid in (("é".encode(), True), (b"\xff", False), (b"a" * 200 + b"\xc3", False)):
        assert taken_whole(role.parser(), role.frame(0x81, payload)) == (payload if valid else None)
        assert taken_whole(role.parser(), role.frame(0x82, payload)) == payload


@pytest.mark.parametrize("size", [126, 127, 2047, 2048, 65535])
def test_a_longer_message_is_taken_whole(role: Role, size: int) -> None:
    payload = b"long" * (size // 4) + b"!" * (size % 4)
    wire = role.frame(0x82, payload)
    assert taken_whole(role.parser(), wire) == payload
    assert taken_whole(role.parser(max_message_size=size), wire) == payload
    assert taken_whole(role.parser(max_message_size=size - 1), wire) is None
    assert taken_whole(role.parser(), wire[:-1]) is None
    assert taken_whole(role.parser(), wire + b"!") is None
    assert taken_whole(role.parser(), role.frame(0x02, payload)) is None


@pytest.mark.parametrize("size", [0, 125, 65536])
def test_a_length_that_is_not_in_its_shortest_form_is_not_taken_whole(role: Role, size: int) -> None:
    mask = 0x80 if role.masked else 0
    key = bytes(4) if role.masked else b""
    wire = bytes((0x82, mask | 126)) + (size & 0xFFFF).to_bytes(2, "big") + key + bytes(size)
    assert taken_whole(role.parser(), wire) is None
    assert taken_whole(role.parser(), role.frame(0x82, bytes(65536))) is None


def test_what_is_too_short_for_a_header_is_not_taken_whole(role: Role) -> None:
    wire = role.frame(0x82)
    assert [taken_whole(role.parser(), wire[:size]) for size in range(len(wire))] == [None] * len(wire)


def test_nothing_is_taken_whole_in_the_middle_of_something(role: Role) -> None:
    wire = role.frame(0x82, b"whole")
    for begun in (wire[:1], wire[:-1], role.frame(0x02, b"part")):
        parser = role.parser()
        parser.feed(begun, [])
        assert taken_whole(parser, wire) is None


def test_what_is_too_large_is_not_taken_whole(role: Role) -> None:
    assert taken_whole(role.parser(max_message_size=5), role.frame(0x82, b"small")) == b"small"
    assert taken_whole(role.parser(max_message_size=5), role.frame(0x82, b"larger")) is None
    assert taken_whole(role.parser(max_message_size=0), role.frame(0x82)) == b""


# --- limits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65536])
def test_a_message_of_the_largest_size_passes(role: Role, size: int) -> None:
    frames: Frames = []
    role.parser(max_message_size=size).feed(role.frame(0x82, bytes(size)) * 2, frames)
    assert frames == [(0x82, bytes(size))] * 2


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65536])
@pytest.mark.parametrize("fin", [0, FIN])
def test_a_larger_message_is_refused_at_its_header(role: Role, size: int, fin: int) -> None:
    wire = role.frame(fin | OPCODE_BINARY, bytes(size + 1))
    frames: Frames = []
    with pytest.raises(MessageTooBigException, match=str(size)):
        role.parser(max_message_size=size).feed(wire[: len(wire) - size - 1], frames)
    assert frames == []


def test_the_size_of_a_message_is_that_of_all_its_fragments(role: Role) -> None:
    frames: Frames = []
    parser = role.parser(max_message_size=10)
    exact = role.frame(0x02, bytes(4)) + role.frame(0x89, bytes(100)) + role.frame(0x00, bytes(6)) + role.frame(0x80)
    parser.feed(exact * 2, frames)
    over = role.frame(0x02, bytes(4)) + role.frame(0x00, bytes(6)) + role.frame(0x80, b"!")
    frames.clear()
    with pytest.raises(MessageTooBigException):
        parser.feed(over[:-1], frames)
    assert frames == [(0x02, bytes(4)), (0x00, bytes(6))]


def test_the_announced_bytes_of_a_fragment_count_and_not_the_pieces_it_came_in(role: Role) -> None:
    parser = role.parser(max_message_size=10, max_fragments=2)
    frames: Frames = []
    for octet in role.frame(0x02, bytes(5)) + role.frame(0x80, bytes(5)):
        parser.feed(bytes((octet,)), frames)
    assert joined(frames) == [(0x82, bytes(10))]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_message_of_the_most_fragments_passes(role: Role, count: int) -> None:
    message = [0x82] if count == 1 else [0x02, *[0x00] * (count - 2), 0x80]
    frames: Frames = []
    role.parser(max_fragments=count).feed(b"".join(role.frame(first) for first in message * 2), frames)
    assert [first for first, _ in frames] == message * 2


@pytest.mark.parametrize("count", [1, 2, 5])
def test_more_fragments_are_refused(role: Role, feed: Callable[[FrameParser, bytes], Frames], count: int) -> None:
    # That one more must come is known when the last that is allowed does not end the message.
    with pytest.raises(MessageTooBigException, match=f"{count} fragments"):
        feed(role.parser(max_fragments=count), role.frame(0x02) + role.frame(0x00) * (count - 1))


def test_control_frames_are_no_fragments(role: Role) -> None:
    frames: Frames = []
    role.parser(max_fragments=2).feed(role.frame(0x02) + role.frame(0x89) * 9 + role.frame(0x80), frames)
    assert len(frames) == 11


def test_no_limits(role: Role) -> None:
    frames: Frames = []
    role.parser().feed(role.frame(0x02, b"x") + role.frame(0x00, b"x") * 9999 + role.frame(0x80), frames)
    assert len(frames) == 10001


# --- the frame of 0.6 -----------------------------------------------------------------------------------------------


def test_the_opcodes_are_those_of_the_rfc_and_plain_integers() -> None:
    by_name = {
        name.removeprefix("OPCODE_"): value for name, value in vars(framing).items() if name.startswith("OPCODE_")
    }
    assert by_name == {"CONTINUATION": 0, "TEXT": 1, "BINARY": 2, "CLOSE": 8, "PING": 9, "PONG": 10}
    assert {type(value) for value in by_name.values()} == {int}
    assert by_name == {opcode.name: opcode.value for opcode in Opcode}


def test_frame_keeps_its_fields() -> None:
    frame = Frame(OPCODE_TEXT, b"body", KEY, 1, 1, 0, 1)
    assert (frame.opcode, frame.body, frame.masking_key, frame.fin) == (OPCODE_TEXT, b"body", KEY, 1)
    assert (frame.rsv1, frame.rsv2, frame.rsv3, frame.payload_length) == (1, 0, 1, 4)
    empty = Frame()
    assert (empty.opcode, empty.body, empty.masking_key, empty.fin, empty.payload_length) == (None, b"", None, 0, 0)


@pytest.mark.parametrize("body", [b"Hello", bytearray(b"Hello")])
def test_frame_builds_the_examples_of_the_rfc(body: bytes | bytearray) -> None:
    assert Frame(opcode=OPCODE_TEXT, body=body, fin=1).build().hex() == "810548656c6c6f"
    assert Frame(opcode=OPCODE_TEXT, body=body, masking_key=KEY, fin=1).build().hex() == "818537fa213d7f9f4d5158"
    assert Frame(OPCODE_TEXT, b"Hel").build().hex() == "010348656c"


def test_frame_builds_without_a_mask_for_an_empty_key() -> None:
    """0.6 took every false key for none."""
    assert Frame(OPCODE_TEXT, b"Hello", masking_key=b"", fin=1).build().hex() == "810548656c6c6f"


@pytest.mark.parametrize(("bit", "first"), [("fin", 0x81), ("rsv1", 0x41), ("rsv2", 0x21), ("rsv3", 0x11)])
def test_frame_builds_each_bit_in_its_place(bit: str, first: int) -> None:
    frame = Frame(OPCODE_TEXT)
    setattr(frame, bit, 1)
    assert frame.build() == bytes((first, 0))


@pytest.mark.parametrize("fin", [-1, 2])
def test_frame_refuses_a_fin_that_is_no_bit(fin: int) -> None:
    with pytest.raises(ValueError, match="FIN"):
        Frame(OPCODE_TEXT, fin=fin).build()


@pytest.mark.parametrize("opcode", [None, -1, 16, 255, *RESERVED_OPCODES])
def test_frame_refuses_a_reserved_opcode(opcode: int | None) -> None:
    with pytest.raises(ValueError, match=r"[Oo]pcode"):
        Frame(opcode, fin=1).build()


# --- a message in parts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "frames"),
    [
        ([], [(0x81, b"")]),
        ([b""], [(0x81, b"")]),
        ([b"a"], [(0x81, b"a")]),
        ([b"a", b"b"], [(0x01, b"a"), (0x80, b"b")]),
        ([b"a", b"", b"c"], [(0x01, b"a"), (0x00, b""), (0x80, b"c")]),
        ([b"a", b""], [(0x01, b"a"), (0x80, b"")]),
    ],
)
def test_the_frames_of_a_message_in_parts(parts: list[bytes], frames: list[tuple[int, bytes]]) -> None:
    assert list(fragments(OPCODE_TEXT, parts)) == frames


def test_a_part_is_told_when_the_next_one_is_there() -> None:
    made: list[bytes] = []

    def parts() -> Iterator[bytes]:
        for part in (b"a", b"b", b"c"):
            made.append(part)
            yield part

    frames = fragments(OPCODE_BINARY, parts())
    assert made == []
    assert next(frames) == (0x02, b"a")
    assert made == [b"a", b"b"]


@pytest.mark.parametrize("body", ["text", None, 5, [1]])
def test_frame_refuses_a_body_that_is_not_bytes(body: object) -> None:
    with pytest.raises(TypeError):
        Frame(OPCODE_TEXT, body)  # type: ignore[arg-type]


@pytest.mark.parametrize("data", [b"Hello", bytearray(b"Hello")])
def test_frame_masks_and_unmasks(data: bytes | bytearray) -> None:
    frame = Frame(OPCODE_TEXT, masking_key=KEY)
    assert frame.mask(data).hex() == "7f9f4d5158"
    assert frame.unmask(frame.mask(data)) == b"Hello"
    assert Frame(OPCODE_TEXT).mask(data) == b"Hello"


def test_an_accelerator_can_replace_mask_and_unmask(monkeypatch: pytest.MonkeyPatch) -> None:
    def mask(frame: Frame, data: bytes) -> bytes:
        return b"replaced" if frame.masking_key else data

    monkeypatch.setattr("ws4py.framing.Frame.mask", mask)
    monkeypatch.setattr("ws4py.framing.Frame.unmask", mask)
    frame = Frame(OPCODE_TEXT, b"Hello", KEY, fin=1)
    assert frame.mask(b"Hello") == frame.unmask(b"Hello") == b"replaced"
    assert len(frame.build()) == 11


def test_all_names_exist() -> None:
    assert sorted(framing.__all__) == sorted(set(framing.__all__))
    assert all(hasattr(framing, name) for name in framing.__all__)

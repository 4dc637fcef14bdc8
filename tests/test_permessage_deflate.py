"""permessage-deflate, below the I/O line: what is agreed on, and what is on the wire, in both roles."""

from __future__ import annotations

import gc
import itertools
import json
import random
import sys
import tracemalloc
import zlib
from typing import Any

import pytest
import websockets.extensions.permessage_deflate as theirs
import wsproto.extensions
from websockets.frames import Frame, Opcode
from wsproto.frame_protocol import FrameProtocol

from tests.test_extensions import answer, request
from ws4py.exc import HandshakeError
from ws4py.extensions import Parameters
from ws4py.extensions.header import format_extension, parse_extensions
from ws4py.extensions.permessage_deflate import MAX_ENDS, DeflateAgreement, DeflateCodec, PerMessageDeflate
from ws4py.framing import RSV1, build_frame
from ws4py.handshake import negotiate
from ws4py.messaging import Message
from ws4py.streaming import Stream

KEY = b"\x37\xfa\x21\x3d"
HELLO = bytes.fromhex("f248cdc9c90700")
TAIL = b"\x00\x00\xff\xff"
TEXT = json.dumps([{"id": number, "name": f"name {number}", "ok": True} for number in range(100)]).encode()


def agreement(**changes: Any) -> DeflateAgreement:
    return DeflateAgreement(
        **{
            "forgets": True,
            "peer_forgets": True,
            "bits": 15,
            "peer_bits": 15,
            "level": 6,
            "memory_level": 8,
            "threshold": 0,
            **changes,
        }
    )


def stream_with(*limits: int | None, **changes: Any) -> Stream:
    """Return a server's stream with compression."""
    stream = Stream(False, True, *limits) if limits else Stream()
    stream.use(agreement(**changes).codec())
    return stream


def codec_of(stream: Stream) -> DeflateCodec:
    assert isinstance(stream.codec, DeflateCodec)
    return stream.codec


def frame(first: int, payload: bytes) -> bytes:
    """Return a frame of a client."""
    return build_frame(first, payload, KEY)


def deflate(payload: bytes, wbits: int = -15, level: int = 6) -> bytes:
    compressor = zlib.compressobj(level, zlib.DEFLATED, wbits)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def data_of(messages: list[Message]) -> list[bytes]:
    return [message.data for message in messages]


def parts_of(wire: bytes) -> list[tuple[int, bytes]]:
    """Return the frames of a server."""
    frames: list[tuple[int, bytes]] = []
    while wire:
        size = wire[1]
        start = 2
        if size > 125:
            start = 4 if size == 126 else 10
            size = int.from_bytes(wire[2:start], "big")
        frames.append((wire[0], wire[start : start + size]))
        wire = wire[start + size :]
    return frames


# --- what is agreed on ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("server_max_window_bits", 7),
        ("server_max_window_bits", 16),
        ("client_max_window_bits", 7),
        ("client_max_window_bits", "10"),
        ("level", 10),
        ("level", -2),
        ("memory_level", 0),
        ("memory_level", 10),
        ("threshold", -1),
        ("threshold", 1.5),
        ("level", True),
    ],
)
def test_a_parameter_out_of_range_is_refused(name: str, bad: Any) -> None:
    with pytest.raises(ValueError, match=name):
        PerMessageDeflate(**{name: bad})


ANYTHING = PerMessageDeflate(False, False)
SMALL = PerMessageDeflate()
NARROW = PerMessageDeflate(False, False, server_max_window_bits=10, client_max_window_bits=11)

CHROMIUM = "permessage-deflate; client_max_window_bits"
FIREFOX = "permessage-deflate"
SAFARI = "permessage-deflate"
OLD_SAFARI = "x-webkit-deflate-frame"


@pytest.mark.parametrize(
    ("server", "offered", "answered"),
    [
        # browsers
        (SMALL, CHROMIUM, "; server_no_context_takeover; client_no_context_takeover"),
        (SMALL, FIREFOX, "; server_no_context_takeover; client_no_context_takeover"),
        (SMALL, SAFARI, "; server_no_context_takeover; client_no_context_takeover"),
        (SMALL, OLD_SAFARI, None),
        (ANYTHING, CHROMIUM, ""),
        (ANYTHING, FIREFOX, ""),
        (ANYTHING, f"{OLD_SAFARI}, {SAFARI}", ""),
        # section 7.1.2.2: a client that does not offer it may not be told its window
        (NARROW, CHROMIUM, "; server_max_window_bits=10; client_max_window_bits=11"),
        (NARROW, FIREFOX, "; server_max_window_bits=10"),
        (
            NARROW,
            "permessage-deflate; client_max_window_bits=9",
            "; server_max_window_bits=10; client_max_window_bits=9",
        ),
        (
            NARROW,
            "permessage-deflate; client_max_window_bits=15",
            "; server_max_window_bits=10; client_max_window_bits=11",
        ),
        (NARROW, "permessage-deflate; server_max_window_bits=12", "; server_max_window_bits=10"),
        (NARROW, "permessage-deflate; server_max_window_bits=8", "; server_max_window_bits=8"),
        (ANYTHING, "permessage-deflate; server_max_window_bits=15", "; server_max_window_bits=15"),
        (ANYTHING, 'permessage-deflate; server_max_window_bits="10"', "; server_max_window_bits=10"),
        (ANYTHING, "permessage-deflate; client_max_window_bits=15", ""),
        (ANYTHING, "permessage-deflate; server_no_context_takeover", "; server_no_context_takeover"),
        (ANYTHING, "permessage-deflate; client_no_context_takeover", "; client_no_context_takeover"),
        # section 7.1: what is unknown, repeated or out of range is declined; the next offer may do
        *(
            (ANYTHING, f"permessage-deflate; {bad}", None)
            for bad in (
                "unknown",
                "Server_no_context_takeover",
                "server_no_context_takeover=1",
                "client_no_context_takeover=true",
                "server_no_context_takeover; server_no_context_takeover",
                "client_max_window_bits; client_max_window_bits=10",
                "server_max_window_bits",
                *(
                    f"{name}_max_window_bits={bits}"
                    for name in ("client", "server")
                    for bits in ("7", "16", "08", "x", "+9")
                ),
            )
        ),
        (
            ANYTHING,
            "permessage-deflate; unknown, permessage-deflate; server_max_window_bits=9",
            "; server_max_window_bits=9",
        ),
        (ANYTHING, "permessage-deflate; server_max_window_bits=9, permessage-deflate", "; server_max_window_bits=9"),
        (ANYTHING, "permessage-bzip2, PERMESSAGE-DEFLATE", None),
        (ANYTHING, "", None),
    ],
)
def test_a_server_answers_an_offer(server: PerMessageDeflate, offered: str, answered: str | None) -> None:
    accepted = negotiate("GET", request(offered), extensions=[server])
    headers = dict(accepted.headers)
    assert headers.get("Sec-WebSocket-Extensions") == (None if answered is None else "permessage-deflate" + answered)
    assert accepted.extensions == (() if answered is None else ("permessage-deflate",))
    assert (accepted.agreement is None) is (answered is None)


def test_nothing_is_granted_unless_it_is_wanted() -> None:
    assert negotiate("GET", request(CHROMIUM)).extensions == ()


@pytest.mark.parametrize(
    ("client", "answered", "agreed"),
    [
        (ANYTHING, "", (False, False, 15, 15)),
        (ANYTHING, "; server_no_context_takeover", (False, True, 15, 15)),
        (ANYTHING, "; client_no_context_takeover", (True, False, 15, 15)),
        (ANYTHING, "; server_max_window_bits=9; client_max_window_bits=10", (False, False, 10, 9)),
        (ANYTHING, '; client_max_window_bits="10"', (False, False, 10, 15)),
        (SMALL, "; server_no_context_takeover", (True, True, 15, 15)),
        (NARROW, "; server_max_window_bits=10", (False, False, 11, 10)),
        (NARROW, "; server_max_window_bits=9; client_max_window_bits=8", (False, False, 8, 9)),
        (SMALL, "", None),  # not granted
        (NARROW, "", None),
        (NARROW, "; server_max_window_bits=11", None),  # too large
        (NARROW, "; server_max_window_bits=10; client_max_window_bits=12", None),
        (ANYTHING, "; client_max_window_bits", None),  # needs a value in an answer
        (ANYTHING, "; server_max_window_bits", None),
        (ANYTHING, "; server_max_window_bits=16", None),
        (ANYTHING, "; unknown", None),
        (ANYTHING, "; server_no_context_takeover=1", None),
        (ANYTHING, "; client_no_context_takeover; client_no_context_takeover", None),
        (ANYTHING, ", permessage-deflate", None),
    ],
)
def test_a_client_checks_the_answer(
    client: PerMessageDeflate, answered: str, agreed: tuple[bool, bool, int, int] | None
) -> None:
    if agreed is None:
        with pytest.raises(HandshakeError, match="extension"):
            answer("permessage-deflate" + answered, [client])
        return
    got = answer("permessage-deflate" + answered, [client]).agreement
    assert isinstance(got, DeflateAgreement)
    assert (got.forgets, got.peer_forgets, got.bits, got.peer_bits) == agreed


def test_a_client_must_have_asked() -> None:
    with pytest.raises(HandshakeError, match="not offered"):
        answer("permessage-deflate", [])


def test_connections_that_agree_alike_share_what_they_know() -> None:
    first, second = (negotiate("GET", request(CHROMIUM), extensions=[PerMessageDeflate()]) for _ in range(2))
    assert first.agreement is second.agreement


def all_wishes() -> list[PerMessageDeflate]:
    takeovers = itertools.product((False, True), repeat=2)
    return [
        PerMessageDeflate(takeover[0], takeover[1], bits[0], bits[1], threshold=0)
        for takeover in takeovers
        for bits in ((15, 15), (8, 15), (15, 8), (9, 12))
    ]


def agree(client: PerMessageDeflate, server: PerMessageDeflate) -> tuple[DeflateAgreement, DeflateAgreement]:
    """Return what a client and a server make of each other's headers."""
    (offer,) = client.offers()
    ((_, received),) = parse_extensions(format_extension(client.name, offer))
    accepted = server.accept(received)
    assert accepted is not None
    ((_, answered),) = parse_extensions(format_extension(server.name, accepted[0]))
    return client.check(answered), accepted[1]


def test_both_roles_understand_each_other_by_whatever_parameters() -> None:
    for client, server in itertools.product(all_wishes(), repeat=2):
        ours, its = agree(client, server)
        assert (ours.forgets, ours.peer_forgets) == (its.peer_forgets, its.forgets)
        assert (ours.bits, ours.peer_bits) == (its.peer_bits, its.bits)
        one, other = Stream(True, False), Stream()
        one.use(ours.codec())
        other.use(its.codec())
        for sender, receiver in ((one, other), (other, one)):
            wire = b"".join(sender.encode_message(1, text) for text in (TEXT, b"a", TEXT, TEXT[:50]))
            assert data_of(receiver.receive(wire)) == [TEXT, b"a", TEXT, TEXT[:50]]
            assert receiver.error is None


# --- the examples of section 7.2.3 ----------------------------------------------------------------------------------


def test_7_2_3_1_one_block() -> None:
    assert data_of(stream_with().receive(frame(0xC1, HELLO))) == [b"Hello"]
    assert agreement().codec().encode(b"Hello" * 10) == (RSV1, deflate(b"Hello" * 10))
    codec = agreement(forgets=False).codec()
    assert codec.encode(b"Hello") == (RSV1, HELLO)


def test_7_2_3_1_in_fragments() -> None:
    stream = stream_with()
    assert stream.receive(frame(0x41, HELLO[:3])) == []
    assert data_of(stream.receive(frame(0x80, HELLO[3:]))) == [b"Hello"]


def test_7_2_3_2_sharing_the_window() -> None:
    stream = stream_with(peer_forgets=False)
    assert data_of(stream.receive(frame(0xC1, HELLO) * 2)) == [b"Hello", b"Hello"]
    assert data_of(stream.receive(frame(0xC1, bytes.fromhex("f200110000")))) == [b"Hello"]
    codec = agreement(forgets=False).codec()
    assert [codec.encode(b"Hello")[1] for _ in range(2)] == [HELLO, bytes.fromhex("f200110000")]
    stream = stream_with()  # but not if nothing is to be taken over
    stream.receive(frame(0xC1, HELLO) + frame(0xC1, bytes.fromhex("f200110000")))
    assert stream.error is not None
    assert stream.error.code == 1007


def test_7_2_3_3_a_block_without_compression() -> None:
    assert data_of(stream_with().receive(frame(0xC1, bytes.fromhex("000500faff48656c6c6f00")))) == [b"Hello"]


@pytest.mark.parametrize("takeover", [False, True])
def test_7_2_3_4_a_block_that_says_it_is_the_last(takeover: bool) -> None:
    stream = stream_with(peer_forgets=not takeover)
    final = bytes.fromhex("f348cdc9c9070000")
    for _ in range(3):
        assert data_of(stream.receive(frame(0xC1, final))) == [b"Hello"]
        assert data_of(stream.receive(frame(0xC1, HELLO))) == [b"Hello"]
    assert data_of(stream.receive(frame(0x41, final[:-1]) + frame(0, final[:-1]) + frame(0x80, final))) == [
        b"Hello" * 3
    ]


def test_7_2_3_5_two_blocks() -> None:
    assert data_of(stream_with().receive(frame(0xC1, bytes.fromhex("f248050000 00ffffcac9c90700")))) == [b"Hello"]


@pytest.mark.parametrize("takeover", [False, True])
def test_7_2_3_6_an_empty_message(takeover: bool) -> None:
    stream = stream_with(peer_forgets=not takeover)
    wire = frame(0xC1, b"\x00") + frame(0xC1, HELLO) + frame(0xC1, b"") + frame(0x41, b"") + frame(0x80, b"\x00")
    assert data_of(stream.receive(wire + frame(0xC1, HELLO))) == [b"", b"Hello", b"", b"", b"Hello"]
    assert stream.error is None


# --- what is on the wire --------------------------------------------------------------------------------------------


def test_a_message_under_the_threshold_goes_as_it_is() -> None:
    stream = stream_with(threshold=100)
    assert parts_of(stream.encode_message(1, b"x" * 99)) == [(0x81, b"x" * 99)]
    ((first, payload),) = parts_of(stream.encode_message(1, b"x" * 100))
    assert first == 0xC1
    assert len(payload) < 20
    assert parts_of(stream_with().encode_message(1, b"")) == [(0x81, b"")]


def test_a_message_that_would_not_get_shorter_goes_as_it_is_unless_it_is_part_of_a_context() -> None:
    noise = random.Random(1).randbytes(5000)
    assert parts_of(stream_with().encode_message(2, noise)) == [(0x82, noise)]
    stream, peer = stream_with(forgets=False), Stream(True, False)
    peer.use(agreement(peer_forgets=False).codec())
    wire = stream.encode_message(2, noise) + stream.encode_message(2, noise)
    assert [first for first, _ in parts_of(wire)] == [0xC2, 0xC2]
    assert len(wire) < 5200
    assert data_of(peer.receive(wire)) == [noise, noise]


def test_control_frames_are_not_compressed() -> None:
    stream = stream_with()
    assert parts_of(stream.ping(b"x" * 100) + stream.pong(b"x" * 100)) == [(0x89, b"x" * 100), (0x8A, b"x" * 100)]
    assert parts_of(stream.encode(0x88, stream.close(1000, "x" * 100).data))[0][0] == 0x88


@pytest.mark.parametrize("first", [0xC8, 0xC9, 0xCA, 0x40, 0xC0, 0xE1, 0xD1, 0xA1])
def test_other_reserved_bits_fail(first: int) -> None:
    stream = stream_with()
    stream.receive(frame(0x01, b"a") + frame(first, HELLO))
    assert stream.error is not None
    assert stream.error.code == 1002


def test_rsv1_fails_if_it_was_not_agreed_on() -> None:
    stream = Stream()
    stream.receive(frame(0xC1, HELLO))
    assert stream.error is not None
    assert stream.error.code == 1002


@pytest.mark.parametrize("takeover", [False, True])
@pytest.mark.parametrize(
    "parts",
    [
        [b"Hel", b"lo"],
        [b"", b"Hel", b"", b"lo", b""],
        [b"", b""],
        [b""],
        [TEXT[:1000], TEXT[1000:]],
        [random.Random(2).randbytes(70000), b"", b"x"],
    ],
)
def test_fragments_are_compressed_as_they_are_made(takeover: bool, parts: list[bytes]) -> None:
    """The first frame alone has RSV1, and each can be inflated as far as it goes."""
    stream, peer = stream_with(forgets=not takeover), Stream(True, False, None)
    peer.use(agreement(peer_forgets=not takeover).codec())
    for _ in range(3):
        encode = stream.begin_fragments()
        for index, part in enumerate(parts):
            last = index == len(parts) - 1
            wire = encode((0x80 if last else 0) | (0 if index else 2), part)
            assert wire[0] == (0x80 if last else 0) | (0 if index else 0x42)
            messages = peer.receive(wire)
            if not last:
                assert messages == []
                assert bytes(peer._buffer or b"") == b"".join(parts[: index + 1])
        assert data_of(messages) == [b"".join(parts)]
        assert data_of(peer.receive(stream.encode_message(1, TEXT))) == [TEXT]
    assert peer.error is None


@pytest.mark.parametrize("bits", range(8, 16))
@pytest.mark.parametrize("memory_level", [1, 8, 9])
@pytest.mark.parametrize("level", [-1, 0, 1, 6, 9])
def test_no_window_is_larger_than_agreed(bits: int, memory_level: int, level: int) -> None:
    """An inflater that keeps no more bytes than that must get along."""
    payload = b"".join(random.Random(3).choice([b"abcd", b"efgh" * 9, TEXT[:700]]) for _ in range(500))
    for takeover in (False, True):
        codec = agreement(forgets=not takeover, bits=bits, memory_level=memory_level, level=level).codec()
        inflater = zlib.decompressobj(-bits)
        for _ in range(3):
            reserved, data = codec.encode(payload)
            if not takeover:
                inflater = zlib.decompressobj(-bits)
            assert (inflater.decompress(data + TAIL) if reserved else data) == payload


# --- what comes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 100, 5000])
@pytest.mark.parametrize("takeover", [False, True])
def test_the_cuts_of_the_network_change_nothing(size: int, takeover: bool) -> None:
    stream = stream_with(peer_forgets=not takeover)
    compressor = agreement(forgets=not takeover).codec()
    wire = b""
    expected = [TEXT, "Κόσμε ☃ 𝄞".encode(), TEXT, bytes(300000).replace(b"\0", b"y")]
    for payload in expected:
        reserved, data = compressor.encode(payload)
        wire += frame(0x01 | reserved, data[:5]) + frame(0x89, b"ping") + frame(0x80, data[5:])
    received = []
    for start in range(0, len(wire), size):
        received += stream.receive(wire[start : start + size])
    assert stream.error is None
    assert [message.data for message in received if message.opcode == 1] == expected


def test_utf_8_is_checked_as_it_arrives_in_the_inflated_text() -> None:
    stream = stream_with()
    payload = deflate(b"good" * 100 + b"\xff") + TAIL + deflate(b"never")
    half = frame(0x41, payload[:-3])
    assert stream.receive(half) == []
    assert stream.error is not None
    assert (stream.error.code, str(stream.error)) == (1007, "A text message must be UTF-8")
    for text in (b"cut \xe2\x98", b"\xed\xa0\x80"):
        stream = stream_with()
        assert stream.receive(frame(0xC1, deflate(text))) == []
        assert stream.error is not None
        assert stream.error.code == 1007
    stream = stream_with()
    character = "☃".encode()
    assert data_of(
        stream.receive(frame(0x41, deflate(character[:1]) + TAIL) + frame(0x80, deflate(character[1:])))
    ) == [character]


@pytest.mark.parametrize(
    "payload",
    [
        b"\xff\xff",  # a type of block that is none
        b"\x06" + HELLO,
        HELLO[:3] + b"\xff" * 20,
        HELLO[:3],  # cut off
        HELLO[:-1],
        deflate(TEXT)[:50],
        deflate(TEXT)[:-1],
        deflate(TEXT, level=0)[:50],
        bytes.fromhex("000500faf048656c6c6f00"),  # a length and its complement that don't agree
        deflate(TEXT)[:50] + b"\x00" * 50,
    ],
)
@pytest.mark.parametrize("takeover", [False, True])
def test_data_that_no_compressor_writes_fails_with_1007(payload: bytes, takeover: bool) -> None:
    stream = stream_with(peer_forgets=not takeover)
    messages = stream.receive(frame(0x81, b"before") + frame(0xC2, payload) + frame(0x81, b"after"))
    assert data_of(messages) == [b"before"]
    assert stream.error is not None
    assert stream.error.code == 1007
    assert "inflated" in str(stream.error)
    assert stream.receive(frame(0x81, b"after")) == []


def test_it_fails_as_soon_as_it_is_seen() -> None:
    stream = stream_with()
    stream.receive(frame(0x42, b"\xff\xff"))
    assert stream.error is not None


# --- limits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0, 1, 125, 1000, 65535, 65536, 65537, 200000])
@pytest.mark.parametrize("size", [1, 100, 1 << 20])
def test_the_limit_is_of_what_is_inflated(limit: int, size: int) -> None:
    for length, fits in ((limit, True), (limit + 1, False)):
        stream = stream_with(limit)
        wire = frame(0xC2, deflate(b"x" * length))
        received = []
        for start in range(0, len(wire), size):
            received += stream.receive(wire[start : start + size])
            assert len(stream._buffer or b"") <= limit
        if fits:
            assert stream.error is None
            assert data_of(received) == [b"x" * length]
        else:
            assert received == []
            assert stream.error is not None
            assert stream.error.code == 1009


def test_there_may_be_no_limit() -> None:
    stream = stream_with(None)
    assert data_of(stream.receive(frame(0xC2, deflate(bytes(5_000_000))))) == [bytes(5_000_000)]


@pytest.mark.parametrize("limit", [10, 1000, 100_000])
def test_what_can_not_be_compressed_may_be_larger_on_the_wire(limit: int) -> None:
    noise = random.Random(4).randbytes(limit)
    stream = stream_with(limit)
    assert data_of(stream.receive(frame(0xC2, deflate(noise)))) == [noise]
    compressor = zlib.compressobj(0, zlib.DEFLATED, -9, 1)
    payload = compressor.compress(noise) + compressor.flush(zlib.Z_SYNC_FLUSH)
    assert len(payload) > limit
    assert data_of(stream.receive(frame(0xC2, payload[:-4]))) == [noise]


def test_the_size_on_the_wire_is_limited_too() -> None:
    """By what the header says, before anything of it is there."""
    stream = stream_with(1000)
    stream.receive(build_frame(0xC2, bytes(1000 + 250 + 1024 + 1), KEY)[:8])
    assert stream.error is not None
    assert stream.error.code == 1009
    stream = stream_with(1000, None)
    empty_block = b"\x00" + TAIL
    wire = frame(0x42, empty_block * 200) + frame(0, empty_block * 200) + frame(0, empty_block * 200)
    stream.receive(wire)
    assert stream.error is not None
    assert stream.error.code == 1009
    stream = stream_with(1000)  # which says nothing about messages that are not compressed
    stream.receive(build_frame(0x82, bytes(1001), KEY)[:8])
    assert stream.error is not None


def bomb(size: int) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    zeros = bytes(1 << 20)
    return b"".join(compressor.compress(zeros) for _ in range(size >> 20)) + compressor.flush(zlib.Z_SYNC_FLUSH)


@pytest.mark.parametrize("opcode", [1, 2])
@pytest.mark.parametrize("takeover", [False, True])
def test_a_bomb_takes_no_more_memory_than_the_limit(opcode: int, takeover: bool) -> None:
    """But for buffers of constant size, and the eighth that a growing bytearray is ahead."""
    limit = 8 << 20
    wire = frame(0xC0 | opcode, bomb(1 << 30))
    pieces = [wire[start : start + 65536] for start in range(0, len(wire), 65536)]
    stream = stream_with(limit, peer_forgets=not takeover)
    tracemalloc.start()
    try:
        for piece in pieces:
            stream.receive(piece)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert stream.error is not None
    assert stream.error.code == 1009
    assert stream._buffer is None
    assert peak < limit * 9 // 8 + (1 << 20)


def test_a_message_of_very_many_ends_is_refused() -> None:
    """Each would cost a new inflater, for two bytes."""
    end = b"\x03\x00"
    stream = stream_with()
    assert data_of(stream.receive(frame(0xC2, end * MAX_ENDS + b"\x00") * 2)) == [b"", b""]
    stream.receive(frame(0xC2, end * (MAX_ENDS + 1) + b"\x00"))
    assert stream.error is not None
    assert stream.error.code == 1009


# --- memory ---------------------------------------------------------------------------------------------------------


def test_contexts_are_made_on_first_use_and_given_back_after_each_message() -> None:
    stream = stream_with()
    codec = codec_of(stream)
    assert (codec.holds_compressor, codec.holds_inflater) == (False, False)
    stream.encode_message(1, TEXT)
    stream.receive(frame(0x41, deflate(TEXT)[:20]))
    assert codec.holds_inflater
    stream.receive(frame(0x80, deflate(TEXT)[20:]))
    assert stream.error is None
    assert (codec.holds_compressor, codec.holds_inflater) == (False, False)
    encode = stream.begin_fragments()
    encode(1, b"a")
    assert not codec.holds_compressor


def test_with_takeover_they_are_made_on_first_use_and_kept() -> None:
    stream = stream_with(forgets=False, peer_forgets=False)
    codec = codec_of(stream)
    assert (codec.holds_compressor, codec.holds_inflater) == (False, False)
    stream.encode_message(1, TEXT)
    assert (codec.holds_compressor, codec.holds_inflater) == (True, False)
    stream.receive(frame(0xC1, deflate(TEXT)))
    assert (codec.holds_compressor, codec.holds_inflater) == (True, True)


def test_an_idle_codec_is_small() -> None:
    shared = agreement()
    shared.codec()
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        codecs = [shared.codec() for _ in range(1000)]
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sys.getsizeof(codecs[0]) < 120
    assert after - before < 130 * 1000


def test_what_may_be_shared_and_what_must_be_in_order() -> None:
    same, alike = agreement(peer_bits=15).codec(), agreement(peer_bits=15).codec()
    assert same.shareable == alike.shareable
    assert same.shareable is not None
    assert same.shareable != agreement(bits=10).codec().shareable
    assert not same.ordered
    context = agreement(forgets=False).codec()
    assert context.shareable is None
    assert context.ordered


# --- what others write and read -------------------------------------------------------------------------------------

COMBINATIONS = [
    (forgets, peer_forgets, bits, peer_bits)
    for forgets in (False, True)
    for peer_forgets in (False, True)
    for bits, peer_bits in ((15, 15), (9, 15), (15, 9), (12, 10))
]
MESSAGES = [TEXT, b"a", TEXT[:100], "Κόσμε ☃ 𝄞".encode() * 50, TEXT * 100, b"x" * 70000]


@pytest.mark.parametrize(("forgets", "peer_forgets", "bits", "peer_bits"), COMBINATIONS)
def test_websockets_understands_and_is_understood(forgets: bool, peer_forgets: bool, bits: int, peer_bits: int) -> None:
    stream = stream_with(forgets=forgets, peer_forgets=peer_forgets, bits=bits, peer_bits=peer_bits)
    peer = theirs.PerMessageDeflate(forgets, peer_forgets, bits, peer_bits)
    for payload in MESSAGES:
        ((first, data),) = parts_of(stream.encode_message(1, payload))
        got = peer.decode(Frame(Opcode.TEXT, data, rsv1=bool(first & RSV1)))
        assert bytes(got.data) == payload
        sent = peer.encode(Frame(Opcode.TEXT, payload))
        assert sent.rsv1
        assert data_of(stream.receive(frame(0xC1, bytes(sent.data)))) == [payload]
    assert stream.error is None


@pytest.mark.parametrize(("forgets", "peer_forgets", "bits", "peer_bits"), COMBINATIONS)
@pytest.mark.parametrize("is_server", [True, False], ids=["server", "client"])
def test_wsproto_understands_and_is_understood(
    forgets: bool, peer_forgets: bool, bits: int, peer_bits: int, is_server: bool
) -> None:
    """With the roles both ways round."""
    stream = Stream(not is_server, is_server)
    stream.use(agreement(forgets=forgets, peer_forgets=peer_forgets, bits=bits, peer_bits=peer_bits).codec())
    server, client = (forgets, bits), (peer_forgets, peer_bits)
    if not is_server:
        server, client = client, server
    peer = wsproto.extensions.PerMessageDeflate(
        client_no_context_takeover=client[0],
        client_max_window_bits=client[1],
        server_no_context_takeover=server[0],
        server_max_window_bits=server[1],
    )
    peer._enabled = True
    protocol = FrameProtocol(client=is_server, extensions=[peer])
    for payload in MESSAGES:
        protocol.receive_bytes(stream.encode_message(1, payload))
        assert "".join(str(got.payload) for got in protocol.received_frames()).encode() == payload
        assert data_of(stream.receive(bytes(protocol.send_data(payload.decode())))) == [payload]
    assert stream.error is None


# websockets, and wsproto, refuse windows of 8 bits, since zlib has no such compressor.
@pytest.mark.parametrize(
    "wishes", [item for item in all_wishes() if 8 not in (item.server_max_window_bits, item.client_max_window_bits)]
)
def test_websockets_grants_what_is_offered_and_takes_what_is_granted(wishes: PerMessageDeflate) -> None:
    for offer in wishes.offers():
        answered, extension = theirs.ServerPerMessageDeflateFactory().process_request_params(list(offer), [])
        agreed = wishes.check(tuple(answered))
        assert isinstance(extension, theirs.PerMessageDeflate)
        assert (extension.local_no_context_takeover, extension.remote_no_context_takeover) == (
            agreed.peer_forgets,
            agreed.forgets,
        )
        assert (extension.local_max_window_bits, extension.remote_max_window_bits) == (agreed.peer_bits, agreed.bits)
    for factory in (
        theirs.ClientPerMessageDeflateFactory(),
        theirs.ClientPerMessageDeflateFactory(True, True, 10, 11),
        theirs.ClientPerMessageDeflateFactory(client_max_window_bits=None),
    ):
        request_parameters: Parameters = tuple((name, value) for name, value in factory.get_request_params())
        accepted = wishes.accept(request_parameters)
        assert accepted is not None
        its = factory.process_response_params(list(accepted[0]), [])
        assert isinstance(its, theirs.PerMessageDeflate)
        assert (its.local_no_context_takeover, its.remote_no_context_takeover) == (
            accepted[1].peer_forgets,
            accepted[1].forgets,
        )
        assert its.local_max_window_bits <= accepted[1].peer_bits
        assert its.remote_max_window_bits == accepted[1].bits

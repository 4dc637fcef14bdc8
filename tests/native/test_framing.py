"""Compiled framing does what :mod:`ws4py.pureframing` does, whatever comes, and takes what that takes."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import framing as target
from ws4py import framing, pureframing, utf8validator
from ws4py.exc import ProtocolException
from ws4py.messaging import BinaryMessage, TextMessage
from ws4py.native import FRAMING, build, load
from ws4py.streaming import Stream

compiled: Any = load(FRAMING)
pytestmark = pytest.mark.skipif(compiled is None, reason=build().reason)
both = pytest.mark.parametrize("parsing", [pureframing, compiled], ids=["pure", "compiled"])
reproducible = settings(deadline=None, derandomize=True, max_examples=300, suppress_health_check=[HealthCheck.too_slow])

KEY = b"\x37\xfa\x21\x3d"
kinds = st.sampled_from([0, 1, 2, 3, 4, 4, 4, 5, 6, 7, 9, 10, 11]) | st.integers(0, 31)
headers = st.tuples(kinds, st.sampled_from([0, 1, 3, 255]), st.binary(max_size=40))
recipes = st.lists(headers, max_size=12).map(lambda drawn: b"".join(bytes((k, h, len(p))) + p for k, h, p in drawn))
settings_of_input = st.tuples(
    st.integers(0, 15),
    st.sampled_from([0, 1, 5, 20, 40, 80, 125, 126, 255]),  # max_message_size
    st.sampled_from([0, 1, 2, 3, 4, 5, 255]),  # max_fragments
    st.sampled_from([0, 1, 2, 3, 255]),  # frames at a time
    st.integers(0, 255),  # how it is cut
).map(bytes)


@reproducible
@given(head=settings_of_input, body=recipes | st.binary(max_size=300))
def test_the_same_is_found(head: bytes, body: bytes) -> None:
    for flags in (head[0] & ~target.FRAMES, head[0] | target.FRAMES):
        target.check(bytes((flags,)) + head[1:] + body)


@pytest.mark.parametrize("client", [0, target.CLIENT])
@pytest.mark.parametrize(
    "length",
    [*range(128), b"\x7e\0\x7d", b"\x7e\0\x7e", b"\x7e\xff\xff", b"\x7f" + bytes(8)]
    + [b"\x7f" + number.to_bytes(8, "big") for number in (125, 65535, 65536, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)],
    ids=str,
)
def test_every_header_is_judged_alike(length: int | bytes, client: int) -> None:
    """Those of all first bytes, masked and not, cut off anywhere."""
    short, extended = (length, b"") if isinstance(length, int) else (length[0], length[1:])
    for first in range(256):
        for mask in (0, 0x80):
            wire = bytes((first, mask | short)) + extended + KEY * 3
            for flags in (client, client | target.RSV1):
                for cut in ([wire], [wire[:2], wire[2:]], [wire[:5]]):
                    expected = target.observe(pureframing, flags, (100, None), cut, 10)
                    assert target.observe(compiled, flags, (100, None), cut, 10) == expected


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 4, 5, 100, 101, 1000])
def test_every_limit_is_kept_alike(limit: int) -> None:
    """By messages just below it and just above, compressed or not, in one frame or in several."""
    for first in (0x01, 0x02, 0x41, 0x42):
        for size in {
            *range(max(0, limit - 2), limit + 3),
            *(limit + (limit >> 2) + 1024 + over for over in (-1, 0, 1)),
        }:
            for parts in (1, 2, 3):
                ends = [size * part // parts for part in range(parts + 1)]
                frames = [
                    ((0x80 if end == size else 0) | (0 if start else first), bytes(end - start))
                    for start, end in itertools.pairwise(ends)
                ]
                wire = b"".join(pureframing.build_frame(*frame) for frame in frames)
                for limits in ((limit, None), (None, limit), (limit, 3), (limit, 2)):
                    expected = target.observe(pureframing, target.CLIENT | target.RSV1, limits, [wire], 10)
                    assert target.observe(compiled, target.CLIENT | target.RSV1, limits, [wire], 10) == expected


@reproducible
@given(text=st.text(max_size=40).map(str.encode), tail=st.binary(max_size=6), size=st.integers(1, 60))
def test_texts_are_judged_alike(text: bytes, tail: bytes, size: int) -> None:
    target.check_text(text + tail + text, size)


@pytest.mark.parametrize("before", [0, 1, 28, 31])
def test_every_sequence_of_two_bytes_at_every_place_is_judged_alike(before: int) -> None:
    """Long and short enough for each of the ways to look at it."""
    for first in range(0x7F, 0x100):
        for second in range(0x100):
            for tail in (b"", b"\x80", b"\x80\x80", b"a" * 40):
                target.check_text(b"a" * before + bytes((first, second)) + tail, 1000)


@pytest.mark.parametrize("size", [0, 1, 3, 4, 7, 8, 9, 31, 32, 33, 125, 126, 127, 2047, 2048, 65535, 65536, 65537])
def test_every_length_is_built_and_masked_alike(size: int) -> None:
    payload = bytes(range(256)) * (size // 256) + bytes(range(size % 256))
    assert compiled.apply_mask(payload, KEY) == pureframing.apply_mask(payload, KEY)
    for key in (None, KEY):
        assert compiled.build_frame(0x82, payload, key) == pureframing.build_frame(0x82, payload, key)


def test_what_runs_is_what_is_compiled() -> None:
    for name in ("FrameParser", "Utf8Validator", "apply_mask", "build_frame", "take_messages"):
        assert getattr(framing, name) is getattr(compiled, name)
    assert type(Stream()._parser) is compiled.FrameParser


def test_the_names_are_those_of_the_specification() -> None:
    def public(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    assert public(compiled.FrameParser) == public(pureframing.FrameParser)
    assert public(compiled.Utf8Validator) == public(utf8validator.Utf8Validator)


# --- arguments ------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_whatever_is_like_bytes_can_be_a_payload(parsing: Any, kind: Any) -> None:
    assert parsing.build_frame(0x81, kind(b"hello")) == b"\x81\x05hello"


@both
@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_a_bytearray_can_be_fed(parsing: Any, kind: Any) -> None:
    frames: list[tuple[int, bytes]] = []
    parser = parsing.FrameParser(False)
    parser.feed(kind(b"\x81\x05hello\x82"), frames)
    assert frames == [(0x81, b"hello")]
    parser.feed(kind(b"\x01x"), frames)
    assert frames[1:] == [(0x82, b"x")]


@both
@pytest.mark.parametrize("wrong", [None, 5])
def test_what_is_not_like_bytes_is_refused(parsing: Any, wrong: Any) -> None:
    parser = parsing.FrameParser()
    calls: list[Callable[[], object]] = [
        lambda: parser.feed(wrong, []),
        lambda: parser.take_message(wrong, TextMessage, BinaryMessage),
        lambda: parsing.apply_mask(wrong, KEY),
        lambda: parsing.build_frame(0x81, wrong),
    ]
    for call in calls:
        with pytest.raises(TypeError):
            call()


@both
@pytest.mark.parametrize("key", [b"", b"123", b"12345"])
def test_a_key_has_four_bytes(parsing: Any, key: bytes) -> None:
    for size in (5, 5000):
        with pytest.raises(ValueError, match="4 bytes"):
            parsing.apply_mask(bytes(size), key)
        with pytest.raises(ValueError, match="4 bytes"):
            parsing.build_frame(0x82, bytes(size), key)


@both
@pytest.mark.parametrize("first", [-1, 256])
def test_a_first_byte_is_a_byte(parsing: Any, first: int) -> None:
    with pytest.raises(ValueError, match="range"):
        parsing.build_frame(first, b"")


@both
def test_limits_can_be_changed_and_read(parsing: Any) -> None:
    parser = parsing.FrameParser(True, None, None)
    assert (parser.expect_masking, parser.max_message_size, parser.max_fragments) == (True, None, None)
    parser.expect_masking, parser.max_message_size, parser.max_fragments = False, 3, 2
    assert (parser.expect_masking, parser.max_message_size, parser.max_fragments) == (False, 3, 2)
    with pytest.raises(ProtocolException, match="may not be masked"):
        parser.feed(b"\x81\x80", [])


@both
def test_a_limit_beyond_all_sizes_is_none(parsing: Any) -> None:
    frames: list[tuple[int, bytes]] = []
    parsing.FrameParser(False, 1 << 70, 1 << 70).feed(b"\x01\x01a\x80\x01b", frames)
    assert frames == [(0x01, b"a"), (0x80, b"b")]


@both
def test_messages_are_made_of_frames_only(parsing: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        parsing.take_messages([5], [], TextMessage, BinaryMessage)


def test_a_validator_can_be_subclassed() -> None:
    class Counting(compiled.Utf8Validator):
        pieces = 0

        def validate(self, data: bytes) -> Any:
            self.pieces += 1
            return compiled.Utf8Validator.validate(self, data)

    validator = Counting()
    assert validator.validate(b"\xc3") == (True, False, 1, 1)
    assert validator.validate(b"\xa9") == (True, True, 1, 2)
    assert validator.pieces == 2
    validator.reset()
    assert validator.validate(b"") == (True, True, 0, 0)


def test_nothing_leaks() -> None:
    """A parser gives back what it has kept, and what it has found lives no longer than it is referred to."""
    payload = b"kept" * 20
    before = sys.getrefcount(payload)
    for _ in range(100):
        parser = compiled.FrameParser(False)
        parser.feed(b"\x88\x50" + payload[:-1], [])
        found: list[Any] = []
        compiled.take_messages([(0x81, payload), (0x82, payload)], found, TextMessage, BinaryMessage)
        compiled.build_frame(0x81, payload)
    del parser, found
    assert sys.getrefcount(payload) == before


# --- demanded by the environment --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("engine", "module"), [("pure", "ws4py.pureframing"), ("compiled", FRAMING)])
def test_the_environment_chooses(engine: str, module: str) -> None:
    script = "from ws4py.streaming import Stream; print(type(Stream()._parser).__module__)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"WS4PY_ENGINE": engine, "PYTHONPATH": ":".join(filter(None, sys.path))},
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.stdout == f"{module}\n"

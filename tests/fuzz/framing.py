"""What is compiled finds what the Python does that is its specification: the same frames, payloads, messages, errors.

The input is: flags, limits of a message, how many frames at a time, the size of the cuts, and then the bytes of the
peer or, so that it gets far, what frames to make of the rest. The C
files by themselves run under the compiler's sanitizers in ``tests/native/test_sanitized.py``.
"""

from __future__ import annotations

from typing import Any

from .harness import fuzz, instrumented

with instrumented(__name__):
    from ws4py import pureframing, utf8validator
    from ws4py.exc import WebSocketException
    from ws4py.messaging import BinaryMessage, TextMessage
    from ws4py.native import FRAMING, load

compiled = load(FRAMING)

# flags
CLIENT, RSV1, FRAMES, LIMITED = 1, 2, 4, 8

KEYS = (b"\x37\xfa\x21\x3d", b"\0\0\0\0", b"\xff\x00\x80\x01")
FIRST_BYTES = bytes.fromhex("8182010200808889 8ac1c2414240c0f18309")


def make_frames(recipe: bytes, masked: bool) -> bytes:
    """Return frames: of each the first byte, by its number; how the payload is made; its size; and from what."""
    wire = b""
    position = 0
    while position + 3 <= len(recipe):
        kind, how, size = recipe[position : position + 3]
        payload = recipe[position + 3 : position + 3 + size] * (1 + (how >> 2 if how & 1 else 0))
        position += 3 + size
        key = KEYS[how % len(KEYS)] if masked else None
        wire += pureframing.build_frame(FIRST_BYTES[kind % len(FIRST_BYTES)], payload, key)
    return wire


def plain(messages: list[Any]) -> list[tuple[type, bytes]]:
    return [(type(message), message.data) for message in messages]


def observe(parsing: Any, flags: int, limits: tuple[int | None, int | None], pieces: list[bytes], most: int) -> Any:
    """Return all that can be seen of a parser while it is fed."""
    parser = parsing.FrameParser(not flags & CLIENT, *limits)
    if flags & RSV1:
        parser.allow_rsv1()
    seen: list[Any] = []
    for piece in pieces:
        taken = None if parser.more else parser.take_message(piece, TextMessage, BinaryMessage)
        if taken is not None:
            seen.append(plain([taken]))
            continue
        frames: list[tuple[int, bytes]] = []
        messages: list[Any] = []
        try:
            parser.feed(piece, frames, most)
            while parser.more and most:
                seen.append((parser.count, parser.kept))
                parser.feed(b"", frames, most)
            whole = parsing.take_messages(frames, messages, TextMessage, BinaryMessage)
        except WebSocketException as error:
            return [*seen, frames, plain(messages), type(error), str(error)]
        seen += [frames, plain(messages), whole, parser.count, parser.more, parser.inside_message, parser.kept]
    return seen


def check_text(text: bytes, size: int) -> None:
    """A text in pieces is valid, or not, to both at the same place."""
    ours, theirs = compiled.Utf8Validator(), utf8validator.Utf8Validator()
    for start in range(0, len(text), size):
        verdict = ours.validate(text[start : start + size])
        assert verdict == theirs.validate(text[start : start + size])
        if not verdict[0]:
            break


def check(data: bytes) -> None:
    if len(data) < 6:
        return
    flags, size, fragments, most, step = data[:5]
    rest = data[5:]
    limits = (size, fragments) if flags & LIMITED else (None, None)
    wire = make_frames(rest, not flags & CLIENT) if flags & FRAMES else rest
    step = max(step, len(wire) // 300, 1)
    pieces = [wire[start : start + step] for start in range(0, len(wire), step)]
    for cut in ([wire], pieces):
        expected = observe(pureframing, flags, limits, cut, most)
        assert observe(compiled, flags, limits, cut, most) == expected, (flags, limits, cut, most)
    check_text(rest, max(1, step))
    key = rest[:4]
    if len(key) == 4:
        assert compiled.apply_mask(rest, key) == pureframing.apply_mask(rest, key)
        assert compiled.build_frame(rest[0], wire, key) == pureframing.build_frame(rest[0], wire, key)
    assert compiled.build_frame(flags, wire) == pureframing.build_frame(flags, wire)


if __name__ == "__main__":
    fuzz("framing", check)

"""Whatever a peer sends: nothing is raised, the cuts of the network change nothing, and no limit is passed.

The input is: flags, the size of the cuts, and then the bytes of the peer or, so that it gets far, what frames to make
of the rest.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

from .harness import fuzz, instrumented

with instrumented(__name__):
    from ws4py.extensions.permessage_deflate import DeflateAgreement
    from ws4py.framing import build_frame
    from ws4py.streaming import Stream

# flags
CLIENT, CODEC, TAKEOVER, SMALL, FRAMES = 1, 2, 4, 8, 16

KEY = b"\x37\xfa\x21\x3d"
FIRST_BYTES = bytes.fromhex("8182010200808889 8ac1c2414240c0f18309")


class Outcome(NamedTuple):
    messages: list[tuple[int, bytes]]
    closing: bytes | None
    code: int | None
    error: bytes | None


def make_stream(flags: int) -> Stream:
    is_client = bool(flags & CLIENT)
    stream = Stream(is_client, not is_client, 100 if flags & SMALL else 1 << 17, 5)
    if flags & CODEC:
        stream.use(DeflateAgreement(True, not flags & TAKEOVER, 15, 9, 1, 1, 0).codec())
    return stream


def make_frames(recipe: bytes, key: bytes | None) -> bytes:
    """Return frames: of each the first byte, by its number; how the payload is made; its size; and from what."""
    wire = b""
    position = 0
    compressor = zlib.compressobj(1, zlib.DEFLATED, -9, 1)
    while position + 3 <= len(recipe):
        kind, how, size = recipe[position : position + 3]
        payload = recipe[position + 3 : position + 3 + size]
        position += 3 + size
        if how & 1:
            payload *= how >> 3
        if how & 2:
            payload = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
            if how & 4:
                payload = payload[:-4]
        wire += build_frame(FIRST_BYTES[kind % len(FIRST_BYTES)], payload, key)
    return wire


def receive(stream: Stream, pieces: list[bytes]) -> Outcome:
    messages = []
    limit = stream._parser.max_message_size
    assert limit is not None
    for piece in pieces:
        for message in stream.receive(piece):
            assert message.opcode in (1, 2, 8, 9, 10)
            messages.append((message.opcode, message.data))
        assert len(stream._buffer or b"") <= limit
    for opcode, data in messages:
        assert type(data) is bytes
        assert len(data) <= (125 if opcode & 8 else limit)
        if opcode == 1:
            data.decode()
    error = stream.error
    return Outcome(
        messages,
        None if stream.closing is None else stream.closing.data,
        None if error is None else error.code,
        None if error is None else error.data,
    )


def check(data: bytes) -> None:
    if len(data) < 3:
        return
    flags, size = data[0], data[1]
    key = None if flags & CLIENT else KEY
    wire = make_frames(data[2:], key) if flags & FRAMES else data[2:]
    step = max(size, len(wire) // 500, 1)
    whole = receive(make_stream(flags), [wire])
    cut = receive(make_stream(flags), [wire[start : start + step] for start in range(0, len(wire), step)])
    if any(outcome.error is not None and b"too far back" in outcome.error for outcome in (whole, cut)):
        # zlib sees that a peer goes back beyond its window only if that is not in the output of the same call.
        assert flags & CODEC
        shorter, longer = sorted((whole.messages, cut.messages), key=len)
        assert longer[: len(shorter)] == shorter
    elif flags & CODEC and {whole.code, cut.code} <= {1007, 1009}:
        # Of two faults in the same piece of compressed data the one that zlib meets first counts.
        assert whole.messages == cut.messages
    else:
        assert whole == cut
    assert whole.closing is None or whole.code is None
    if whole.code is not None:
        assert whole.code in (1002, 1007, 1009)
        assert whole.error is not None
        peer = Stream(not flags & CLIENT, bool(flags & CLIENT))
        peer.receive(build_frame(0x88, whole.error, KEY if flags & CLIENT else None))
        assert peer.error is None
        assert peer.closing is not None


if __name__ == "__main__":
    fuzz("stream", check)

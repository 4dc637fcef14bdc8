"""What one side compresses, the other inflates to the same, by whatever parameters both agree on.

The input is: the wishes of both sides, the size of the cuts, and messages: of each how it is made, a size, its bytes.
"""

from __future__ import annotations

from .harness import fuzz, instrumented

with instrumented(__name__):
    from ws4py.extensions.header import format_extension, parse_extensions
    from ws4py.extensions.permessage_deflate import DeflateCodec, PerMessageDeflate
    from ws4py.streaming import Stream


def wishes(flags: int, bits: int, level: int) -> PerMessageDeflate:
    return PerMessageDeflate(
        bool(flags & 1),
        bool(flags & 2),
        8 + (bits & 7),
        8 + (bits >> 3 & 7),
        level=level % 10,
        memory_level=1 + (level >> 4) % 9,
        threshold=flags >> 2,
    )


def connect(client: PerMessageDeflate, server: PerMessageDeflate) -> tuple[Stream, Stream]:
    """Return the streams of a client and of a server that have agreed."""
    (offer,) = client.offers()
    ((_, received),) = parse_extensions(format_extension(client.name, offer))
    accepted = server.accept(received)
    assert accepted is not None
    answer, agreement = accepted
    ((_, answered),) = parse_extensions(format_extension(server.name, answer))
    ours, theirs = Stream(True, False), Stream()
    ours.use(client.check(answered).codec())
    theirs.use(agreement.codec())
    return ours, theirs


def make_messages(recipe: bytes) -> list[list[bytes]]:
    """Return messages, as the parts that they are sent in."""
    messages: list[list[bytes]] = []
    position = 0
    while position + 2 <= len(recipe):
        how, size = recipe[position : position + 2]
        payload = recipe[position + 2 : position + 2 + size] * (1 + (how >> 4) ** 2)
        position += 2 + size
        step = max(1, len(payload) // (1 + (how & 7)))
        messages.append([payload[start : start + step] for start in range(0, len(payload), step)] or [b""])
    return messages


def check(data: bytes) -> None:
    if len(data) < 7:
        return
    client, server = connect(wishes(*data[:3]), wishes(*data[3:6]))
    for sender, receiver in ((client, server), (server, client)):
        codec, peer = sender.codec, receiver.codec
        assert isinstance(codec, DeflateCodec)
        assert isinstance(peer, DeflateCodec)
        assert codec.agreement.bits <= max(peer.agreement.peer_bits, 9)
        assert codec.agreement.forgets or not peer.agreement.peer_forgets
        wire = b""
        messages = make_messages(data[7:])
        for parts in messages:
            if len(parts) == 1:
                wire += sender.encode_message(2, parts[0])
            else:
                encode = sender.begin_fragments()
                wire += encode(2, parts[0])
                wire += b"".join(encode(0, part) for part in parts[1:-1])
                wire += encode(0x80, parts[-1])
        step = max(data[6], len(wire) // 200, 1)
        received = []
        for start in range(0, len(wire), step):
            received += receiver.receive(wire[start : start + step])
        assert receiver.error is None, str(receiver.error)
        assert [message.data for message in received] == [b"".join(parts) for parts in messages]
        if codec.agreement.forgets and peer.agreement.peer_forgets:
            assert (codec.holds_compressor, peer.holds_inflater) == (False, False)


if __name__ == "__main__":
    fuzz("codec", check)

"""Handshakes: a request is accepted or refused with a status, an answer is read the same however it comes.

The input is lines: flags in the first byte, then the values of a request's headers, or the head of an answer.
"""

from __future__ import annotations

from .harness import fuzz, instrumented

with instrumented(__name__):
    from ws4py.exc import HandshakeError
    from ws4py.extensions.header import format_extension, parse_extensions
    from ws4py.extensions.permessage_deflate import PerMessageDeflate
    from ws4py.handshake import Response, accept_key, check_response, negotiate, parse_response

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
GOOD = {
    "Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits",
    "Sec-WebSocket-Protocol": "a, b",
    "Origin": "http://a",
    "Host": "a",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
    "Connection": "Upgrade",
    "Upgrade": "websocket",
}
EXTENSIONS = [PerMessageDeflate(False, False), PerMessageDeflate(True, True, 10, 10)]


def check(data: bytes) -> None:
    if not data:
        return
    text = data[1:].decode("latin-1")
    {0: check_request, 1: check_answer, 2: check_extensions, 3: check_choice}[data[0] & 3](data[0], text)


def check_request(flags: int, text: str) -> None:
    headers = GOOD | dict(zip(GOOD, text.split("\n"), strict=False))
    extension = EXTENSIONS[flags >> 2 & 1]
    method = "GET" if flags & 8 else text[:4]
    origins = None if flags & 16 else ["http://b", "*"][: flags >> 5 & 3]
    try:
        accepted = negotiate(method, headers, protocols=["b", "c"], extensions=[extension, "x-one"], origins=origins)
    except HandshakeError as error:
        status, answer = error.status, error.headers
    else:
        status, answer = 101, accepted.headers
        assert accepted.protocol in (None, "b", "c")
        assert set(accepted.extensions) <= {"permessage-deflate", "x-one"}
        assert (accepted.agreement is not None) == ("permessage-deflate" in accepted.extensions)
    assert status in (101, 400, 403, 405, 426)
    for name, value in answer:
        assert name.isascii()
        assert value.isascii()
        assert value.isprintable()


def check_answer(flags: int, text: str) -> None:
    data = text.encode("latin-1")
    step = max(flags >> 2, 1)
    whole = parse(data)
    first = next((got for end in range(0, len(data), step) if (got := parse(data[:end])) is not None), whole)
    if isinstance(first, tuple):
        assert isinstance(whole, tuple)
        assert whole[0] == first[0]
        assert whole[1] == data[len(data) - len(whole[1]) :]
        head = Response(101, "", (*whole[0].headers, ("sec-websocket-accept", accept_key(KEY))))
        for response in (whole[0], head):
            try:
                check_response(response, KEY, protocols=["a"], extensions=[EXTENSIONS[0], "x-one"])
            except HandshakeError:
                pass
    else:
        assert whole == first


def parse(data: bytes) -> tuple[Response, bytes] | str | None:
    try:
        return parse_response(data)
    except HandshakeError:
        return "refused"


def check_extensions(_flags: int, text: str) -> None:
    try:
        extensions = parse_extensions(text)
    except ValueError:
        return
    again = ", ".join(format_extension(name, parameters) for name, parameters in extensions)
    assert parse_extensions(again) == extensions


def check_choice(flags: int, text: str) -> None:
    """A server's answer to any offer is one that the client which made the offer could take."""
    try:
        offers = parse_extensions("permessage-deflate;" + text)
    except ValueError:
        return
    for _, offer in offers:
        chosen = EXTENSIONS[flags >> 2 & 1].accept(offer)
        names = [name for name, _ in offer]
        if chosen is None:
            continue
        answer, agreement = chosen
        assert len(set(names)) == len(names)
        granted = dict(answer)
        assert "client_max_window_bits" not in granted or "client_max_window_bits" in names
        if "server_max_window_bits" in names:
            assert int(granted["server_max_window_bits"] or 0) <= int(dict(offer)["server_max_window_bits"] or 0)
        if "server_no_context_takeover" in names:
            assert agreement.forgets
        PerMessageDeflate(False, False).check(answer)


if __name__ == "__main__":
    fuzz("heads", check)

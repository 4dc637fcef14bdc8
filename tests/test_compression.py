"""Compressed messages under a manager, over real servers and clients, and with a real browser."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.client_servers import foreign_server
from tests.helpers import EchoRecorder, Gate, Peer, Stage, start_thread, until, wait_for
from tests.manager.test_fork import in_child
from tests.serving import PATIENCE, ROOT, Server, free_port
from ws4py.client.threadedclient import WebSocketClient
from ws4py.extensions.permessage_deflate import DeflateAgreement, DeflateCodec, PerMessageDeflate
from ws4py.framing import FIN, RSV1
from ws4py.manager import WebSocketManager
from ws4py.messaging import Message
from ws4py.streaming import Stream
from ws4py.websocket import WebSocket

connect = pytest.importorskip("websockets.sync.client", reason="a peer is the package websockets").connect

TEXT = json.dumps([{"id": number, "name": f"name {number}", "ok": True} for number in range(100)])


# --- under a manager ------------------------------------------------------------------------------------------------


def agreement(takeover: bool, bits: int = 15, threshold: int = 0) -> DeflateAgreement:
    return DeflateAgreement(not takeover, not takeover, bits, bits, 1, 8, threshold)


def compressed(base: type[WebSocket], agreed: DeflateAgreement | None) -> type[Any]:
    """Return a class whose websockets compress."""

    class Compressed(base):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            if agreed is not None:
                self.stream.use(agreed.codec())

    return Compressed


class Reader:
    """Reads a peer's end, message by message, as a client would."""

    def __init__(self, peer: Peer, agreed: DeflateAgreement | None) -> None:
        self.peer = peer
        self.stream = Stream(True, False, None, None)
        if agreed is not None:
            self.stream.use(agreed.codec())
        self._messages: list[Message] = []

    def send(self, text: str) -> None:
        self.peer.sock.sendall(self.stream.encode_message(1, text.encode()))

    def receive(self, count: int = 1) -> list[str]:
        """Return so many messages; control messages are passed over."""
        while len(self._messages) < count:
            data = self.peer.sock.recv(65536)
            assert data, self.stream.error
            self._messages += [message for message in self.stream.receive(data) if message.opcode == 1]
            assert self.stream.error is None
        messages, self._messages = self._messages[:count], self._messages[count:]
        return [str(message) for message in messages]


def connected(
    stage: Stage,
    manager: WebSocketManager,
    agreed: DeflateAgreement | None,
    base: type[WebSocket] = EchoRecorder,
    **options: Any,
) -> tuple[Any, Reader]:
    websocket, peer = stage.connect(manager, compressed(base, agreed), **options)
    return websocket, Reader(peer, agreed)


takeovers = pytest.mark.parametrize("takeover", [False, True], ids=["no takeover", "takeover"])


@takeovers
@pytest.mark.parametrize("workers", [0, 4])
def test_echo(stage: Stage, takeover: bool, workers: int) -> None:
    websocket, reader = connected(stage, stage.manager(workers=workers), agreement(takeover))
    for number in range(20):
        reader.send(f"{number} {TEXT}")
    assert reader.receive(20) == [f"{number} {TEXT}" for number in range(20)]
    codec = websocket.stream.codec
    assert (codec.holds_compressor, codec.holds_inflater) == (takeover, takeover)


@takeovers
def test_the_order_of_encoding_is_that_of_the_wire(stage: Stage, takeover: bool) -> None:
    """Whatever threads send, and a generator, and broadcasts among them."""
    manager = stage.manager()
    websocket, reader = connected(stage, manager, agreement(takeover, threshold=50))
    wait_for(websocket.was_opened)

    def send(name: str) -> None:
        for number in range(100):
            websocket.send(f"{name} {number} {TEXT[: number * 20]}")

    def send_in_parts() -> None:
        for number in range(30):
            websocket.send(f"parts {number} " if index == 0 else TEXT for index in range(4))

    def broadcast() -> None:
        for number in range(100):
            assert manager.broadcast(f"broadcast {number} {TEXT[:300]}") == 1

    senders = [start_thread(send, f"sender{index}") for index in range(3)]
    senders += [start_thread(send_in_parts), start_thread(broadcast)]
    received: dict[str, list[int]] = {}
    for text in reader.receive(430):
        name, number, rest = text.split(" ", 2)
        received.setdefault(name, []).append(int(number))
        if name.startswith("sender"):
            assert rest == TEXT[: int(number) * 20]
    for sender in senders:
        sender.result()
    assert received.pop("parts") == list(range(30))
    assert received == {name: list(range(100)) for name in ("sender0", "sender1", "sender2", "broadcast")}


def test_what_waits_for_a_generator_is_not_part_of_its_context(stage: Stage) -> None:
    manager = stage.manager()
    websocket, reader = connected(stage, manager, agreement(True))
    inside, go_on = threading.Event(), threading.Event()

    def parts() -> Iterator[str]:
        yield TEXT
        inside.set()
        wait_for(go_on)
        yield TEXT

    sender = start_thread(websocket.send, parts())
    wait_for(inside)
    websocket.send("sent " + TEXT)
    manager.broadcast("broadcast " + TEXT)
    go_on.set()
    sender.result()
    websocket.send(TEXT)
    assert reader.receive(4) == [TEXT * 2, "sent " + TEXT, "broadcast " + TEXT, TEXT]


@takeovers
def test_senders_that_wait_for_room(stage: Stage, takeover: bool) -> None:
    manager = stage.manager(max_outbox_size=2000)
    websocket, reader = connected(stage, manager, agreement(takeover), small=True)
    noise = [zlib.compress(f"{number} {TEXT}".encode()).hex() for number in range(40)]
    senders = [start_thread(lambda: [websocket.send(text) for text in noise]) for _ in range(3)]
    until(lambda: manager.stats().limits["outbox"] >= 3)
    assert Counter(reader.receive(120)) == Counter(noise * 3)
    for sender in senders:
        sender.result()


@pytest.mark.parametrize("overflow", ["drop", "latest"])
def test_a_broadcast_that_finds_no_room_is_not_part_of_the_context(stage: Stage, overflow: Any) -> None:
    manager = stage.manager(max_outbox_size=2000, overflow=overflow)
    websocket, reader = connected(stage, manager, agreement(True), small=True)
    wait_for(websocket.was_opened)
    sent = 0
    while manager.broadcast(f"{sent} " + zlib.compress(f"{sent} {TEXT}".encode()).hex()):
        sent += 1
        if manager.stats().limits[f"overflow_{overflow}"]:
            break
    assert manager.stats().limits[f"overflow_{overflow}"] == 1
    numbers = [int(text.split()[0]) for text in reader.receive(sent)]
    assert numbers == list(range(sent))
    reader.send("still " + TEXT)
    assert reader.receive() == ["still " + TEXT]


@pytest.mark.parametrize("send", ["broadcast", "publish"])
def test_a_broadcast_is_compressed_once_for_each_set_of_parameters(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, send: str
) -> None:
    manager = stage.manager()
    kinds = [agreement(False), agreement(False, bits=10), agreement(False, threshold=1 << 20), agreement(True), None]
    readers = [(kind, connected(stage, manager, kind)) for kind in kinds for _ in range(5)]
    for _, (websocket, _) in readers:
        wait_for(websocket.was_opened)
        websocket.subscribe("news")
    encode, encoded = DeflateCodec.encode, Counter[DeflateAgreement]()

    def counting(codec: DeflateCodec, payload: bytes) -> tuple[int, bytes]:
        encoded[codec.agreement] += 1
        return encode(codec, payload)

    monkeypatch.setattr(DeflateCodec, "encode", counting)
    if send == "broadcast":
        assert manager.broadcast(TEXT) == len(readers)
    else:
        manager.publish("news", TEXT)
    assert encoded == {kinds[0]: 1, kinds[1]: 1, kinds[3]: 5}
    for _, (_, reader) in readers:
        assert reader.receive() == [TEXT]


def test_a_broadcast_of_clients_is_compressed_once_and_masked_for_each(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = stage.manager()
    agreed = agreement(False)

    class Client(EchoRecorder):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.stream = Stream(True, False)
            self.stream.use(agreed.codec())

    pairs = [stage.connect(manager, Client) for _ in range(3)]
    encode, encoded = DeflateCodec.encode, []

    def counting(codec: DeflateCodec, payload: bytes) -> tuple[int, bytes]:
        encoded.append(payload)
        return encode(codec, payload)

    monkeypatch.setattr(DeflateCodec, "encode", counting)
    for websocket, _ in pairs:
        wait_for(websocket.was_opened)
    assert manager.broadcast(TEXT) == 3
    for _, peer in pairs:
        first, payload = peer.receive()
        assert first == FIN | RSV1 | 1
        assert b"".join(agreed.codec().decode(payload, True, None)).decode() == TEXT
    assert encoded == [TEXT.encode()]


def test_a_bomb_closes_with_1009(stage: Stage) -> None:
    manager = stage.manager(max_message_size=1000)
    websocket, reader = connected(stage, manager, agreement(False), Gate)
    reader.send("x" * 1001)
    assert reader.peer.receive_close()[0] == 1009
    assert websocket.end()[0] == 1006
    assert websocket.messages == []
    assert manager.stats().limits["max_message_size"] == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("takeover", [True, False])
def test_what_a_forked_child_sends_is_compressed_by_its_parent(stage: Stage, takeover: bool) -> None:
    """So that the peer's context stays that of the parent."""
    websocket, reader = connected(stage, stage.manager(), agreement(takeover))
    wait_for(websocket.was_opened)
    websocket.send("from the parent " * 100)
    in_child(lambda: websocket.send("from the child " * 100))
    websocket.send("from the parent " * 100)
    received = reader.receive(3)
    assert [text.split()[-1] for text in received] == ["parent", "child", "parent"]


# --- real servers ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cherrypy_server() -> Iterator[Server]:
    pytest.importorskip("cherrypy", reason="the server is CherryPy")
    with Server() as server:
        yield server


@pytest.fixture(scope="module")
def gevent_url() -> Iterator[str]:
    pytest.importorskip("gevent", reason="the server is gevent's")
    port = free_port()
    program = str(ROOT / "tests" / "programs" / "gevent_compression.py")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, program, str(port)], env=environment, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield f"ws://127.0.0.1:{port}/dense"
            process.terminate()
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()


@pytest.fixture(params=["compressed", "dense", "narrow", "gevent", "echo"])
def endpoint(request: pytest.FixtureRequest) -> str:
    if request.param == "gevent":
        url: str = request.getfixturevalue("gevent_url")
        return url
    server: Server = request.getfixturevalue("cherrypy_server")
    return server.url(f"/{request.param}")


def test_websockets_as_the_client(endpoint: str) -> None:
    with connect(endpoint, proxy=None) as client:
        extensions = client.protocol.extensions
        assert [extension.name for extension in extensions] == (
            [] if endpoint.endswith("echo") else ["permessage-deflate"]
        )
        for text in (TEXT, "", "a", "x" * 9000, TEXT):
            client.send(text)
            assert client.recv(PATIENCE) == text
        client.send([TEXT[:1000], TEXT[1000:], ""])
        assert client.recv(PATIENCE) == TEXT
        client.send(TEXT.encode())
        assert client.recv(PATIENCE) == TEXT.encode()


@pytest.mark.parametrize(
    "compression", [True, PerMessageDeflate(False, False, threshold=0), PerMessageDeflate(True, False, 9, 8)]
)
def test_our_client(endpoint: str, compression: bool | PerMessageDeflate) -> None:
    client = WebSocketClient(endpoint, proxy=None, compression=compression)
    client.connect()
    with contextlib.closing(client):
        assert (client.stream.codec is None) is endpoint.endswith("echo")
        for text in (TEXT, "", TEXT):
            client.send(text)
            message = client.receive()
            assert str(message) == text
        client.send(part for part in (TEXT[:100], "", TEXT[100:]))
        assert str(client.receive()) == TEXT


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_our_client_at_the_server_of_websockets(compression: str | None) -> None:
    wishes = PerMessageDeflate(False, False, threshold=0)
    with foreign_server(compression=compression) as url:
        client = WebSocketClient(url, proxy=None, compression=wishes)
        client.connect()
        with contextlib.closing(client):
            assert client.extensions == (
                []
                if compression is None
                else [b"permessage-deflate; server_max_window_bits=12; client_max_window_bits=12"]
            )
            for text in (TEXT, "a", TEXT):
                client.send(text)
                assert str(client.receive()) == text


def test_a_limit_is_of_what_is_inflated(cherrypy_server: Server) -> None:
    from websockets.exceptions import ConnectionClosedError

    with connect(cherrypy_server.url("/narrow"), proxy=None) as client:
        client.send("x" * 10_001)
        with pytest.raises(ConnectionClosedError) as ended:
            client.recv(PATIENCE)
    assert ended.value.rcvd is not None
    assert ended.value.rcvd.code == 1009


# --- a browser ------------------------------------------------------------------------------------------------------


ECHO = """
const [url, texts, done] = arguments;
const socket = new WebSocket(url), heard = [];
socket.onopen = () => texts.forEach(text => socket.send(text));
socket.onmessage = event => {
    heard.push(event.data);
    if (heard.length == texts.length) socket.close(1000);
};
socket.onclose = event => done([socket.extensions, heard, event.code, event.wasClean]);
"""


@pytest.mark.parametrize(
    ("path", "agreed"),
    [
        ("/compressed", "permessage-deflate; server_no_context_takeover; client_no_context_takeover"),
        ("/dense", "permessage-deflate"),
        ("/narrow", "permessage-deflate; server_max_window_bits=9; client_max_window_bits=10"),
        ("/echo", ""),
    ],
)
def test_chromium(chromium: Any, cherrypy_server: Server, path: str, agreed: str) -> None:
    chromium.get(f"http://{cherrypy_server.host}/")
    texts = [TEXT, "a", "", "Κόσμε ☃ 𝄞" * 100, TEXT]
    extensions, heard, code, clean = chromium.execute_async_script(ECHO, cherrypy_server.url(path), texts)
    assert extensions == agreed
    assert heard == texts
    assert (code, clean) == (1000, True)

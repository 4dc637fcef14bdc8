"""WebSocket by itself: no manager, but a thread that runs it, or the test, which calls what 0.6 programs call."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.helpers import (
    PATIENCE,
    PAYLOADS,
    Certificates,
    EchoRecorder,
    Peer,
    Recorder,
    Script,
    Stage,
    Task,
    quiet,
    start_thread,
    tcp_pair,
    until,
    wait_for,
)
from ws4py.exc import (
    ConnectionClosed,
    FrameTooLargeException,
    InvalidCloseCode,
    TextFrameEncodingException,
    WebSocketException,
)
from ws4py.framing import FIN, OPCODE_BINARY, OPCODE_CLOSE, OPCODE_CONTINUATION, OPCODE_PING, OPCODE_PONG, OPCODE_TEXT
from ws4py.messaging import (
    BinaryMessage,
    CloseControlMessage,
    Message,
    PingControlMessage,
    PongControlMessage,
    TextMessage,
    encode_payload,
)
from ws4py.websocket import EchoWebSocket, Heartbeat, WebSocket


class OwnError(Exception):
    """Raised by handlers here."""


def run(stage: Stage, kind: type[Any] = EchoRecorder, **options: Any) -> tuple[Any, Peer, Task]:
    """Return a websocket that a thread runs, its peer, and that thread."""
    websocket, peer = stage.connect(None, kind, **options)
    return websocket, peer, start_thread(websocket.run)


# --- a fresh one ------------------------------------------------------------------------------------------------------


def test_what_a_fresh_one_has(stage: Stage) -> None:
    ours, theirs = tcp_pair()
    environ = {"PATH_INFO": "/"}
    websocket = WebSocket(ours, ["chat"], ["x"], environ, 30.0)
    assert websocket.sock is ours
    assert websocket.connection is ours
    assert (websocket.protocols, websocket.extensions, websocket.environ) == (["chat"], ["x"], environ)
    assert websocket.heartbeat_freq == 30.0
    assert websocket.stream is not None
    assert not websocket.terminated
    assert not websocket.client_terminated
    assert not websocket.server_terminated
    assert (websocket.close_code, websocket.close_reason) == (None, None)
    assert websocket.local_address == ours.getsockname()
    assert websocket.peer_address == theirs.getsockname()
    ours.close()
    theirs.close()
    assert websocket.peer_address  # is remembered


def test_terminated_is_both_sides_word(stage: Stage) -> None:
    websocket, _ = stage.connect(None, WebSocket)
    websocket.client_terminated = True
    assert not websocket.terminated
    websocket.server_terminated = True
    assert websocket.terminated


def test_an_ipv6_address_has_two_parts() -> None:
    if not socket.has_ipv6:
        pytest.skip("this system has no IPv6")
    with socket.socket(socket.AF_INET6) as listener:
        try:
            listener.bind(("::1", 0))
        except OSError:
            pytest.skip("this system has no IPv6 on loopback")
        listener.listen(1)
        with socket.create_connection(listener.getsockname()[:2]) as client:
            server, _ = listener.accept()
            with server:
                websocket = WebSocket(server)
                assert websocket.peer_address == ("::1", client.getsockname()[1])
                assert websocket.local_address == ("::1", listener.getsockname()[1])


def test_the_hooks_do_nothing_by_default(stage: Stage) -> None:
    websocket, peer, task = run(stage, WebSocket)
    peer.send(peer.text("x"), peer.pong(b"y"))
    peer.sync()
    assert peer.say_goodbye() == (1000, "")
    task.result()
    assert websocket.close_code == 1000


# --- run --------------------------------------------------------------------------------------------------------------


def test_run_calls_back_in_order(stage: Stage) -> None:
    websocket, peer, task = run(stage)
    peer.send(peer.text("one"), peer.pong(b"p"), peer.binary(b"two"))
    assert peer.receive_text() == "one"
    assert peer.receive() == (FIN | OPCODE_BINARY, b"two")
    assert peer.say_goodbye(4001, "why") == (4001, "")
    task.result()
    assert websocket.events == [
        ("opened",),
        ("message", b"one"),
        ("ponged", b"p"),
        ("message", b"two"),
        ("closed", 4001, b"why"),
    ]
    assert (websocket.close_code, websocket.close_reason) == (4001, "why")
    assert (websocket.sock, websocket.stream, websocket.environ) == (None, None, None)
    assert websocket.terminated


def test_run_takes_early_bytes(stage: Stage) -> None:
    _, stranger = stage.connect(None, Recorder)
    websocket, peer = stage.connect(None, EchoRecorder, early=stranger.text("early") + stranger.text("half")[:5])
    task = start_thread(websocket.run)
    peer.send(stranger.text("half")[5:])
    assert [peer.receive_text(), peer.receive_text()] == ["early", "half"]
    peer.say_goodbye()
    task.result()


def test_run_answers_pings(stage: Stage) -> None:
    _, peer, task = run(stage)
    peer.send(peer.ping(b"a"), peer.text("between"), peer.ping(b"b"))
    assert peer.receive() == (FIN | OPCODE_PONG, b"a")
    assert peer.receive_text() == "between"
    assert peer.receive() == (FIN | OPCODE_PONG, b"b")
    peer.say_goodbye()
    task.result()


@pytest.mark.parametrize(("sent", "answer"), [(1000, 1000), (None, None), (4999, 4999)])
def test_the_peer_closes(stage: Stage, sent: int | None, answer: int | None) -> None:
    websocket, peer, task = run(stage)
    assert peer.say_goodbye(sent, "") == (answer, "")
    task.result()
    assert websocket.end() == (sent or 1005, b"")


def test_this_side_closes_from_another_thread(stage: Stage) -> None:
    websocket, peer, task = run(stage)
    wait_for(websocket.was_opened)
    websocket.close(4000, "enough")
    websocket.close(1000)
    assert websocket.server_terminated
    assert peer.receive_close() == (4000, "enough")
    peer.send(peer.text("on its way"), peer.goodbye(4000, "enough"))
    peer.receive_rest()
    task.result()
    assert websocket.end() == (4000, b"enough")


@pytest.mark.parametrize("callback", ["opened", "message", "pong"])
@pytest.mark.parametrize("way", ["close", "terminate"])
def test_ending_in_a_callback(stage: Stage, callback: str, way: str) -> None:
    websocket, peer, task = run(stage, Script.of(**{callback: lambda websocket, *arguments: getattr(websocket, way)()}))
    with contextlib.suppress(BrokenPipeError):
        peer.send(peer.text("x"), peer.pong(b"y"))
    if way == "close":
        assert peer.receive_close() == (1000, "")
        peer.send(peer.goodbye())
    peer.receive_rest()
    task.result()
    websocket.end()
    assert websocket.sock is None


def test_close_connection_in_a_callback(stage: Stage) -> None:
    """This gives the socket back at once, so it is not there inside closed()."""

    class Own(WebSocket):
        def received_message(self, message: Message) -> None:
            self.close_connection()

        def closed(self, code: int, reason: Any = None) -> None:
            ends.append((code, self.sock))

    ends: list[tuple[int, Any]] = []
    _, peer, task = run(stage, Own)
    peer.send(peer.text("x"))
    peer.expect_end()
    task.result()
    assert ends == [(1006, None)]


def test_a_close_that_is_not_answered_leaves_no_timer_behind(stage: Stage) -> None:
    """The drop that is due after close_timeout is called off with the socket: the stage sees to its thread."""
    websocket, _ = stage.connect(None, WebSocket)
    threads = threading.enumerate()
    websocket.close()
    websocket.terminate()
    until(lambda: not [thread for thread in threading.enumerate() if thread not in threads], 2.0)


@pytest.mark.parametrize("callback", ["opened", "message", "pong"])
def test_an_exception_in_a_callback(stage: Stage, callback: str) -> None:
    error = OwnError("from a handler")

    def fail(websocket: WebSocket, *arguments: object) -> None:
        raise error

    with quiet() as records:
        websocket, peer, task = run(stage, Script.of(**{callback: fail}))
        peer.send(peer.text("x"), peer.pong(b"y"))
        assert peer.receive_close() == (1011, "")
        peer.close()
        task.result()
    assert websocket.errors == [error]
    assert [record.exc_info[1] for record in records if record.exc_info] == [error]
    websocket.end()


@pytest.mark.parametrize(
    ("frame", "code"),
    [(b"\x83\x80" + bytes(4), 1002), (b"\x81\x00", 1002), (b"\x81\x81" + bytes(4) + b"\xff", 1007)],
)
def test_a_bad_frame(stage: Stage, frame: bytes, code: int) -> None:
    websocket, peer, task = run(stage)
    peer.send(peer.text("good"), frame)
    assert peer.receive_text() == "good"
    assert peer.receive_close()[0] == code
    peer.close()
    task.result()
    assert websocket.end()[0] == 1006


@pytest.mark.parametrize("way", ["close", "reset"])
def test_the_peer_is_gone(stage: Stage, way: str) -> None:
    websocket, peer, task = run(stage, pair=tcp_pair)
    peer.sync()
    getattr(peer, way)()
    task.result()
    assert websocket.end()[0] == 1006


def test_terminate_from_another_thread(stage: Stage) -> None:
    websocket, peer, task = run(stage)
    wait_for(websocket.was_opened)
    for other in [start_thread(websocket.terminate) for _ in range(4)]:
        other.result()
    task.result()
    assert websocket.end()[0] == 1006
    peer.expect_end()


def test_closed_is_called_once_though_two_threads_terminate_at_the_same_time(stage: Stage) -> None:
    """Both come to the point at which the code is found out, and only then go on."""
    barrier = threading.Barrier(2)
    websocket, _ = stage.connect(None, Recorder)
    with websocket.record("opened"):
        pass

    class Meeting:
        error = None
        always_mask = False

        @property
        def closing(self) -> None:
            barrier.wait(PATIENCE)

    stream: Any = Meeting()
    websocket.stream = stream
    for task in [start_thread(websocket.terminate) for _ in range(2)]:
        task.result()
    assert websocket.end() == (1006, "Going away")


def test_terminate_without_run(stage: Stage) -> None:
    websocket, peer = stage.connect(None, Script)
    websocket.on = {}
    websocket.events.append(("opened",))
    websocket.terminate()
    websocket.terminate()
    assert websocket.end() == (1006, "Going away")
    assert websocket.sock is None
    peer.expect_end()


def test_everything_is_there_inside_closed(stage: Stage) -> None:
    inside: list[Any] = []
    environ = {"own": 1}

    def on_closed(websocket: WebSocket, code: int, reason: object) -> None:
        inside.extend((websocket.sock.fileno() >= 0, websocket.stream.closing, websocket.environ))

    websocket, peer, task = run(stage, Script.of(closed=on_closed), environ=environ)
    peer.say_goodbye()
    task.result()
    assert inside[0] is True
    assert inside[1].code == 1000
    assert inside[2] is environ
    assert websocket.environ is None


def test_closed_may_close_the_socket_itself(stage: Stage) -> None:
    websocket, peer, task = run(stage, Script.of(closed=lambda websocket, code, reason: websocket.sock.close()))
    peer.say_goodbye()
    task.result()
    assert websocket.end() == (1000, b"")


# --- once and process -------------------------------------------------------------------------------------------------


def opened(stage: Stage, kind: type[Any] = EchoRecorder) -> tuple[Any, Peer]:
    """Return a websocket for which the test itself has called opened()."""
    websocket, peer = stage.connect(None, kind)
    websocket.opened()
    return websocket, peer


def test_once_reads_once(stage: Stage) -> None:
    websocket, peer = opened(stage)
    peer.send(peer.text("a"), peer.text("b"))
    assert websocket.once()
    assert websocket.messages == [b"a", b"b"]
    peer.send(peer.goodbye())
    assert not websocket.once()
    assert [peer.receive_text(), peer.receive_text()] == ["a", "b"]
    assert peer.receive_close() == (1000, "")
    websocket.terminate()
    assert websocket.end() == (1000, b"")
    assert not websocket.once()


def test_once_at_the_end(stage: Stage) -> None:
    websocket, peer = opened(stage)
    peer.close()
    assert not websocket.once()


@pytest.mark.parametrize("step", [1, 2, 3, 5, 100])
def test_process_takes_bytes_in_any_pieces(stage: Stage, step: int) -> None:
    websocket, peer = opened(stage)
    data = peer.text("one") + peer.ping(b"p") + peer.frame(OPCODE_TEXT, b"tw") + peer.frame(FIN, b"o") + peer.pong(b"q")
    for start in range(0, len(data), step):
        assert websocket.process(data[start : start + step])
    assert websocket.events == [("opened",), ("message", b"one"), ("message", b"two"), ("ponged", b"q")]
    assert [peer.receive_text(), peer.receive_text()] == ["one", "two"]
    assert not websocket.process(peer.goodbye())


def test_process_of_what_a_program_has_read_itself(stage: Stage) -> None:
    """As a server does that waits for the socket in its own loop."""
    websocket, peer = opened(stage)
    peer.send(peer.text("x"))
    assert websocket.process(websocket.sock.recv(1024))
    assert peer.receive_text() == "x"
    peer.close()
    assert not websocket.process(websocket.sock.recv(1024))


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_process_takes_bytes_and_bytearrays(stage: Stage, kind: Any) -> None:
    websocket, peer = opened(stage)
    assert websocket.process(kind(peer.text("x")))
    assert peer.receive_text() == "x"
    assert not websocket.process(kind())


def test_the_echo_of_a_message_goes_before_the_answer_to_the_close(stage: Stage) -> None:
    websocket, peer = opened(stage)
    assert not websocket.process(peer.text("x") + peer.goodbye() + peer.text("ignored"))
    assert peer.receive_text() == "x"
    assert peer.receive_close() == (1000, "")
    assert websocket.messages == [b"x"]


def test_once_over_tls_takes_all_that_was_decrypted(stage: Stage, certificates: Certificates) -> None:
    websocket, peer = stage.connect(None, EchoRecorder, certificates.ssl_pair)
    websocket.reading_buffer_size = 10
    task = start_thread(websocket.run)
    text = "over tls " * 100
    peer.send(peer.text(text), peer.text("more"))
    assert [peer.receive_text(), peer.receive_text()] == [text, "more"]
    peer.say_goodbye()
    task.result()


# --- sending ----------------------------------------------------------------------------------------------------------


def test_kinds_of_payload(stage: Stage) -> None:
    websocket, peer = stage.connect(None, WebSocket)
    cases: list[tuple[Any, bool, int, bytes]] = [
        *PAYLOADS,
        (PingControlMessage(b"p"), False, OPCODE_PING, b"p"),
        (PongControlMessage(b"q"), False, OPCODE_PONG, b"q"),
        (CloseControlMessage(1001, "bye"), False, OPCODE_CLOSE, b"\x03\xe9bye"),
    ]
    for payload, binary, opcode, data in cases:
        websocket.send(payload, binary=binary)
        assert peer.receive() == (FIN | opcode, data)
    assert websocket.server_terminated
    with pytest.raises(ConnectionClosed):
        websocket.send("behind the Close")


@pytest.mark.parametrize("text", ["é", "é".encode(), bytearray("é".encode()), memoryview("é".encode())])
def test_send_text(stage: Stage, text: Any) -> None:
    websocket, peer = stage.connect(None, Recorder)
    websocket.send_text(text)
    websocket.send_text(text, timeout=0)
    assert [peer.receive()[:2] for _ in range(2)] == [(0x81, "é".encode())] * 2


@pytest.mark.parametrize("data", [b"\xff", bytearray(b"\xff"), memoryview(b"\xff")])
def test_send_bytes(stage: Stage, data: Any) -> None:
    websocket, peer = stage.connect(None, Recorder)
    websocket.send_bytes(data)
    websocket.send_bytes(data, timeout=0)
    assert [peer.receive()[:2] for _ in range(2)] == [(0x82, b"\xff")] * 2


def test_send_json(stage: Stage) -> None:
    websocket, peer = stage.connect(None, Recorder)
    websocket.send_json({"name": "é", "list": [1, 2.5, None], "lone": "\ud800"})
    websocket.send_json("text", timeout=0)
    assert peer.receive()[:2] == (0x81, rb'{"name":"\u00e9","list":[1,2.5,null],"lone":"\ud800"}')
    assert peer.receive()[:2] == (0x81, b'"text"')


def test_what_is_no_text_no_bytes_and_no_json_is_not_sent(stage: Stage) -> None:
    websocket, peer = stage.connect(None, Recorder)
    for nothing in (None, 5, TextMessage("x"), BinaryMessage(b"x"), iter(["x"])):
        with pytest.raises(TypeError, match="A text is a str, or bytes"):
            websocket.send_text(nothing)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="A binary message is bytes"):
            websocket.send_bytes(nothing)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="A binary message is bytes"):
        websocket.send_bytes("x")  # type: ignore[arg-type]
    with pytest.raises(TextFrameEncodingException):
        websocket.send_text(b"\xff")
    for value in (float("nan"), [float("inf")]):
        with pytest.raises(ValueError, match="not JSON compliant"):
            websocket.send_json(value)
    with pytest.raises(TypeError):
        websocket.send_json(object())
    websocket.send_text("first")
    assert peer.receive_text() == "first"


def test_they_send_by_send_which_a_subclass_may_override(stage: Stage) -> None:
    class Loud(Recorder):
        def send(self, payload: Any, binary: bool = False, timeout: float | None = None) -> None:
            super().send(payload.upper(), binary, timeout)

    websocket, peer = stage.connect(None, Loud)
    websocket.send_text("text")
    websocket.send_bytes(b"bytes")
    websocket.send_json("json")
    assert [peer.receive().payload for _ in range(3)] == [b"TEXT", b"BYTES", b'"JSON"']


def test_a_generator_is_sent_in_fragments(stage: Stage) -> None:
    websocket, peer = stage.connect(None, WebSocket)
    websocket.send(character for character in "añb")
    assert [peer.receive() for _ in range(3)] == [
        (OPCODE_TEXT, b"a"),
        (OPCODE_CONTINUATION, b"\xc3\xb1"),
        (FIN | OPCODE_CONTINUATION, b"b"),
    ]
    parts: list[bytes | bytearray] = [b"\xff", bytearray(b"\xfe")]
    websocket.send(iter(parts), binary=True)
    assert peer.receive() == (OPCODE_BINARY, b"\xff")
    assert peer.receive() == (FIN | OPCODE_CONTINUATION, b"\xfe")
    websocket.send(iter([]))
    assert peer.receive() == (FIN | OPCODE_TEXT, b"")


@pytest.mark.parametrize("payload", [1, None, 1.5, ["x"], {"x": 1}, object()])
def test_a_payload_of_another_type(stage: Stage, payload: Any) -> None:
    websocket, peer = stage.connect(None, WebSocket)
    with pytest.raises(ValueError, match="Unsupported type"):
        websocket.send(payload)
    websocket.send("fine")
    assert peer.receive_text() == "fine"


def test_bad_arguments(stage: Stage) -> None:
    websocket, peer = stage.connect(None, WebSocket)
    with pytest.raises(TypeError):
        websocket.send("a str", binary=True)
    with pytest.raises(TextFrameEncodingException):
        websocket.send(b"\xff")
    with pytest.raises(FrameTooLargeException):
        websocket.ping(bytes(126))
    with pytest.raises(FrameTooLargeException):
        websocket.close(1000, "é" * 62)
    with pytest.raises(InvalidCloseCode):
        websocket.close(1006)
    assert not websocket.server_terminated
    websocket.send("fine")
    assert peer.receive_text() == "fine"


def test_a_generator_that_raises_in_the_middle_closes(stage: Stage) -> None:
    """Nothing but a Close may follow half a message."""
    websocket, peer = stage.connect(None, WebSocket)

    def parts() -> Iterator[str]:
        yield "one"
        yield "two"
        raise OwnError

    with pytest.raises(OwnError):
        websocket.send(parts())
    assert peer.receive() == (OPCODE_TEXT, b"one")
    assert peer.receive_close() == (1011, "")
    with pytest.raises(ConnectionClosed):
        websocket.send("x")


def test_many_threads_send_and_nothing_interleaves(stage: Stage) -> None:
    websocket, peer, task = run(stage)
    wait_for(websocket.was_opened)

    def send(name: str) -> None:
        for number in range(50):
            text = f"{name}{number:03}" * (1 + number)
            if number % 2:
                websocket.send(text[index : index + 4] for index in range(0, len(text), 4))
            else:
                websocket.send(text)

    tasks = [start_thread(send, name) for name in "abcd"]
    peer.send(*(peer.ping(b"p") for _ in range(20)))
    received = [peer.receive_text() for _ in range(200)]
    for other in tasks:
        other.result()
    for name in "abcd":
        assert [text for text in received if text[0] == name] == [
            f"{name}{number:03}" * (1 + number) for number in range(50)
        ]
    peer.say_goodbye()
    task.result()


def test_of_several_threads_that_close_one_does_and_nothing_follows(stage: Stage) -> None:
    def send_parts(websocket: WebSocket) -> None:
        websocket.send(str(number) for number in range(20))

    def attempt(act: Any, websocket: WebSocket, barrier: threading.Barrier) -> None:
        barrier.wait(PATIENCE)
        try:
            act(websocket)
        except ConnectionClosed:
            pass  # another one was first

    acts: list[Any] = [
        send_parts,
        lambda websocket: websocket.send("whole"),
        lambda websocket: websocket.ping(b"x"),
        *(lambda websocket, code=code: websocket.close(code) for code in (4000, 4001, 4002)),
    ]
    for _ in range(30):
        websocket, peer, task = run(stage)
        barrier = threading.Barrier(len(acts))
        for other in [start_thread(attempt, act, websocket, barrier) for act in acts]:
            other.result()
        frames = peer.receive_rest_until_close()
        code = int.from_bytes(frames[-1].payload, "big")
        assert code in (4000, 4001, 4002)
        peer.send(peer.goodbye(code))
        assert peer.receive_rest() == [], "nothing follows a Close"
        task.result()
        parts = [frame for frame in frames if frame.opcode == 0 or frame.first == OPCODE_TEXT]
        assert b"".join(part.payload for part in parts) in (b"", b"".join(b"%d" % number for number in range(20)))
        assert websocket.end() == (code, b"")


def test_two_threads_that_are_the_first_to_send_share_one_connection(stage: Stage) -> None:
    """Each with a lock of its own would interleave."""
    inside = threading.Event()
    made: list[object] = []

    class Slow(WebSocket):
        def _make_blocking_connection(self) -> Any:
            made.append(threading.current_thread())
            if len(made) == 1:
                tasks.append(start_thread(self.send, "second"))
                inside.wait(0.2)  # time for the other to come here too, if nothing holds it
            else:
                inside.set()
            return super()._make_blocking_connection()

    tasks: list[Task] = []
    websocket, peer = stage.connect(None, Slow)
    websocket.send("first")
    tasks[0].result()
    assert len(made) == 1
    assert sorted([peer.receive_text(), peer.receive_text()]) == ["first", "second"]


def test_after_the_end_everything_says_so(stage: Stage) -> None:
    websocket, peer, task = run(stage)
    peer.say_goodbye()
    task.result()
    payloads: list[Any] = ["x", b"x", TextMessage("x"), iter(["x"]), PingControlMessage(b"x")]
    for payload in payloads:
        with pytest.raises(ConnectionClosed):
            websocket.send(payload)
    with pytest.raises(ConnectionClosed):
        websocket.ping("x")
    with pytest.raises(RuntimeError):  # what 0.6 raised
        websocket.send("x")
    websocket.close()
    websocket.terminate()
    websocket.close_connection()


def test_sending_to_a_peer_that_is_gone_raises_what_is_documented(stage: Stage) -> None:
    websocket, peer = stage.connect(None, WebSocket, tcp_pair)
    peer.reset()

    def send_on() -> None:
        while True:
            websocket.send(bytes(1000), binary=True)

    task = start_thread(send_on)
    with pytest.raises((ConnectionClosed, OSError)):
        task.result()


def test_a_client_masks(stage: Stage) -> None:
    websocket, peer = stage.connect(None, WebSocket)
    websocket.stream.always_mask = True
    websocket.send("abc")
    websocket.ping("ping")
    websocket.close()
    data = peer.sock.recv(2)
    assert data == b"\x81\x83"
    peer._buffer += data
    assert peer.receive() == (FIN | OPCODE_TEXT, b"abc")
    assert peer.receive() == (FIN | OPCODE_PING, b"ping")
    assert peer.receive_close() == (1000, "")


# --- habits of 0.6 programs -------------------------------------------------------------------------------------------


def test_running_init_again_after_the_end(stage: Stage) -> None:
    websocket, peer, task = run(stage)
    peer.say_goodbye()
    task.result()
    ours, theirs = socket.socketpair()
    peer = Peer(theirs)
    websocket.__init__(ours)
    task = start_thread(websocket.run)
    peer.send(peer.text("anew"))
    assert peer.receive_text() == "anew"
    peer.say_goodbye()
    task.result()
    peer.close()
    assert websocket.end() == (1000, b"")


def test_closed_may_have_any_signature(stage: Stage) -> None:
    class Any_(WebSocket):  # noqa: N801
        def closed(self, *args: Any) -> None:
            ends.append(args)

    class Text(WebSocket):
        def closed(self, code: int, reason: Any = "no reason") -> None:
            ends.append((code, reason))

    ends: list[tuple[Any, ...]] = []
    for kind in (Any_, Text):
        _, peer, task = run(stage, kind)
        peer.say_goodbye(1001, "away")
        task.result()
    assert ends == [(1001, b"away"), (1001, b"away")]


def test_an_echo_websocket_echoes(stage: Stage) -> None:
    _, peer, task = run(stage, EchoWebSocket)
    peer.send(peer.text("é"), peer.binary(b"\xff"), peer.text(""))
    assert peer.receive() == (FIN | OPCODE_TEXT, "é".encode())
    assert peer.receive() == (FIN | OPCODE_BINARY, b"\xff")
    assert peer.receive() == (FIN | OPCODE_TEXT, b"")
    peer.say_goodbye()
    task.result()


def test_received_messages_have_the_attributes_of_06(stage: Stage) -> None:
    seen: list[Message] = []
    _, peer, task = run(stage, Script.of(message=lambda websocket, message: seen.append(message)))
    peer.send(peer.text("é"), peer.binary(b"\xff"))
    peer.say_goodbye()
    task.result()
    text, binary = seen
    assert isinstance(text, TextMessage)
    assert isinstance(binary, BinaryMessage)
    assert (text.data, str(text), len(text), text.encoding) == ("é".encode(), "é", 1, "utf-8")
    assert (text.is_text, text.is_binary) == (True, False)
    assert (binary.data, len(binary), binary.encoding) == (b"\xff", 1, None)
    assert (binary.is_text, binary.is_binary) == (False, True)


def test_a_heartbeat_pings(stage: Stage) -> None:
    websocket, peer = stage.connect(None, WebSocket)
    with Heartbeat(websocket, 0.01) as heartbeat:
        frames = [peer.receive() for _ in range(3)]
    heartbeat.join(PATIENCE)
    assert not heartbeat.is_alive()
    assert all(frame.opcode == OPCODE_PING for frame in frames)


def test_a_heartbeat_ends_with_its_websocket(stage: Stage) -> None:
    websocket, _ = stage.connect(None, WebSocket)
    heartbeat = Heartbeat(websocket, 0.01)
    heartbeat.start()
    websocket.terminate()
    heartbeat.join(PATIENCE)
    assert not heartbeat.is_alive()


@pytest.mark.parametrize("frequency", [0, None])
def test_a_heartbeat_of_no_frequency_is_none(stage: Stage, frequency: Any) -> None:
    websocket, _ = stage.connect(None, WebSocket)
    with Heartbeat(websocket, frequency) as heartbeat:
        assert not heartbeat.is_alive()


def test_heartbeat_freq_makes_run_ping(stage: Stage) -> None:
    websocket, peer, task = run(stage, heartbeat_freq=0.01)
    for _ in range(3):
        ping = peer.receive()
        assert ping.opcode == OPCODE_PING
        peer.send(peer.pong(ping.payload))
    peer.send(peer.goodbye())
    frames = peer.receive_rest()
    assert frames[-1].opcode == OPCODE_CLOSE
    task.result()
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "WebSocketHeartbeat"])
    assert websocket.end() == (1000, b"")


# --- encode_payload ---------------------------------------------------------------------------------------------------


def test_encode_payload_checks_texts_but_not_their_fragments() -> None:
    half = "é".encode()[:1]
    with pytest.raises(TextFrameEncodingException):
        encode_payload(half, False)
    assert encode_payload(half, False, True) == (OPCODE_TEXT, half)
    assert encode_payload(half, True) == (OPCODE_BINARY, half)


def test_every_exception_here_is_one_of_ours() -> None:
    assert issubclass(ConnectionClosed, WebSocketException)
    assert issubclass(ConnectionClosed, RuntimeError)

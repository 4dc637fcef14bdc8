"""How websockets under CherryPy live and end: with the engine, with other clients, with processes."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cherrypy", reason="these are tests of ws4py under CherryPy")
client = pytest.importorskip("websockets.sync.client", reason="one of the peers is the package websockets")
exceptions = pytest.importorskip("websockets.exceptions")

from tests.helpers import start_thread  # noqa: E402
from tests.serving import PATIENCE, Peer, Server, eventually  # noqa: E402

GOING_AWAY = 1001
CLOSE_TIMEOUT = 5.0
DRAIN_TIMEOUT = 10.0
FEW = 5.0  # seconds more that an exit may take on a busy machine; measured are 0.6

tags = (f"t{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as server:
        yield server
        assert server.state(websockets=0)["entries"] == 0


@pytest.fixture
def tag() -> str:
    """What the events of a test's websockets are kept under."""
    return next(tags)


def idle(server: Server, stack: contextlib.ExitStack, count: int) -> list[Peer]:
    """Return websockets that have said something, and are with the manager now."""
    peers = [stack.enter_context(server.open("/echo")) for _ in range(count)]
    for peer in peers:
        peer.echo("here")
    return peers


def expect_goodbye(peers: list[Peer]) -> None:
    """Read the Close of a server that goes away, and answer it."""
    for peer in peers:
        assert peer.receive().code == GOING_AWAY
        peer.finish_after_close(GOING_AWAY)


# --- the engine -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["wsgi", "native"])
@pytest.mark.parametrize("priority", [None, 80])
def test_many_clients_may_come_at_once(kind: str, priority: int | None) -> None:
    """They wait until the server accepts them, which it does not while it is stopped."""
    with Server({"server": kind, "queue": None, "priority": priority}) as server, contextlib.ExitStack() as clients:
        server.wait_for_line("connections may wait for the HTTP server")
        server.process.send_signal(signal.SIGSTOP)
        try:
            for _ in range(200):
                clients.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=5))
        finally:
            server.process.send_signal(signal.SIGCONT)


def test_a_listen_queue_of_ones_own() -> None:
    with Server({"queue": 7}) as server:
        assert "connections may wait" not in server.log()


@pytest.mark.parametrize("kind", ["wsgi", "native"])
def test_stop_and_start(kind: str) -> None:
    with Server({"server": kind}) as server, contextlib.ExitStack() as stack:
        fds = []
        for _ in range(3):
            peers = idle(server, stack, 3)
            fds.append(server.state()["fds"])
            server.tell("stop")
            expect_goodbye(peers)
            server.wait_for_line("done stop", len(fds))
            with pytest.raises(ConnectionRefusedError):
                server.connect()
            server.command("start")
        assert fds[0] == fds[-1]
        expected = server.state()
        assert (expected["websockets"], expected["entries"]) == (0, 0)


@pytest.mark.parametrize("options", [{}, {"workers": 0}], ids=str)
def test_starts_and_stops_under_traffic(options: dict[str, Any]) -> None:
    """Clients send on, whatever comes: nothing is left of them, and no thread of the manager's."""

    def send_on(peer: Peer) -> None:
        with contextlib.suppress(OSError, EOFError, AssertionError):
            while True:
                peer.send("x")
                peer.receive()

    with Server({"plugin": {"drain_timeout": 0.1, **options}}) as server, contextlib.ExitStack() as stack:
        states = []
        for number in range(6):
            peers = idle(server, stack, 3)
            states.append(server.state())
            tasks = [start_thread(send_on, peer) for peer in peers]
            server.command("stop")
            for task in tasks:
                task.result()
            for peer in peers:
                peer.close()
            server.wait_for_line("done stop", number + 1)
            server.command("start")
        assert states[-1]["fds"] == states[1]["fds"]
        assert states[-1]["threads"] <= states[1]["threads"] + 1
        last = server.state(websockets=0)
        assert (last["websockets"], last["entries"]) == (0, 0)


def test_a_manager_that_fails_is_started_again_three_times_a_minute() -> None:
    with Server({"fragile": True, "statistics": True}, quiet=False) as server:
        for times in range(1, 5):
            with server.open("/echo") as peer:
                peer.echo("here")
                server.tell("fail")
                assert peer.message() == "your manager fails"
                assert peer.receive().code == GOING_AWAY
            server.wait_for_line("The manager's thread failed", times)
            if times < 4:
                server.wait_for_line("WebSocket processing failed, and was started again", times)
        with server.connect() as asking:
            assert asking.upgrade("/echo").status == 503
        assert server.get("/").status == 200
        figures = server.ask("/cpstats/data")["CherryPy WebSocket"]
        assert (figures["State"], figures["Manager Failures"]) == ("failed", 4)
        assert server.log().count("was started again") == 3


def test_a_manager_of_its_own_for_the_next_start() -> None:
    with Server() as server, contextlib.ExitStack() as stack:
        peers = idle(server, stack, 2)
        server.tell("stop")
        expect_goodbye(peers)
        server.wait_for_line("done stop")
        server.command("new manager")
        server.command("start")
        peers = idle(server, stack, 2)
        assert server.state(websockets=2)["websockets"] == 2
        server.terminate_and(lambda: expect_goodbye(peers))


@pytest.mark.parametrize("page", ["/plugin_again", "/second_plugin"])
def test_another_plugin_on_the_same_bus(page: str) -> None:
    with Server() as server, contextlib.ExitStack() as stack:
        old = idle(server, stack, 1)
        with server.connect() as asking:
            asking.sock.sendall(asking.request(page))
            if page == "/plugin_again":
                expect_goodbye(old)
            assert asking.read_response().status == 200
        if page == "/second_plugin":
            old[0].echo("it is still with the old plugin's manager")
            old[0].finish()
        peers = idle(server, stack, 2)
        assert server.state(websockets=2)["websockets"] == 2
        assert server.get("/broadcast?text=once").status == 200
        for peer in peers:
            assert peer.message() == "once"
            peer.echo("and not twice")
        server.terminate_and(lambda: expect_goodbye(peers))


@pytest.mark.parametrize("priority", [10, 66])
def test_a_priority_of_the_programs_own(priority: int) -> None:
    with Server({"priority": priority}) as server, server.open("/echo") as peer:
        peer.echo("started early")
        log = server.log()
        assert log.index("the plugin has started") < log.index("Serving on")
        peer.finish()


def test_graceful_keeps_the_websockets() -> None:
    with Server() as server, server.open("/echo") as peer:
        peer.echo("before")
        server.command("graceful")
        peer.echo("behind")
        peer.finish()


def test_the_plugins_overrides_are_called(server: Server) -> None:
    assert "the plugin has started" in server.log()


# --- the exit ---------------------------------------------------------------------------------------------------------


def test_exit_with_idle_clients_is_fast() -> None:
    with Server() as server, contextlib.ExitStack() as stack:
        peers = idle(server, stack, 50)
        others = [stack.enter_context(client.connect(server.url("/echo"), open_timeout=PATIENCE)) for _ in range(5)]
        took = server.terminate_and(lambda: expect_goodbye(peers))
        assert took < CLOSE_TIMEOUT
        for other in others:
            with pytest.raises(exceptions.ConnectionClosed) as caught:
                other.recv(PATIENCE)
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == GOING_AWAY
        assert server.process.returncode == 0


@pytest.mark.parametrize("drain", [None, 1.0])
def test_exit_with_clients_that_do_not_help(drain: float | None) -> None:
    options = {} if drain is None else {"drain_timeout": drain}
    with Server({"plugin": options}) as server, contextlib.ExitStack() as stack:
        for _ in range(3):
            flooded = stack.enter_context(server.open("/flood?tag=flood"))
            flooded.send(str(100_000_000))
        blocked = stack.enter_context(server.open("/blocker?tag=blocker"))
        blocked.send("block")
        assert len(server.events("flood", 6)) >= 6
        assert len(server.events("blocker", 2)) >= 2
        idle(server, stack, 3)  # and they won't answer
        peers = idle(server, stack, 3)
        took = server.terminate_and(lambda: expect_goodbye(peers))
        assert took < (DRAIN_TIMEOUT if drain is None else drain) + FEW
        assert server.process.returncode == 0


def test_exit_by_the_engine() -> None:
    with Server() as server, contextlib.ExitStack() as stack:
        peers = idle(server, stack, 3)
        server.tell("exit")
        expect_goodbye(peers)
        assert server.wait() == 0


@pytest.mark.parametrize("options", [{}, {"workers": 1}, {"workers": 0}, {"dispatch": "pool", "workers": 1}], ids=str)
def test_exit_by_a_callback(options: dict[str, Any]) -> None:
    """It takes as long as the others need to say goodbye, and no longer."""
    plugin = {"drain_timeout": 10 * PATIENCE, "close_timeout": 10 * PATIENCE, **options}
    with Server({"plugin": plugin}) as server, contextlib.ExitStack() as stack:
        peers = idle(server, stack, 5)
        operator = stack.enter_context(server.open("/operator"))
        operator.send("exit")
        expect_goodbye([*peers, operator])
        assert server.wait() == 0
        assert "the callback is behind exit" in server.log()


def test_exit_twice_is_once() -> None:
    with Server() as server, contextlib.ExitStack() as stack:
        peers = idle(server, stack, 3)
        server.tell("stop")
        expect_goodbye(peers)
        server.wait_for_line("done stop")
        server.command("stop")
        server.tell("exit")
        assert server.wait() == 0


def test_a_port_in_use(server: Server) -> None:
    second = Server(port=server.port, status=None)
    try:
        assert second.wait() != 0
        log = second.log()
        assert f"Port {server.port} not free" in log
        assert "Bus EXITED" in log
    finally:
        second.kill()
    with server.open("/echo") as peer:
        peer.echo("undisturbed")
        peer.finish()


# --- the process ------------------------------------------------------------------------------------------------------


def test_the_daemonizer(tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    server = Server({"daemonize": str(pidfile)}, status=None)
    pid = 0
    try:
        assert server.wait() == 0  # the parent's
        eventually(pidfile.exists, "there is a file with the process's number")
        pid = int(eventually(pidfile.read_text, "it has the number"))

        def answers() -> bool:
            with contextlib.suppress(ConnectionError):
                return server.get("/").status == 200
            return False

        eventually(answers, "the daemon serves")
        assert int(server.get("/pid").body) == pid != server.process.pid
        with server.open("/echo") as peer:
            peer.echo("from a daemon")
            os.kill(pid, signal.SIGTERM)
            expect_goodbye([peer])
        eventually(lambda: not alive(pid), "the daemon ends")
        assert not pidfile.exists()
        assert "Traceback" not in Path(f"{pidfile}.log").read_text()
    finally:
        if pid and alive(pid):
            os.kill(pid, signal.SIGKILL)
        server.kill()


def alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and that nobody has asked for does not."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_the_autoreloader(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text("")
    touched = itertools.count(int(time.time()) + 10)

    with Server({"autoreload": str(module)}) as server, contextlib.ExitStack() as stack:
        peers = idle(server, stack, 3)

        def reloads() -> bool:
            when = next(touched)
            os.utime(module, (when, when))
            return "Bus STOPPING" in server.log()

        eventually(reloads, "a changed module is seen")
        expect_goodbye(peers)
        server.wait_for_line("Bus STARTED", 2)
        server.wait_until_ready()
        idle(server, stack, 3)
        state = server.state(websockets=3)
        assert state["fds"] < 30  # none was left over by the process before


def test_a_websocket_given_to_a_process_before_it_is_the_managers(server: Server) -> None:
    with server.open("/fork") as peer:
        peer.send("a word for the child")
        assert peer.message() == "the child got a word for the child"
        peer.finish()


def test_a_websocket_that_a_process_inherits(server: Server, tag: str) -> None:
    with server.open(f"/forker?tag={tag}") as peer:
        for number in range(3):
            peer.send(f"{number}")
            assert peer.message() == f"from the child, {number}"
        peer.finish()
    assert server.events(tag, 2)[1] == ["closed", 1000, ""]


# --- other clients ----------------------------------------------------------------------------------------------------


def test_a_client_that_does_not_read_delays_nobody(server: Server, tag: str) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            deaf = stack.enter_context(server.open(f"/flood?tag={tag}"))
            deaf.send(str(200_000_000))
        server.events(tag, 6)
        peer = stack.enter_context(server.open("/echo"))
        # Only a machine that is busy with other things makes it slow; ws4py 0.6 needs 10 seconds.
        best = min(max(peer.echo("quick") for _ in range(10)) for _ in range(30))
        assert best < 0.1
        assert server.get("/").body == b"hello"
        peer.finish()
    assert [event[1] for event in server.events(tag, 9) if event[0] == "closed"] == [1006] * 3


def test_a_broadcast_does_not_wait_for_a_client_that_does_not_read(server: Server, tag: str) -> None:
    with contextlib.ExitStack() as stack:
        deaf = stack.enter_context(server.open(f"/flood?tag={tag}"))
        deaf.send(str(200_000_000))
        server.events(tag, 2)
        peer = stack.enter_context(server.open("/echo"))
        peer.echo("here")
        began = time.monotonic()
        for number in range(10):
            server.get(f"/broadcast?text={number}")
            assert peer.message() == f"{number}"
        assert time.monotonic() - began < DRAIN_TIMEOUT  # which is also how long a send may wait
        peer.finish()


def test_the_bus_publishes_to_a_topic(server: Server, tag: str) -> None:
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(server.open(f"/subscriber?tag={tag}")) for _ in range(3)]
        other = stack.enter_context(server.open("/subscriber?tag=another"))
        for peer in [*peers, other]:
            peer.echo("here")
        server.get(f"/publish?topic={tag}&text=news")
        for peer in peers:
            assert peer.message() == "news"
            assert peer.message() == b"news"
            peer.finish()
        other.echo("has got nothing")
        other.finish()


def test_the_workers_of_http_are_free_while_websockets_are_open() -> None:
    with Server({"threads": 2}) as server, contextlib.ExitStack() as stack:
        peers = idle(server, stack, 50)
        for _ in range(5):
            assert server.get("/").body == b"hello"
        blocked = [stack.enter_context(server.open("/blocker?tag=blocker")) for _ in range(4)]
        for peer in blocked:
            peer.send("block")
        server.events("blocker", 8)
        for peer in peers:
            peer.echo("still here")
        assert server.get("/").body == b"hello"
        assert server.get("/release").body == b"done"
        for peer in blocked:
            assert peer.message() == "block"
            peer.finish()
        for peer in peers:
            peer.finish()


@pytest.mark.parametrize("way", ["closes", "resets", "half closes"])
def test_a_client_that_vanishes(server: Server, tag: str, way: str) -> None:
    with server.open(f"/echo?tag={tag}") as peer:
        peer.echo("here")
        if way == "resets":
            peer.reset()
        elif way == "closes":
            peer.close()
        else:
            peer.sock.shutdown(1)
            assert peer.read_to_the_end() == b""
        assert [event[:2] for event in server.events(tag, 2)] == [["opened", None], ["closed", 1006]]


def test_a_client_that_dies_is_found_by_its_missing_pongs(tag: str) -> None:
    with Server({"plugin": {"ping_interval": 0.1, "ping_timeout": 0.2}}) as server:
        with server.open(f"/echo?tag={tag}") as peer:
            assert server.events(tag, 2)[1][:2] == ["closed", 1006]
            data = peer.read_to_the_end()
        assert data[:2] == b"\x89\x04"
        assert b"Keepalive ping timeout" in data


def test_a_peer_that_others_wrote_answers_pings() -> None:
    options = {"plugin": {"ping_interval": 0.05, "ping_timeout": 5.0}}
    with Server(options) as server, client.connect(server.url("/echo"), open_timeout=PATIENCE) as peer:
        for _ in range(20):
            peer.send("here")
            assert peer.recv(PATIENCE) == "here"
        assert peer.ping().wait(PATIENCE)

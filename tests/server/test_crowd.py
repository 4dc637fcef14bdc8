"""Many websockets, one after the other and at once: nothing is left behind, and everybody is served."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator

import pytest

pytest.importorskip("cherrypy", reason="these are tests of ws4py under CherryPy")

from tests.serving import Peer, Server, frame

CYCLES = 2000
CROWD = 5000
HTTP_THREADS = 4
SLACK = 5 * HTTP_THREADS
"""What a process may have more of: each worker remembers its last connection until the next one."""


def cycle(server: Server, number: int) -> None:
    """Open a websocket, and close it, in one way of several."""
    with server.open("/echo", after=frame("early")) as peer:
        assert peer.message() == "early"
        way = number % 5
        if way == 0:
            peer.reset()
        elif way == 1:
            peer.close()
        elif way == 2:
            peer.sock.sendall(b"\x00" * 100)  # no frame
            assert peer.receive().code == 1002
        else:
            peer.echo("late")
            peer.finish()


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("kind", "tls", "cycles"),
    [("wsgi", None, CYCLES), ("native", None, 400), ("wsgi", "builtin", 400), ("wsgi", "pyopenssl", 400)],
)
def test_websockets_that_come_and_go_leave_nothing(kind: str, tls: str | None, cycles: int) -> None:
    # The garbage collector is off: objects that refer to each other in circles would stay, too.
    with Server({"server": kind, "tls": tls, "threads": HTTP_THREADS, "gc": False}) as server:
        for number in range(100):
            cycle(server, number)
        before = server.state(websockets=0)
        for number in range(cycles):
            cycle(server, number)
        after = server.state(websockets=0)
    assert (after["websockets"], after["entries"]) == (0, 0)
    assert after["fds"] <= before["fds"] + SLACK
    assert after["threads"] <= before["threads"] + SLACK
    grown = {
        name: (before["objects"].get(name, 0), count)
        for name, count in after["objects"].items()
        if count > before["objects"].get(name, 0) + SLACK
    }
    assert grown == {}


def allow_files(count: int) -> None:
    """Have this process, and those that it starts, open so many files; skip the test if they may not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        if hard != resource.RLIM_INFINITY and hard < count:
            pytest.skip(f"a process may open {hard} files here, and the test needs {count}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


@pytest.fixture
def crowded() -> Iterator[tuple[Server, list[Peer]]]:
    """A server with a crowd of idle websockets."""
    allow_files(CROWD + 500)
    with (
        Server({"threads": HTTP_THREADS, "plugin": {"ping_interval": None}}) as server,
        contextlib.ExitStack() as stack,
    ):
        yield server, [stack.enter_context(server.open("/echo")) for _ in range(CROWD)]


@pytest.mark.timeout(240)
def test_an_idle_crowd(crowded: tuple[Server, list[Peer]]) -> None:
    server, peers = crowded
    state = server.state(websockets=CROWD)
    assert state["websockets"] == CROWD
    assert state["threads"] < 60  # the crowd has none of its own
    for _ in range(20):
        assert server.get("/").body == b"hello"
    for peer in peers[:: CROWD // 100]:
        peer.echo("one of many")
    assert server.get("/broadcast?text=to+all").body == b"done"
    for peer in peers:
        assert peer.message() == "to all"
    for peer in peers[: CROWD // 2]:
        peer.sock.sendall(frame(b"\x03\xe8", 8))
    for peer in peers[: CROWD // 2]:
        assert peer.receive().code == 1000
        peer.close()
    for peer in peers[CROWD // 2 :]:
        peer.reset()
    assert server.state(websockets=0)["entries"] == 0
    assert server.get("/").body == b"hello"

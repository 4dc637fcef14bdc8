"""The servers that know nothing of websockets: what becomes of their threads, pages, logs and ends."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.doors.servers import KINDS, NO_TEST, Door, rows, shows
from tests.serving import Peer, close_frame, eventually, frame

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are counted in /proc")

GUNICORNS = [name for name in KINDS if name.startswith("gunicorn")]
ALL = list(KINDS)
NEWEST = ["gunicorn-gthread", "gunicorn-sync"]
MANY = 40


def open_many(server: Door, count: int) -> list[Peer]:
    """Return so many websockets."""
    return [server.open("/ws") for _ in range(count)]


def expect_1001(peers: list[Peer]) -> None:
    """Read the goodbye on each, and answer."""
    for peer in peers:
        assert peer.receive().code == 1001
        peer.sock.sendall(close_frame(1001))
    for peer in peers:
        assert peer.read_to_the_end() == b""
        peer.close()


@shows("threads", *ALL)
def test_the_thread_is_given_back(kind: str) -> None:
    """Many more websockets than a server has threads, and pages meanwhile."""
    with Door(kind) as server:
        peers = open_many(server, MANY)
        for peer in peers:
            peer.echo("here")
        state = server.state()
        assert state["threads"] < 20
        assert os.listdir(f"/proc/{state['pid']}/task")
        for peer in peers:
            peer.echo("still here")
            peer.finish()
        eventually(lambda: server.state()["descriptors"] < state["descriptors"] - MANY / 2, "the sockets are closed")


@shows("end", *(kind for kind in ALL if kind not in ("werkzeug-reloader", "uwsgi-router")))
def test_the_end(kind: str) -> None:
    """Nothing is configured."""
    with Door(kind) as server:
        peers = open_many(server, 10)
        for peer in peers:
            peer.echo("here")
        server.end()
        expect_1001(peers)
        server.wait()


@shows("tls", *(name for name, kind in KINDS.items() if kind.tls is not None))
def test_tls(kind: str) -> None:
    with Door(kind, tls=True) as server:
        peers = open_many(server, 12)
        for peer in peers:
            peer.echo("here")
            peer.echo("x" * 100_000)
        assert server.state()["threads"] < 20
        peers[0].finish()
        peers[1].reset()
        server.end()
        expect_1001(peers[2:])


@shows("unix", *GUNICORNS, "werkzeug", "werkzeug-single", "waitress", "uwsgi")
def test_a_unix_socket(kind: str) -> None:
    with Door(kind, unix=True) as server:
        peers = open_many(server, 10)
        for peer in peers:
            peer.echo("here")
        assert server.state()["threads"] < 20
        server.end()
        expect_1001(peers)


@pytest.mark.parametrize("tls", [False, True])
@shows("keepalive", *(kind for kind in GUNICORNS if not kind.endswith("sync")), "waitress", "django")
def test_a_page_before_on_the_connection(kind: str, tls: bool) -> None:
    if tls and KINDS[kind].tls is None:
        pytest.skip("this server has no TLS")
    with Door(kind, tls=tls) as server, server.connect() as peer:
        for _ in range(3):
            assert peer.get("/").status == 200
        assert peer.upgrade("/ws").status == 101
        peer.echo("here")
        assert server.state()["threads"] < 20
        peer.echo("still here")
        peer.finish()


@shows("early", *(kind for kind in ALL if not kind.startswith("uwsgi")))
def test_early_frames(kind: str) -> None:
    """Frames in the segment of the handshake itself."""
    with Door(kind) as server:
        messages = [f"message {number}" for number in range(5)]
        with server.open("/ws", b"".join(frame(message) for message in messages)) as peer:
            assert [peer.message() for _ in messages] == messages
            peer.echo("later")
            peer.finish()


@shows("early", "uwsgi", "uwsgi-router", cell="lost")
def test_early_frames_that_are_lost(kind: str) -> None:
    """Clients may not send any (RFC 6455, section 4.1), and uWSGI gives none away."""
    with Door(kind) as server, server.open("/ws", frame("early")) as peer:
        peer.echo("later")


@shows("log", *GUNICORNS, "werkzeug", "werkzeug-single", "werkzeug-reloader", "flask", "wsgiref", "django", "uwsgi")
def test_the_access_log(kind: str) -> None:
    """Each handshake has its line, and nothing else is said of it."""
    with Door(kind) as server:
        before = server.log()
        for _ in range(5):
            with server.open("/ws") as peer:
                peer.echo("here")
                peer.finish()
        line = re.compile(r"GET /ws.* 101\b")
        eventually(lambda: len(line.findall(server.log())) == 5, "the lines are there")
        rest = [text for text in server.log()[len(before) :].splitlines() if not re.search(r"GET /\S* ", text)]
        assert not any("roken pipe" in text or "rror" in text or "Traceback" in text for text in rest), rest


@pytest.mark.parametrize("kind", [*NEWEST, "gunicorn-gevent", "werkzeug", "waitress", "uwsgi"])
def test_clients_that_vanish(kind: str) -> None:
    """Some before the answer, some after it: nothing stays of them, and nothing is said."""
    with Door(kind) as server:
        before = server.state()["descriptors"]
        for number in range(30):
            peer = server.connect()
            peer.sock.sendall(peer.handshake("/ws"))
            if number % 2:
                peer.read_response()
            if number % 3:
                peer.reset()
            else:
                peer.close()
        with server.open("/ws") as peer:
            peer.echo("here")
            peer.finish()
        eventually(lambda: server.state()["descriptors"] <= before + 8, "the sockets are closed")
        assert "roken pipe" not in server.log()


@shows(
    "descriptors", *NEWEST, "gunicorn-gevent", "werkzeug", "werkzeug-single", "wsgiref", "django", "waitress", "uwsgi"
)
def test_no_descriptors_are_left(kind: str) -> None:
    """The rest is answered 503, and the server lives: those that are open, and pages."""
    with Door(kind, descriptors=(200, 200)) as server:
        peers: list[Peer] = []
        refused: list[Any] = []
        for _ in range(90):
            peer = server.connect()
            response = peer.upgrade("/ws")
            if response.status == 101:
                peers.append(peer)
            else:
                refused.append(response)
                peer.close()
        assert len(peers) > 40
        assert len(refused) > 15
        assert {response.status for response in refused} == {503}
        assert all(response.get("retry-after") for response in refused)
        for peer in peers:
            peer.echo("here")
        assert server.state()["descriptors"] < 200
        for _ in range(5):  # connections that the server has yet to close take some, too
            peers.pop().finish()
        eventually(lambda: _opens(server, peers), "there is room again")
        for peer in peers:  # so that no handshake is in progress
            peer.echo("still here")
        server.end()
        expect_1001(peers)


def _opens(server: Door, peers: list[Peer]) -> bool:
    peer = server.connect()
    if peer.upgrade("/ws").status == 101:
        peers.append(peer)
        return True
    peer.close()
    return False


def test_low_numbers_are_left_to_the_server() -> None:
    """It waits by select(), which knows no number of a descriptor from 1024 on."""
    with Door("waitress", descriptors=(200, 3000)) as server:
        peers = open_many(server, 10)
        for peer in peers:
            peer.echo("here")
        numbers = [int(name) for name in os.listdir(f"/proc/{server.state()['pid']}/fd")]
        assert len([number for number in numbers if number >= 1024]) == 10


def test_the_soft_limit_is_raised() -> None:
    with Door("gunicorn-gthread", descriptors=(200, 600)) as server:
        peers = open_many(server, 150)
        for peer in peers:
            peer.echo("here")
        server.end()
        expect_1001(peers)


@shows("own", "gunicorn-gthread", "gunicorn-sync")
def test_a_manager_of_ones_own(kind: str) -> None:
    """The interpreter would wait for its thread, which is no daemon, for ever."""
    ends_with_the_process(kind, "1")


@shows("own", "gunicorn-gevent", "gunicorn-eventlet", "werkzeug", cell="daemon")
def test_a_daemon_of_ones_own(kind: str) -> None:
    """It is stopped with the interpreter."""
    ends_with_the_process(kind, "daemon")


def ends_with_the_process(kind: str, manager: str) -> None:
    with Door(kind, OWN_MANAGER=manager) as server:
        peers = open_many(server, 10)
        for peer in peers:
            peer.echo("here")
        server.end()
        expect_1001(peers)
        server.wait()


@pytest.mark.parametrize("kind", ["gunicorn-gevent", "gunicorn-eventlet"])
def test_greenlets_do_not_wait_for_the_main_thread(kind: str) -> None:
    """They would, with a manager that is no daemon, and nobody could run any more."""
    with Door(kind, OWN_MANAGER="yes") as server, server.open("/ws") as peer:
        peer.echo("here")
        peer.finish()


# --- reloads ----------------------------------------------------------------------------------------------------------


@shows("reload", *GUNICORNS)
def test_hup(kind: str) -> None:
    """The old worker says goodbye, the new one serves."""
    with Door(kind) as server:
        peers = open_many(server, 10)
        before = server.state()["pid"]
        server.process.send_signal(signal.SIGHUP)
        expect_1001(peers)
        eventually(lambda: server.state()["pid"] != before, "the new worker serves")
        with server.open("/ws") as peer:
            peer.echo("here")
            peer.finish()


@shows("reload", "uwsgi")
def test_reload_of_uwsgi(kind: str) -> None:
    with Door(kind) as server:
        peers = open_many(server, 10)
        server.process.send_signal(signal.SIGHUP)
        expect_1001(peers)


@shows("reload", "werkzeug-reloader")
def test_the_reloader(kind: str, tmp_path: Path) -> None:
    """A file changes."""
    watched = tmp_path / "watched"
    watched.write_text("1")
    with Door(kind, str(watched)) as server:
        peers = open_many(server, 10)
        before = server.state()["pid"]
        os.utime(watched, (2e9, 2e9))
        expect_1001(peers)
        eventually(lambda: _pid(server) not in (None, before), "the new process serves")


def _pid(server: Door) -> int | None:
    try:
        return int(server.state()["pid"])
    except OSError:
        return None


@pytest.mark.parametrize("kind", NEWEST)
def test_a_preloaded_application(kind: str) -> None:
    with Door(kind, "--preload", "--workers", "2") as server:
        peers = open_many(server, 20)
        for peer in peers:
            peer.echo("here")
        server.end()
        expect_1001(peers)


@pytest.mark.parametrize("kind", [kind for kind in GUNICORNS if "gthread" in kind])
def test_websockets_are_no_connections_of_gunicorns(kind: str) -> None:
    """Neither those that are open nor those that have ended: it counts rightly, and goes on to accept."""
    with Door(kind, "--worker-connections", "10") as server:
        for _ in range(30):
            with server.open("/ws") as peer:
                peer.echo("here")
                peer.finish()
        peers = open_many(server, 40)
        assert server.state()["threads"] < 20
        server.end()
        expect_1001(peers)


@pytest.mark.parametrize("kind", NEWEST)
def test_max_requests(kind: str) -> None:
    """A handshake is a request: the worker that has had so many leaves, and says goodbye."""
    with Door(kind, "--max-requests", "12") as server:
        before = server.state()["pid"]
        peers = open_many(server, 5)
        for _ in range(10):
            if _pid(server) != before:
                break
        expect_1001(peers)
        eventually(lambda: _pid(server) not in (None, before), "the next worker serves")


def test_usr2() -> None:
    """A new master, and a goodbye of the old one."""
    with Door("gunicorn-gthread") as server:
        peers = open_many(server, 10)
        server.process.send_signal(signal.SIGUSR2)
        eventually(lambda: "Reexec" in server.log() or server.log().count("Starting gunicorn") == 2, "it starts anew")
        eventually(lambda: server.log().count("Booting worker") == 2, "the new worker is there")
        server.process.terminate()
        expect_1001(peers)
        with server.open("/ws") as peer:
            peer.echo("here")
            peer.finish()


# --- what can't be done -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "tls"), [("waitress-lookahead", False), ("gunicorn-eventlet-tls", True)])
def test_servers_that_keep_a_connection(kind: str, tls: bool) -> None:
    """The one reads it while a request is answered, the other watches it."""
    with Door(kind, tls=tls) as server, server.connect() as peer:
        response = peer.upgrade("/ws")
        assert response.status == 501
        assert b"serve with gunicorn" in response.body


def test_the_table() -> None:
    """A server without a test of something has a mark for that."""
    head, *table = rows()
    assert len(table) == len(KINDS)
    assert {len(row) for row in table} == {len(head)}
    cells = {cell for row in table for cell in row[1:]}
    assert cells == {"yes", "lost", "daemon", NO_TEST}

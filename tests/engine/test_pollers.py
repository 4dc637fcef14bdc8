"""Each poller, on real sockets."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.helpers import PATIENCE, EchoRecorder, Stage, quiet, start_thread, unix_pair, wait_for
from ws4py.engine.pollers import READ, WRITE, default_poller
from ws4py.manager import EPollPoller, KQueuePoller, Poller, PollPoller, SelectPoller

needs_epoll = pytest.mark.skipif(not hasattr(select, "epoll"), reason="this system has no epoll")
needs_poll = pytest.mark.skipif(not hasattr(select, "poll"), reason="this system has no poll")
needs_kqueue = pytest.mark.skipif(not hasattr(select, "kqueue"), reason="this system has no kqueue")

KINDS = [
    pytest.param(EPollPoller, marks=needs_epoll),
    pytest.param(KQueuePoller, marks=needs_kqueue),
    pytest.param(PollPoller, marks=needs_poll),
    SelectPoller,
]


@pytest.fixture(params=KINDS)
def poller(request: pytest.FixtureRequest) -> Iterator[Any]:
    poller = request.param()
    yield poller
    poller.release()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = unix_pair()
    ours.setblocking(False)
    theirs.setblocking(False)
    with ours, theirs:
        yield ours, theirs


Pair = tuple[socket.socket, socket.socket]


def fill(sock: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.send(bytes(65536))


def drain(sock: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        while sock.recv(1 << 20):
            pass


def test_nothing_is_ready_at_first(poller: Poller, pair: Pair) -> None:
    poller.register(pair[0].fileno())
    assert poller.poll(0) == []


def test_a_socket_is_readable_as_long_as_there_is_something_to_read(poller: Poller, pair: Pair) -> None:
    ours, theirs = pair
    poller.register(ours.fileno(), READ)
    theirs.send(b"ab")
    assert poller.poll(PATIENCE) == [(ours.fileno(), READ)]
    ours.recv(1)
    assert poller.poll(PATIENCE) == [(ours.fileno(), READ)]
    ours.recv(1)
    assert poller.poll(0) == []


def test_a_socket_is_writable_as_long_as_there_is_room(poller: Poller, pair: Pair) -> None:
    ours, theirs = pair
    poller.register(ours.fileno(), WRITE)
    assert poller.poll(PATIENCE) == [(ours.fileno(), WRITE)]
    fill(ours)
    assert poller.poll(0) == []
    drain(theirs)
    assert poller.poll(PATIENCE) == [(ours.fileno(), WRITE)]


def test_both_directions_are_shown_at_once(poller: Poller, pair: Pair) -> None:
    ours, theirs = pair
    poller.register(ours.fileno(), READ | WRITE)
    theirs.send(b"a")
    assert poller.poll(PATIENCE) == [(ours.fileno(), READ | WRITE)]


def test_what_is_watched_can_be_changed(poller: Poller, pair: Pair) -> None:
    ours, theirs = pair
    theirs.send(b"a")
    poller.register(ours.fileno(), READ)
    poller.modify(ours.fileno(), WRITE)
    assert poller.poll(PATIENCE) == [(ours.fileno(), WRITE)]
    poller.modify(ours.fileno(), READ | WRITE)
    assert poller.poll(PATIENCE) == [(ours.fileno(), READ | WRITE)]
    poller.modify(ours.fileno(), READ)
    assert poller.poll(PATIENCE) == [(ours.fileno(), READ)]


def test_what_is_unregistered_is_not_shown(poller: Poller, pair: Pair) -> None:
    ours, theirs = pair
    theirs.send(b"a")
    poller.register(ours.fileno())
    poller.unregister(ours.fileno())
    assert poller.poll(0) == []
    poller.unregister(ours.fileno())
    poller.register(ours.fileno())
    assert poller.poll(PATIENCE) == [(ours.fileno(), READ)]


def test_unregister_takes_a_closed_or_unknown_descriptor(poller: Poller, pair: Pair) -> None:
    ours, _ = pair
    fd = ours.fileno()
    poller.register(fd)
    ours.close()
    poller.unregister(fd)
    poller.unregister(12345)
    assert poller.poll(0) == []


@pytest.mark.parametrize("fd", [-1, None, "3"])
def test_register_refuses_what_is_no_descriptor(poller: Any, fd: Any) -> None:
    with pytest.raises(ValueError, match="not an open file descriptor"):
        poller.register(fd)


def test_the_end_of_a_peer_is_readable(poller: Poller, pair: Pair) -> None:
    ours, theirs = pair
    poller.register(ours.fileno(), READ)
    theirs.close()
    [(fd, event)] = poller.poll(PATIENCE)
    assert fd == ours.fileno()
    assert event & READ


def test_a_hang_up_is_shown_to_a_writer(poller: Poller, pair: Pair) -> None:
    ours, theirs = pair
    fill(ours)
    poller.register(ours.fileno(), WRITE)
    theirs.close()
    [(fd, event)] = poller.poll(PATIENCE)
    assert fd == ours.fileno()
    assert event & WRITE


def test_many_are_shown_at_once(poller: Poller) -> None:
    with contextlib.ExitStack() as stack:
        pairs = [socket.socketpair() for _ in range(100)]
        for ours, theirs in pairs:
            stack.enter_context(ours)
            stack.enter_context(theirs)
            poller.register(ours.fileno())
        for _, theirs in pairs[::2]:
            theirs.send(b"a")
        assert sorted(poller.poll(PATIENCE)) == sorted((ours.fileno(), READ) for ours, _ in pairs[::2])


def test_poll_without_a_timeout_waits(poller: Poller, pair: Pair) -> None:
    ours, theirs = pair
    poller.register(ours.fileno())
    polling = threading.Event()

    def poll() -> object:
        polling.set()
        return poller.poll()

    task = start_thread(poll)
    wait_for(polling)
    theirs.send(b"a")
    assert task.result() == [(ours.fileno(), READ)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_poller_may_be_given_its_longest_wait(kind: Callable[..., Any]) -> None:
    poller = kind(timeout=0.001)
    assert poller.poll() == []
    poller.release()


def test_select_says_which_descriptors_it_can_watch() -> None:
    poller = SelectPoller()
    with pytest.raises(ValueError, match="below 1024, not 1024"):
        poller.register(1024)


def test_select_shows_a_closed_descriptor_and_goes_on(pair: Pair) -> None:
    ours, theirs = pair
    poller = SelectPoller()
    fd = os.dup(ours.fileno())
    poller.register(fd)
    poller.register(ours.fileno())
    os.close(fd)
    assert poller.poll(PATIENCE) == [(fd, READ | WRITE)]
    poller.unregister(fd)
    theirs.send(b"a")
    assert poller.poll(PATIENCE) == [(ours.fileno(), READ)]


@pytest.mark.skipif(hasattr(select, "kqueue"), reason="this system has a kqueue")
def test_kqueue_says_that_there_is_none() -> None:
    with pytest.raises(RuntimeError, match="no kqueue"):
        KQueuePoller()


def test_the_default_is_the_systems_best() -> None:
    poller = default_poller()
    kinds = {"epoll": EPollPoller, "kqueue": KQueuePoller, "poll": PollPoller, "select": SelectPoller}
    assert type(poller) is next(kind for name, kind in kinds.items() if hasattr(select, name))
    poller.release()


def test_a_manager_runs_on_each(poller: Poller, stage: Stage) -> None:  # it ends before its poller is released
    manager = stage.manager(poller=poller, ping_interval=None)
    connections = [stage.connect(manager, EchoRecorder) for _ in range(5)]
    big = bytes(300_000)
    for _, peer in connections:
        peer.send(peer.text("hello"), peer.binary(big))
    for websocket, peer in connections:
        assert peer.receive_text() == "hello"
        assert peer.receive_message() == big
        assert peer.say_goodbye() == (1000, "")
        assert websocket.end() == (1000, b"")
    manager.stop()  # before the poller is released, which is the test's
    manager.join(PATIENCE)


def test_a_manager_with_select_survives_a_socket_that_its_application_closed(stage: Stage) -> None:
    manager = stage.manager(poller=SelectPoller(), ping_interval=None)
    websocket, _ = stage.connect(manager, EchoRecorder)
    _, peer = stage.connect(manager, EchoRecorder)
    wait_for(websocket.was_opened)
    with quiet():
        websocket.sock.close()
        peer.sync()
        assert websocket.end()[0] == 1006
    peer.send(peer.text("still here"))
    assert peer.receive_text() == "still here"
    assert manager.is_alive()


@needs_epoll
def test_more_than_1024_descriptors(stage: Stage) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4096:
        pytest.skip("this system allows too few descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    manager = stage.manager()
    connections = [stage.connect(manager, EchoRecorder) for _ in range(600)]
    websocket, peer = connections[-1]
    assert websocket.sock.fileno() > 1024
    peer.send(peer.text("high"))
    assert peer.receive_text() == "high"


def test_a_manager_with_select_loses_what_it_cannot_watch(stage: Stage) -> None:
    """Such a connection ends, with a word in the log, and no other one with it."""
    manager = stage.manager(poller=SelectPoller())
    _, peer = stage.connect(manager, EchoRecorder)
    ours, theirs = socket.socketpair()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    fd = os.dup2(ours.fileno(), 1500)
    ours.close()
    with quiet() as records:
        high, peer_of_high = stage.connect(manager, EchoRecorder, lambda: (socket.socket(fileno=fd), theirs))
        assert high.end()[0] == 1006
        peer_of_high.expect_end()
    assert "below 1024" in records[0].getMessage()
    peer.send(peer.text("fine"))
    assert peer.receive_text() == "fine"
    assert len(manager) == 1

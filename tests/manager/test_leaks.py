"""What connections leave behind when they are gone, and a manager does when nothing happens: nothing."""

from __future__ import annotations

import gc
import itertools
import select
import shutil
import subprocess
import sys
import threading
import time
import weakref
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import (
    PATIENCE,
    Peer,
    Stage,
    open_fds,
    present,
    unix_pair,
    until,
)
from ws4py.websocket import EchoWebSocket


def test_two_thousand_connections_leave_nothing(stage: Stage) -> None:
    """No descriptor, no object, no entry, whichever way they end, though a Ping was due in a minute."""
    manager = stage.manager(ping_interval=60.0, max_connections_per_ip=100)

    class Counted(EchoWebSocket):
        pass

    ends = itertools.cycle(("peer", "eof", "terminate", "close", "error"))

    def cycle(end: str) -> weakref.ref[Counted]:
        ours, theirs = unix_pair()
        websocket, peer = Counted(ours), Peer(theirs)
        manager.add(websocket, address="192.0.2.1")
        peer.send(peer.text("x"))
        assert peer.receive_text() == "x"
        if end == "peer":
            peer.say_goodbye()
        elif end == "terminate":
            websocket.terminate()
        elif end == "close":
            websocket.close()
            peer.send(peer.goodbye())
        elif end == "error":
            peer.send(b"\xff\xff")
            peer.receive_rest()
        peer.close()
        until(lambda: websocket.stream is None)
        return weakref.ref(websocket)

    for _ in range(10):
        cycle(next(ends))
    until(lambda: not present(manager))
    gc.collect()
    fds = len(open_fds())
    objects = Counter(type(item) for item in gc.get_objects())
    references = [cycle(next(ends)) for _ in range(2000)]
    until(lambda: not present(manager))
    gc.collect()
    assert [reference for reference in references if reference() is not None] == []
    del references
    gc.collect()
    assert len(open_fds()) == fds
    grown = Counter(type(item) for item in gc.get_objects()) - objects
    assert {kind: count for kind, count in grown.items() if count > 100} == {}
    assert not manager._registry._addresses
    assert manager._engine.lifecycle.wheel.next_time() is None
    assert len(manager) == 0


IDLE = """
import socket, sys, threading
sys.path.insert(0, "")
from ws4py.manager import WebSocketManager
from ws4py.websocket import EchoWebSocket

manager = WebSocketManager(ping_interval=None, drain_timeout=0)
manager.daemon = True
manager.start()
peers = []
for _ in range(20):
    ours, theirs = socket.socketpair()
    manager.add(EchoWebSocket(ours))
    theirs.sendall(b"\\x81\\x81\\0\\0\\0\\0x")
    assert theirs.recv(10) == b"\\x81\\x01x"
    peers.append(theirs)
threads = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
print(*(thread.native_id for thread in threads), flush=True)
sys.stdin.readline()
"""


def is_quiet(tasks: Path) -> bool:
    """Tell whether no thread of a process wakes up for a while."""

    def wake_ups() -> list[str]:
        lines = [line for task in tasks.iterdir() for line in (task / "status").read_text().splitlines()]
        return [line for line in lines if "ctxt_switches" in line]

    before = wake_ups()
    threading.Event().wait(0.1)
    return wake_ups() == before


@pytest.mark.skipif(shutil.which("strace") is None, reason="this needs strace")
def test_an_idle_manager_makes_no_system_call(tmp_path: Any) -> None:
    """Nor do its workers, in 5 seconds of real time, with 20 connections and Pings off."""
    with subprocess.Popen(
        [sys.executable, "-c", IDLE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        threads = process.stdout.readline().split()
        assert len(threads) >= 2
        log = tmp_path / "strace"
        tasks = Path(f"/proc/{process.pid}/task")
        until(lambda: {(task / "stat").read_text().rsplit(")", 1)[1].split()[0] for task in tasks.iterdir()} == {"S"})
        until(lambda: is_quiet(tasks))
        strace = subprocess.Popen(
            ["strace", "-f", "-p", str(process.pid), "-o", str(log)], stderr=subprocess.PIPE, text=True
        )
        assert strace.stderr is not None
        attached = 0
        while attached == 0:
            assert select.select([strace.stderr], [], [], PATIENCE)[0]
            line = strace.stderr.readline()
            if "Operation not permitted" in line:
                process.stdin.close()
                pytest.skip("strace may not attach here")
            attached += "attached" in line
        time.sleep(5.0)  # the idleness itself
        strace.terminate()
        strace.wait(PATIENCE)
        strace.stderr.close()
        process.stdin.close()
        process.wait(PATIENCE)
    calls = [line.split(None, 1) for line in log.read_text().splitlines()]
    of_ours = [
        call
        for thread, call in calls
        if thread in threads and "resuming interrupted" not in call and "detached" not in call
    ]
    # What each thread was in when strace came is shown once, unfinished.
    waiting = [call for call in of_ours if "unfinished" in call or call.startswith(("futex(", "epoll_wait("))]
    assert of_ours == waiting
    assert len(of_ours) <= len(threads)

"""``ws4py demo --processes``: the chat, by several processes that share a broker."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.cli.commands import environment
from tests.redis_server import RedisServer
from tests.serving import PATIENCE, eventually
from tests.test_chat import Peer

COMMAND = [sys.executable, "-m", "ws4py", "demo", "--port", "0", "--processes", "2"]


def test_it_needs_a_broker() -> None:
    done = subprocess.run(COMMAND, capture_output=True, text=True, timeout=PATIENCE, check=False, env=environment())
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"ws4py: several processes need --broker, .*\n", done.stderr)


def children(process: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@contextlib.contextmanager
def standing_still(process: int) -> Iterator[None]:
    os.kill(process, signal.SIGSTOP)
    try:
        eventually(lambda: Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] == "T", "it stands still")
        yield
    finally:
        os.kill(process, signal.SIGCONT)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the processes are looked for in /proc")
def test_people_of_two_processes_talk(own_redis: RedisServer) -> None:
    process = subprocess.Popen(
        [*COMMAND, "--broker", own_redis.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        assert process.stdout is not None
        match = re.search(r"(http://\S+:(\d+)/)", process.stdout.readline())
        assert match is not None
        with urllib.request.urlopen(match[1], timeout=PATIENCE) as page:
            assert b"<html" in page.read()
        one, other = children(process.pid)
        url = f"ws://127.0.0.1:{match[2]}/ws"
        with contextlib.ExitStack() as stack:
            with standing_still(other):
                first = Peer(stack.enter_context(connect(url, open_timeout=PATIENCE, proxy=None)))
            with standing_still(one):
                second = Peer(stack.enter_context(connect(url, open_timeout=PATIENCE, proxy=None)))
            first.join("first")
            second.join("second")
            assert first.say("anybody there?", "1")["text"] == "anybody there?"
            assert second.hear_said()["text"] == "anybody there?"
            os.kill(one, signal.SIGKILL)
            eventually(lambda: len(children(process.pid)) == 2 and one not in children(process.pid), "it is replaced")
            assert second.say("still here", "2")["text"] == "still here"
        process.terminate()
        errors = process.communicate(timeout=PATIENCE)[1]
        assert process.returncode == 0
        assert "Traceback" not in errors, errors
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)

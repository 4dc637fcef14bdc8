"""One measurement of one server: it is started, put under load from another processor, and stopped."""

from __future__ import annotations

import contextlib
import json
import re
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from benchmarks.peers import ENVIRONMENTS, HERE, Peer

SERVER_CPU, LOAD_CPU = 0, 1
START_DEADLINE = 20.0
PATH = "/ws"


def build_load() -> Path:
    """Compile the load client, and return its path."""
    ENVIRONMENTS.mkdir(exist_ok=True)
    program = ENVIRONMENTS / "wsload"
    source = HERE / "load" / "wsload.c"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        subprocess.run(["cc", "-O2", "-o", program, source], check=True)
    return program


def raise_fd_limit() -> int:
    """Raise the limit of open files as far as allowed, and return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _pinned(cpu: int, command: list[str]) -> list[str]:
    return ["taskset", "-c", str(cpu), *command]


@contextlib.contextmanager
def serving(peer: Peer, *arguments: str) -> Iterator[tuple[int, int]]:
    """Run a server; yields its process id and its port.

    :raises RuntimeError: if it does not listen in time; the text has what it printed.
    """
    port = _free_port()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            _pinned(SERVER_CPU, [*peer.command, str(port), *peer.arguments, *arguments]),
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=ENVIRONMENTS,
        )
        try:
            deadline = time.monotonic() + START_DEADLINE
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1.0).close()
                    break
                except OSError as error:
                    if time.monotonic() > deadline or process.poll() is not None:
                        log.seek(0)
                        text = log.read().decode(errors="replace")
                        raise RuntimeError(f"{peer.name} does not listen:\n{text}") from error
                    time.sleep(0.05)
            yield process.pid, port
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(3.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def echo_rate(peer: Peer, connections: int, window: int, size: int, seconds: float) -> float:
    """Return echoed messages a second.

    :param window: messages in flight on each connection.
    :param size: bytes of payload in each.
    """
    with serving(peer) as (_, port):
        command = [str(build_load()), "echo", "127.0.0.1", str(port), PATH]
        numbers = [str(connections), str(window), str(size), str(seconds)]
        result = subprocess.run(
            _pinned(LOAD_CPU, command + numbers), check=True, capture_output=True, text=True, timeout=seconds + 60
        )
    found = re.search(r": (\d+) msg/s", result.stdout)
    assert found is not None, result.stdout
    return float(found[1])


@contextlib.contextmanager
def crowd(port: int, count: int) -> Iterator[None]:
    """Hold idle connections open."""
    command = [str(build_load()), "open", "127.0.0.1", str(port), PATH, str(count)]
    process = subprocess.Popen(_pinned(LOAD_CPU, command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line.startswith("opened"):
            raise RuntimeError(f"the crowd did not come: {line}")
        yield
    finally:
        process.stdin.close()
        process.wait(10.0)
        process.stdout.close()


def _resident(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", text)
    assert found is not None
    return int(found[1])


def idle_memory(peer: Peer, count: int) -> float:
    """Return the growth of the resident set for an idle connection, in KB, after a first load has warmed the server
    up.
    """
    with serving(peer) as (pid, port):
        warm_up = [str(build_load()), "echo", "127.0.0.1", str(port), PATH, "100", "1", "32", "1"]
        subprocess.run(_pinned(LOAD_CPU, warm_up), check=True, capture_output=True, timeout=60)
        time.sleep(1.0)
        before = _resident(pid)
        with crowd(port, count):
            time.sleep(2.0)
            return (_resident(pid) - before) / count


def idle_system_calls(peer: Peer, count: int, seconds: float, *arguments: str) -> dict[str, int] | None:
    """Return the system calls that each thread made while ``count`` connections were idle, by the thread's name.

    :param arguments: for the server; its Pings are to be off.
    :returns: None without strace.
    """
    if shutil.which("strace") is None:
        return None
    with serving(peer, *arguments) as (pid, port), crowd(port, count), tempfile.TemporaryDirectory() as folder:
        time.sleep(2.0)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/threads", timeout=10.0) as response:
            names = json.load(response)
        time.sleep(1.0)
        trace = Path(folder) / "trace"
        tracer = subprocess.Popen(
            ["strace", "-qq", "-ff", "-e", "signal=none", "-o", str(trace), "-p", str(pid)], stderr=subprocess.DEVNULL
        )
        time.sleep(seconds)
        tracer.send_signal(signal.SIGINT)
        tracer.wait(10.0)
        calls: dict[str, int] = {}
        for thread, name in names.items():
            file = trace.with_suffix(f".{thread}")
            lines = file.read_text().splitlines() if file.exists() else []
            # The call in which the thread was waiting when the tracer came is shown as it goes on.
            finished = [line for line in lines if "<detached" not in line and "resuming interrupted" not in line]
            calls[name] = len(finished)
    return calls

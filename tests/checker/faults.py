"""Servers of which some are disturbed, and who does that."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator

from tests.checker.server import make_server
from tests.helpers import PATIENCE
from tests.redis_server import RedisServer
from tests.serving import ROOT, free_port
from ws4py.broker import Broker

__all__ = ["FAULTS", "Nemesis", "Processes", "serving"]


class Processes:
    """Servers in processes of their own, which share a Redis.

    :ivar ports: theirs.
    """

    def __init__(self, redis: RedisServer, number: int) -> None:
        self.redis = redis
        self.ports = [free_port() for _ in range(number)]
        self._processes = {port: self._start(port) for port in self.ports}
        for process in self._processes.values():
            self._wait(process)

    def _start(self, port: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.checker.server", str(port), self.redis.url]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)

    @staticmethod
    def _wait(process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", "a server has not started"

    def _end(self, port: int, how: int) -> None:
        process = self._processes[port]
        process.send_signal(how)
        process.wait(PATIENCE)
        assert process.stdout is not None
        process.stdout.close()

    def again(self, port: int, how: int) -> None:
        """End a server, and start it anew."""
        self._end(port, how)
        self._processes[port] = self._start(port)
        self._wait(self._processes[port])

    @contextlib.contextmanager
    def stopped(self, port: int) -> Iterator[None]:
        """Have a server stand still."""
        self._processes[port].send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._processes[port].send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End all."""
        for port in self.ports:
            self._end(port, signal.SIGKILL)


class Nemesis:
    """Disturbs servers and Redis, one after the other.

    :param faults: the names of what it does.
    :ivar done: how often it has done what.
    """

    def __init__(self, processes: Processes, faults: list[str], seed: str) -> None:
        self._processes = processes
        self._faults = faults
        self._random = random.Random(seed)
        self._pause = threading.Event()
        self.done: Counter[str] = Counter()

    def act(self) -> None:
        """Do one thing, and leave them alone for a while."""
        if self._faults:
            fault = self._random.choice(self._faults)
            FAULTS[fault](self, self._random.choice(self._processes.ports))
            self.done[fault] += 1
        self._pause.wait(self._random.uniform(0.2, 0.8))

    def kill(self, port: int) -> None:
        """Kill a server, and start it again."""
        self._processes.again(port, signal.SIGKILL)

    def restart_server(self, port: int) -> None:
        """Restart a server as one does for a new version."""
        self._processes.again(port, signal.SIGTERM)

    def stop(self, port: int) -> None:
        """Have a server stand still for a moment."""
        with self._processes.stopped(port):
            self._pause.wait(self._random.uniform(0.1, 1.0))

    def clients(self, port: int) -> None:
        """End all connections to Redis."""
        for kind in ("pubsub", "normal"):
            self._processes.redis.kill_clients("TYPE", kind, "SKIPME", "yes")

    def pause(self, port: int) -> None:
        """Have Redis stand still for a moment."""
        with self._processes.redis.paused():
            self._pause.wait(self._random.uniform(0.1, 1.0))

    def restart(self, port: int) -> None:
        """Restart Redis, which then knows nothing."""
        self._processes.redis.stop()
        self._pause.wait(self._random.uniform(0.0, 0.5))
        self._processes.redis.start()

    def flush(self, port: int) -> None:
        """Have Redis forget all."""
        with contextlib.closing(self._processes.redis.client()) as client:
            client.flushall()


FAULTS: dict[str, Callable[[Nemesis, int], None]] = {
    "kill": Nemesis.kill,
    "roll": Nemesis.restart_server,
    "stop": Nemesis.stop,
    "clients": Nemesis.clients,
    "pause": Nemesis.pause,
    "restart": Nemesis.restart,
    "flush": Nemesis.flush,
}
"""What a nemesis may do. The last three are faults of Redis."""


@contextlib.contextmanager
def serving(broker: Broker) -> Iterator[list[int]]:
    """Have two servers in this process that share a broker; return their ports."""
    servers = [make_server(free_port(), broker) for _ in range(2)]
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(server).server_address[1] for server in servers]

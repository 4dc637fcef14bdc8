"""A Redis for the tests: on a unix socket, or at a port, with nothing on the disk."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.helpers import PATIENCE, until
from tests.serving import free_port
from ws4py.broker.redis import RedisBroker

BINARY = shutil.which("redis-server")


class RedisServer:
    """A redis-server, and what a test does to it.

    :param directory: that it may write to.
    :param port: where it listens; None for a unix socket.
    :param options: of its command line.
    """

    def __init__(self, directory: Path, port: int | None = None, *options: str) -> None:
        path = directory / "socket"
        self.directory = directory
        self._command = [str(BINARY), "--dir", str(directory), "--save", "", "--loglevel", "warning", *options]
        if port is None:
            self.url = f"unix://{path}?db=0"
            self._command += ["--port", "0", "--unixsocket", str(path)]
        else:
            self.url = f"redis://127.0.0.1:{port}/0"
            self._command += ["--port", str(port)]
        self._process: subprocess.Popen[bytes] | None = None

    def client(self) -> Any:
        """Return a client of redis-py, which the caller closes."""
        return redis.Redis.from_url(self.url)

    def start(self) -> None:
        """Start, and wait until it answers."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)

        def answers() -> bool:
            try:
                with contextlib.closing(self.client()) as client:
                    return bool(client.ping())
            except redis.AuthenticationError:
                return True
            except redis.ConnectionError:
                assert self._process is not None
                assert self._process.poll() is None, "redis-server has ended"
                return False

        until(answers)

    def stop(self) -> None:
        """End it, without a word."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE)
            self._process = None

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Have it stand still for a while."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def kill_clients(self, *arguments: str) -> int:
        """End connections of others; return how many.

        :param arguments: which ones, as ``CLIENT KILL`` has it.
        """
        with contextlib.closing(self.client()) as client:
            return int(client.execute_command("CLIENT", "KILL", *arguments))

    def __enter__(self) -> RedisServer:
        """Start."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self.stop()


needs_redis = pytest.mark.skipif(BINARY is None, reason="redis-server is not installed")


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One for the tests that do it no harm."""
    if BINARY is None:
        pytest.skip("redis-server is not installed")
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """One for one test, at a port."""
    if BINARY is None:
        pytest.skip("redis-server is not installed")
    with RedisServer(tmp_path, free_port()) as server:
        yield server


MakeBroker = Callable[..., RedisBroker]


@contextlib.contextmanager
def broker_maker(server: RedisServer) -> Iterator[MakeBroker]:
    """Return what makes brokers of one Redis, which nobody else publishes to; they are closed at the end."""
    prefix = uuid.uuid4().hex
    made: list[RedisBroker] = []
    before = set(threading.enumerate())

    def make(url: str = server.url, **options: Any) -> RedisBroker:
        made.append(RedisBroker(url, **{"prefix": prefix, **options}))
        return made[-1]

    yield make
    for broker in made:
        broker.close()
    names = ("RedisReader", "RedisWriter", "RedisPresence")
    until(lambda: not [thread for thread in set(threading.enumerate()) - before if thread.name in names])

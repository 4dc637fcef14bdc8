"""A master that a Sentinel knows, and a failover."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.sentinel import MasterNotFoundError, Sentinel

from tests.broker.test_contract import KEPT, keep
from tests.broker.test_redis import publish, subscribed
from tests.helpers import PATIENCE, quiet, until
from tests.redis_server import BINARY, RedisServer
from tests.serving import free_port
from ws4py.broker.redis import RedisBroker

pytestmark = pytest.mark.skipif(BINARY is None, reason="redis-server is not installed")


def port_of(server: RedisServer) -> int:
    return int(server.url.rpartition(":")[2].partition("/")[0])


def master_of(sentinel: Any) -> int | None:
    """Return the port of the master; None while there is none."""
    try:
        return int(sentinel.discover_master("main")[1])
    except MasterNotFoundError:
        return None


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[RedisServer, RedisServer, Any]]:
    """A master, its replica, and the Sentinel that watches both."""
    for name in ("master", "replica", "sentinel"):
        (tmp_path / name).mkdir()
    with contextlib.ExitStack() as stack:
        master = stack.enter_context(RedisServer(tmp_path / "master", free_port(), "--repl-diskless-sync-delay", "0"))
        replicaof = ("--replicaof", f"127.0.0.1 {port_of(master)}")
        replica = stack.enter_context(RedisServer(tmp_path / "replica", free_port(), *replicaof))
        port = free_port()
        configuration = tmp_path / "sentinel" / "sentinel.conf"
        configuration.write_text(
            f"port {port}\ndir {tmp_path}/sentinel\nsentinel monitor main 127.0.0.1 {port_of(master)} 1\n"
            "sentinel down-after-milliseconds main 300\nsentinel failover-timeout main 2000\n"
        )
        command = [str(BINARY), str(configuration), "--sentinel"]
        process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        stack.callback(process.kill)
        watcher: Any = Sentinel
        sentinel = watcher([("127.0.0.1", port)], socket_timeout=1.0)

        def replicates() -> bool:
            try:
                return len(sentinel.discover_slaves("main")) == 1
            except redis.ConnectionError:
                return False

        for client in sentinel.sentinels:
            stack.callback(client.close)
        until(replicates, 2 * PATIENCE)
        yield master, replica, sentinel


def test_a_failover(watched: tuple[RedisServer, RedisServer, Any]) -> None:
    """The broker finds the new master by itself. Since that may not have had all, topics begin new epochs."""
    master, replica, sentinel = watched
    client = sentinel.master_for("main", socket_timeout=1.0)
    broker = RedisBroker(client=client)
    try:
        listener = subscribed(broker)
        keep(broker, "before")
        listener.wait_for("before")
        before = broker.history("news", KEPT).position
        with quiet():
            master.stop()
            until(lambda: master_of(sentinel) == port_of(replica), 2 * PATIENCE)
            until(lambda: listener.interruptions and broker.stats().connected)
            publish(broker, "after")
            until(lambda: "after" in listener.texts)
            history = broker.history("news", KEPT, before)
        assert not history.recovered
        assert history.position.epoch != before.epoch
    finally:
        broker.close()
        client.close()

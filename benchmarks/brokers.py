"""What a broker carries: ``python -m benchmarks.brokers``.

It starts a redis-server, and prints:

- publications a second into Redis from one process, 128 bytes each, in plain topics and in topics with a history, and
  what each costs Redis' processor;
- deliveries a second to the subscribers of one topic in one process, without a broker and through Redis, side by side,
  in turns;
- how long it takes from publish() until the last subscriber has one message, likewise.

The subscribers' peers are read by a process of their own. It needs Linux, redis-server and a machine with nothing else
to do; there are three processes at work.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import select
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis

from ws4py.broker import Broker, MemoryBroker, Publication, Retention
from ws4py.broker.redis import RedisBroker
from ws4py.framing import OPCODE_TEXT, build_frame
from ws4py.manager import WebSocketManager
from ws4py.websocket import WebSocket

PAYLOAD = b"x" * 128
PATIENCE = 60.0
TURN = 500
"""How many publications are under way at once in a run of deliveries."""


@contextlib.contextmanager
def redis_server() -> Iterator[str]:
    """Run a Redis; return its URL."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "socket"
        command = ["redis-server", "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", folder]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            while not path.exists():
                time.sleep(0.01)
            yield f"unix://{path}"
        finally:
            process.terminate()
            process.wait()


def processor_seconds(client: Any) -> float:
    """Return what Redis has used."""
    found = client.info("cpu")
    return float(found["used_cpu_user"] + found["used_cpu_sys"])


def publications(url: str, number: int, retention: Retention | None) -> tuple[float, float]:
    """Return how many publications a second Redis has taken, and the microseconds of its processor for each."""
    with contextlib.closing(redis.Redis.from_url(url)) as client:
        broker = RedisBroker(url, max_buffered=1 << 30)
        broker.publish(Publication("warm", OPCODE_TEXT, PAYLOAD), retention)
        broker.flush(PATIENCE)
        before, began = processor_seconds(client), time.perf_counter()
        for _ in range(number):
            broker.publish(Publication("news", OPCODE_TEXT, PAYLOAD), retention)
        broker.flush(PATIENCE)
        took = time.perf_counter() - began
        cost = processor_seconds(client) - before
        assert broker.stats().lost == 0
        broker.close()
    return number / took, 1e6 * cost / number


class Peers:
    """The other ends of websockets, read by a process of their own, which says when so many bytes have come to all.

    :param socks: the other ends.
    """

    def __init__(self, socks: list[socket.socket]) -> None:
        asked, self._ask = os.pipe()
        self._told, tell = os.pipe()
        self._pid = os.fork()
        if not self._pid:
            os.close(self._ask)
            _read_all(socks, asked, tell)
            os._exit(0)
        os.close(asked)
        os.close(tell)

    def expect(self, size: int) -> None:
        """Say how many bytes will come, to all together."""
        os.write(self._ask, size.to_bytes(8, "big"))

    def wait(self) -> None:
        """Wait until they have come."""
        assert os.read(self._told, 1), "the peers' process has ended"

    def close(self) -> None:
        """End the process."""
        os.close(self._ask)
        os.close(self._told)
        os.waitpid(self._pid, 0)


def _read_all(socks: list[socket.socket], asked: int, tell: int) -> None:
    poller = select.epoll()
    by_fd = {sock.fileno(): sock for sock in socks}
    for fd in by_fd:
        poller.register(fd, select.EPOLLIN)
    while size := os.read(asked, 8):
        left = int.from_bytes(size, "big")
        while left > 0:
            for fd, _ in poller.poll(PATIENCE):
                left -= len(by_fd[fd].recv(1 << 18))
        os.write(tell, b".")


class Subscribed:
    """A manager, and websockets that are on one topic.

    :param number: of the websockets.
    :param broker: of the manager.
    """

    def __init__(self, number: int, broker: Broker) -> None:
        self.number = number
        pairs = [socket.socketpair() for _ in range(number)]
        self.peers = Peers([theirs for _, theirs in pairs])
        self._broker = broker
        self.manager = WebSocketManager(broker=broker, ping_interval=None, max_outbox_size=1 << 26, close_timeout=0.1)
        self.manager.start()
        for ours, theirs in pairs:
            theirs.close()
            websocket = WebSocket(ours)
            self.manager.add(websocket)
            websocket.subscribe("news")
        assert broker.wait_subscribed(PATIENCE)

    def publish(self, number: int) -> float:
        """Publish so often; return how many seconds it took until all have all."""
        text = PAYLOAD.decode()
        self.peers.expect(number * self.number * len(build_frame(0x81, PAYLOAD)))
        began = time.perf_counter()
        for _ in range(number):
            self.manager.publish("news", text)
        self.peers.wait()
        return time.perf_counter() - began

    def close(self) -> None:
        """End all."""
        self.peers.close()
        self.manager.stop()
        self.manager.join()
        self._broker.close()


def deliveries(subscribed: Subscribed, seconds: float) -> float:
    """Return how many deliveries a second there are."""
    turn = max(1, TURN * 1000 // subscribed.number // 10)
    subscribed.publish(turn)
    took, published = 0.0, 0
    while took < seconds:
        took += subscribed.publish(turn)
        published += turn
    return published * subscribed.number / took


def latencies(subscribed: Subscribed, number: int) -> tuple[float, float]:
    """Return the median, and what 99 of 100 stay under, of the times to the last subscriber, in seconds."""
    times = sorted(subscribed.publish(1) for _ in range(number))
    return statistics.median(times), times[int(0.99 * len(times))]


def compare(url: str, options: argparse.Namespace) -> None:
    """Print what the subscribers of one topic get without a broker, and through Redis."""
    for number in options.subscribers:
        rates: dict[str, list[float]] = {"memory": [], "redis": []}
        waits: dict[str, list[tuple[float, float]]] = {"memory": [], "redis": []}
        for _ in range(options.runs):
            for name, found in rates.items():
                broker: Broker = MemoryBroker() if name == "memory" else RedisBroker(url)
                subscribed = Subscribed(number, broker)
                try:
                    found.append(deliveries(subscribed, options.seconds))
                    waits[name].append(latencies(subscribed, 200))
                finally:
                    subscribed.close()
        base = statistics.median(rates["memory"])
        print(f"\n{number:,} subscribers, medians of {options.runs} runs:")
        for name, found in rates.items():
            rate = statistics.median(found)
            middle, most = (1e3 * statistics.median(column) for column in zip(*waits[name], strict=True))
            print(
                f"  {name:8}{rate:12,.0f} deliveries a second ({rate / base:.2f})"
                f", to the last {middle:6.2f} ms, 99 % within {most:6.2f} ms   {[round(item) for item in found]}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5, help="of each way (%(default)s)")
    parser.add_argument("--seconds", type=float, default=3.0, help="that a run takes (%(default)s)")
    parser.add_argument("--publications", type=int, default=200_000, help="into Redis (%(default)s)")
    parser.add_argument("--subscribers", type=int, nargs="*", default=[100, 1000, 5000], help="%(default)s")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with redis_server() as url:
        print(f"publications a second into Redis, {len(PAYLOAD)} bytes each, medians of {options.runs} runs:")
        for title, retention in (("plain", None), ("with a history of 100", Retention(100, 60.0))):
            found = [publications(url, options.publications, retention) for _ in range(options.runs)]
            rate, cost = (statistics.median(column) for column in zip(*found, strict=True))
            print(
                f"  {title:24}{rate:10,.0f}, {cost:5.1f} us of Redis' processor   {[round(each[0]) for each in found]}"
            )
        compare(url, options)


if __name__ == "__main__":
    main()

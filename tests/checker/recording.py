"""Clients that follow a topic, and publish to it, and record what happens; and what must hold of the records."""

from __future__ import annotations

import itertools
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

__all__ = ["TOPIC", "Follower", "Publisher", "Report", "Session", "check", "present"]

TOPIC = "room/1"
PATIENCE = 5.0
Connect = Callable[[], ClientConnection]


class Session:
    """What a follower gets by one subscription.

    :ivar since: the position that it came with.
    :ivar recovered: what it was told; None as long as it was told nothing.
    :ivar got: the offsets and texts, in order.
    """

    def __init__(self, since: tuple[str, int] | None) -> None:
        self.since = since
        self.recovered: bool | None = None
        self.epoch = ""
        self.first = 0
        self.got: list[tuple[int, str]] = []

    @property
    def position(self) -> tuple[str, int] | None:
        """Where the next one is to go on."""
        if self.recovered is None:
            return self.since
        return self.epoch, self.got[-1][0] if self.got else self.first - 1


def connector(ports: list[int], choice: random.Random, name: str) -> Connect:
    """Return what connects to any of the servers."""

    def open_one() -> ClientConnection:
        port = choice.choice(ports)
        return connect(f"ws://127.0.0.1:{port}/?{name}", open_timeout=PATIENCE, close_timeout=0.1, compression=None)

    return open_one


class Client(threading.Thread):
    """Talks to one server after the other, until it is told to stop.

    :param name: under which it is present.
    """

    def __init__(self, ports: list[int], seed: str, name: str = "") -> None:
        super().__init__(daemon=True)
        self.random = random.Random(seed)
        self.stopped = threading.Event()
        self.failed: BaseException | None = None
        self._connect = connector(ports, self.random, name)

    def run(self) -> None:
        try:
            while not self.stopped.is_set():
                try:
                    with self._connect() as connection:
                        self.talk(connection)
                except (OSError, EOFError, WebSocketException):
                    self.stopped.wait(0.02)
        except BaseException as error:  # noqa: BLE001 - it is raised where it is asked for
            self.failed = error

    def talk(self, connection: ClientConnection) -> None:
        """Do something with a connection."""
        raise NotImplementedError

    def end(self) -> None:
        """Stop, and raise what has gone wrong."""
        self.stopped.set()
        self.join(4 * PATIENCE)
        assert not self.is_alive(), "a client has not ended"
        if self.failed is not None:
            raise self.failed


class Follower(Client):
    """Follows the topic. It leaves now and then, and goes on by another server.

    :ivar sessions: what it has got.
    :ivar settled: it is not to leave any more.
    """

    def __init__(self, ports: list[int], seed: str, name: str) -> None:
        super().__init__(ports, seed, name)
        self.name = name
        self.sessions: list[Session] = []
        self.settled = threading.Event()

    def talk(self, connection: ClientConnection) -> None:
        session = Session(self.sessions[-1].position if self.sessions else None)
        self.sessions.append(session)
        connection.send(json.dumps({"type": "subscribe", "id": 1, "topic": TOPIC, "since": session.since, "last": 20}))
        leave_at = time.monotonic() + self.random.uniform(0.02, 1.0)
        while not self.stopped.is_set() and (self.settled.is_set() or time.monotonic() < leave_at):
            try:
                message = json.loads(connection.recv(timeout=0.1))
            except TimeoutError:
                continue
            if message["type"] == "subscribed":
                session.epoch, newest = message["position"]
                session.first = newest - message["messages"] + 1
                session.recovered = message["recovered"]
            elif message["type"] == "message":
                session.got.append((message["offset"], message["data"]))
            else:
                return  # an error: it can't be done at the moment

    @property
    def last(self) -> str | None:
        """What it has got last."""
        return self.sessions[-1].got[-1][1] if self.sessions and self.sessions[-1].got else None


class Publisher(Client):
    """Publishes texts, each until it has an answer; and some of them twice.

    :ivar published: how many were answered.
    """

    def __init__(self, ports: list[int], seed: str, name: str) -> None:
        super().__init__(ports, seed)
        self._texts: Iterator[str] = (f"{name} {number}" for number in itertools.count())
        self._text = next(self._texts)
        self.published = 0

    def talk(self, connection: ClientConnection) -> None:
        while not self.stopped.wait(self.random.uniform(0.0, 0.01)):
            request = {"type": "publish", "id": 1, "topic": TOPIC, "data": self._text, "key": self._text}
            for _ in range(self.random.choice((1, 1, 1, 2))):
                connection.send(json.dumps(request))
                if json.loads(connection.recv(timeout=PATIENCE))["type"] != "published":
                    return
            self.published += 1
            self._text = next(self._texts)


def present(ports: list[int]) -> set[str] | None:
    """Return who is present on the topic; None if nobody says so now."""
    try:
        with connector(ports, random.Random(), "")() as connection:
            connection.send(json.dumps({"type": "presence", "topic": TOPIC}))
            answer = json.loads(connection.recv(timeout=PATIENCE))
    except (OSError, EOFError, WebSocketException):
        return None
    return {each["name"] for each in answer["present"]} if answer["type"] == "presence" else None


class Report(NamedTuple):
    """What has come out.

    :ivar violations: what can't be, in words.
    :ivar counts: of sessions, resumes, those that were recovered, messages, epochs, publications.
    """

    violations: list[str]
    counts: Counter[str]


def check(followers: list[Follower], publishers: list[Publisher]) -> Report:
    """See what must hold of the records: no gap without ``recovered=False``, nothing twice, one order for all."""
    violations: list[str] = []
    counts: Counter[str] = Counter(published=sum(publisher.published for publisher in publishers))
    texts: dict[tuple[str, int], str] = {}
    for number, follower in enumerate(followers):
        for session in follower.sessions:
            if session.recovered is None:
                continue
            counts["sessions"] += 1
            counts["resumes"] += session.since is not None
            counts["recovered"] += session.recovered
            counts["messages"] += len(session.got)
            violations += [f"follower {number}: {text}" for text in gaps(session)]
            for offset, text in session.got:
                if texts.setdefault((session.epoch, offset), text) != text:
                    violations.append(
                        f"offset {offset} of {session.epoch} is {text!r} and {texts[session.epoch, offset]!r}"
                    )
    epochs: dict[str, list[str]] = {}
    for epoch, offset in sorted(texts):
        epochs.setdefault(epoch, []).append(texts[epoch, offset])
    counts["epochs"] = len(epochs)
    for epoch, ordered in epochs.items():
        violations += [f"{text!r} is {times} times in {epoch}" for text, times in Counter(ordered).items() if times > 1]
        violations += [f"in {epoch} {text}" for text in disorder(ordered)]
    return Report(violations, counts)


def gaps(session: Session) -> Iterator[str]:
    """Say where messages of a session are missing, or come twice."""
    if session.recovered and session.since != (session.epoch, session.first - 1):
        yield f"it came with {session.since}, was recovered, and goes on with {session.first} of {session.epoch}"
    expected = session.first
    for offset, _ in session.got:
        if offset != expected:
            yield f"{expected} was to come after {session.since}, and it was {offset}"
        expected = offset + 1


def disorder(texts: list[str]) -> Iterator[str]:
    """Say where the order of one publisher is not its own."""
    last: dict[str, int] = {}
    for text in texts:
        name, _, number = text.rpartition(" ")
        if int(number) < last.get(name, -1):
            yield f"{text!r} comes after {last[name]}"
        last[name] = int(number)

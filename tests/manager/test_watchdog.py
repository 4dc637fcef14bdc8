"""The watchdog: it looks while there is something to watch, sleeps otherwise, and tells once what takes long."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from tests.helpers import PATIENCE, quiet, stays, until, wait_for
from ws4py.manager.scheduler import Worker
from ws4py.manager.watchdog import LOOKS, QUIET_LOOKS, SlowCallbacks, Watchdog


class Post:
    """A watchdog, and what it is to see."""

    def __init__(self) -> None:
        self.again: float | None = None
        self.looks = 0
        self.workers: list[Worker] = []
        self.reports: list[tuple[Any, float, FrameType | None]] = []
        self.watchdog = self.make()

    def make(self, slow_callbacks: SlowCallbacks | None = None) -> Watchdog:
        self.watchdog = Watchdog(self.look, lambda: self.workers, slow_callbacks)
        return self.watchdog

    def start(self, seconds: float | None = None) -> Watchdog:
        slow = None if seconds is None else SlowCallbacks(seconds, lambda *report: self.reports.append(report))
        self.make(slow).start()
        return self.watchdog

    def look(self) -> float | None:
        self.looks += 1
        return self.again

    def worker(self, job: object = None, since: float = 0.0) -> Worker:
        worker = Worker(threading.current_thread())
        worker.job = job  # type: ignore[assignment]
        worker.began = time.monotonic() - since
        self.workers.append(worker)
        return worker

    def wait_looks(self, more: int) -> None:
        seen = self.looks
        until(lambda: self.looks >= seen + more)


@pytest.fixture
def post() -> Iterator[Post]:
    post = Post()
    yield post
    post.watchdog.stop()
    if post.watchdog.ident is not None:
        post.watchdog.join(PATIENCE)
        assert not post.watchdog.is_alive()


def test_it_looks_a_few_times_and_then_sleeps(post: Post) -> None:
    watchdog = post.start()
    until(lambda: watchdog.asleep)
    looks = post.looks
    assert looks <= QUIET_LOOKS + 2
    stays(lambda: post.looks <= looks + 1, 10 * LOOKS[0])  # the last look before it sleeps


def test_it_goes_on_while_there_is_something_to_watch(post: Post) -> None:
    post.again = 0.001
    watchdog = post.start()
    post.wait_looks(QUIET_LOOKS * 4)
    assert not watchdog.asleep


def test_it_looks_again_when_it_is_woken(post: Post) -> None:
    watchdog = post.start()
    for _ in range(3):
        until(lambda: watchdog.asleep)
        post.again = 0.001
        watchdog.wake()
        assert not watchdog.asleep
        post.wait_looks(QUIET_LOOKS * 2)
        post.again = None


def test_who_wakes_it_when_it_is_awake_does_no_harm(post: Post) -> None:
    watchdog = post.start()
    for _ in range(100):
        watchdog.wake()
    until(lambda: watchdog.asleep)
    watchdog.wake()
    watchdog.wake()
    until(lambda: watchdog.asleep)


def test_it_looks_once_more_before_it_sleeps(post: Post) -> None:
    """Whoever has work looks whether it sleeps after that; so it looks for work after saying that it does."""
    seen: list[bool] = []
    look = post.look

    def look_late() -> float | None:
        seen.append(post.watchdog.asleep)
        look()
        if post.watchdog.asleep and len(seen) < 100:
            return 0.001  # it has come just now
        return None

    post.look = look_late  # type: ignore[method-assign]
    post.start()
    until(lambda: len(seen) >= 60)
    assert True in seen, "it had said so"
    assert seen.count(True) >= 3, "and did not sleep"


def test_the_pause_is_what_the_look_says(post: Post) -> None:
    post.again = 1000.0
    watchdog = post.start()
    until(lambda: post.looks >= 1)
    looks = post.looks
    stays(lambda: post.looks == looks, 10 * LOOKS[0])
    watchdog.stop()
    watchdog.join(PATIENCE)
    assert not watchdog.is_alive(), "it is stopped at once all the same"


@pytest.mark.parametrize("state", ["asleep", "awake", "new"])
def test_it_can_be_stopped_at_any_time(post: Post, state: str) -> None:
    post.again = 0.001 if state == "awake" else None
    if state == "new":
        post.watchdog.stop()
        post.watchdog.start()
    else:
        post.start()
        until(lambda: post.watchdog.asleep if state == "asleep" else post.looks > 3)
        post.watchdog.stop()
    post.watchdog.join(PATIENCE)
    assert not post.watchdog.is_alive()


def test_something_may_follow_its_end() -> None:
    ended = threading.Event()
    watchdog = Watchdog(lambda: None, list, None, at_end=ended.set)
    watchdog.start()
    assert not ended.is_set()
    watchdog.stop()
    wait_for(ended)
    watchdog.join(PATIENCE)


# --- slow callbacks ---------------------------------------------------------------------------------------------------


def test_a_turn_that_takes_long_is_told_once(post: Post) -> None:
    post.again = 0.001
    job = object()
    post.worker(job, since=5.0)
    post.start(seconds=1.0)
    until(lambda: post.reports)
    post.wait_looks(5)
    [(told, seconds, frame)] = post.reports
    assert told is job
    assert seconds >= 5.0
    assert frame is not None, "where its thread is"
    assert frame.f_code is not Watchdog.run.__code__


def test_the_next_turn_is_told_again(post: Post) -> None:
    post.again = 0.001
    worker = post.worker("first", since=5.0)
    post.start(seconds=1.0)
    until(lambda: len(post.reports) == 1)
    worker.job = None
    worker.reported = False  # by the worker itself, at the end of a turn
    worker.began = time.monotonic() - 2.0
    worker.job = "second"  # type: ignore[assignment]
    until(lambda: len(post.reports) == 2)
    assert [job for job, *_ in post.reports] == ["first", "second"]


def test_what_is_quick_or_idle_is_not_told(post: Post) -> None:
    post.again = 0.001
    post.worker("quick", since=0.0)
    post.worker(None, since=500.0)
    slow = post.worker("slow", since=500.0)
    post.start(seconds=100.0)
    until(lambda: post.reports)
    post.wait_looks(3)
    assert [job for job, *_ in post.reports] == ["slow"]
    assert slow.reported


def test_a_thread_that_has_ended_meanwhile_is_nowhere(post: Post) -> None:
    post.again = 0.001
    worker = post.worker("slow", since=5.0)
    worker.thread = threading.Thread()
    post.start(seconds=1.0)
    until(lambda: post.reports)
    assert post.reports[0][2] is None


def test_a_report_that_raises_keeps_nobody_from_being_relieved(post: Post) -> None:
    post.again = 0.001
    post.worker("first", since=5.0)
    post.worker("second", since=5.0)
    told: list[Any] = []

    def report(job: Any, seconds: float, frame: FrameType | None) -> None:
        told.append(job)
        raise ValueError("a log's handler failed")

    with quiet() as records:
        post.make(SlowCallbacks(1.0, report)).start()
        until(lambda: len(told) == 2)
        post.wait_looks(5)
    assert post.watchdog.is_alive()
    assert told == ["first", "second"]
    assert len(records) == 2

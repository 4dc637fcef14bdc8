"""The worker pool, without a manager: the tests call what its thread would."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.helpers import PATIENCE, Task, quiet, start_thread, until, wait_for
from ws4py.engine.counters import WorkerCounters
from ws4py.manager import pool as workers
from ws4py.manager.pool import WorkerPool


class Turn:
    """A job that does something, and then may have more to do."""

    def __init__(self, function: Callable[[], object] = lambda: None, more: int = 0) -> None:
        self.queued_at = 0.0
        self.bulkhead = None
        self.function = function
        self.more = more
        self.done = threading.Event()
        self.thread: threading.Thread | None = None
        self.error: BaseException | None = None

    def run_turn(self, counters: WorkerCounters) -> bool:
        self.thread = threading.current_thread()
        self.function()
        if self.more:
            self.more -= 1
            return True
        self.done.set()
        return False

    def fail(self, error: BaseException) -> None:
        self.error = error
        self.done.set()


class Blocked(Turn):
    """A job that lasts until it is let go."""

    def __init__(self) -> None:
        super().__init__(self._wait)
        self.entered = threading.Event()
        self.gate = threading.Event()

    def _wait(self) -> None:
        self.entered.set()
        wait_for(self.gate)


class Crew:
    """A pool with a helper's hand, as the manager's thread is one."""

    def __init__(self) -> None:
        self.pools: list[WorkerPool] = []
        self.blocked: list[Blocked] = []

    def pool(self, limit: int) -> WorkerPool:
        pool = WorkerPool(limit, "TestWorker")
        self.pools.append(pool)
        return pool

    def block(self, pool: WorkerPool, count: int) -> list[Blocked]:
        """Have workers blocked."""
        jobs = [Blocked() for _ in range(count)]
        self.blocked += jobs
        pool.submit(jobs)
        help_until(pool, lambda: all(job.entered.is_set() for job in jobs))
        return jobs

    def close(self) -> None:
        for job in self.blocked:
            job.gate.set()
        for pool in self.pools:
            pool.stop()
            until(lambda pool=pool: not pool.size)  # type: ignore[misc]


@pytest.fixture
def crew() -> Iterator[Crew]:
    crew = Crew()
    yield crew
    crew.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("TestWorker")]


def help_until(pool: WorkerPool, condition: Callable[[], bool]) -> None:
    def helped() -> bool:
        pool.help()
        return condition()

    until(helped)


def test_no_thread_is_started_for_nothing(crew: Crew) -> None:
    pool = crew.pool(4)
    assert (pool.size, pool.idle, pool.waiting) == (0, 0, 0)
    assert pool.help() is None


def test_a_job_is_run_on_a_thread_of_the_pool(crew: Crew) -> None:
    pool, job = crew.pool(4), Turn()
    pool.submit([job])
    wait_for(job.done)
    assert job.thread is not None
    assert job.thread.name == "TestWorker-1"
    assert job.thread.daemon


def test_an_idle_worker_is_used_again(crew: Crew) -> None:
    pool = crew.pool(4)
    for _ in range(20):
        job = Turn()
        pool.submit([job])
        wait_for(job.done)
        until(lambda: pool.idle == 1)
    assert pool.size == 1


def test_a_job_with_more_to_do_is_queued_behind_the_others(crew: Crew) -> None:
    pool = crew.pool(1)
    order: list[str] = []
    gate = Blocked()
    crew.blocked.append(gate)
    first = Turn(lambda: order.append("first"), more=2)
    second = Turn(lambda: order.append("second"))
    pool.submit([gate, first, second])
    wait_for(gate.entered)
    gate.gate.set()
    wait_for(first.done)
    assert order == ["first", "second", "first", "first"]


def test_blocked_jobs_make_the_pool_grow_to_its_limit_and_no_further(crew: Crew) -> None:
    pool = crew.pool(9)
    crew.block(pool, 9)
    waiting = Turn()
    pool.submit([waiting])
    assert pool.help() is None
    assert (pool.size, pool.idle, pool.waiting) == (9, 0, 1)
    crew.blocked[4].gate.set()
    wait_for(waiting.done)
    assert pool.size == 9


def test_a_blocked_job_delays_nobody_while_there_is_room(crew: Crew) -> None:
    pool = crew.pool(8)
    crew.block(pool, 7)
    for _ in range(50):
        job = Turn()
        pool.submit([job])
        help_until(pool, job.done.is_set)


def test_the_pool_grows_though_somebody_else_uses_the_processor(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "process_time", time.monotonic)  # a processor that is never idle
    pool = crew.pool(8)
    crew.block(pool, 6)
    job = Turn()
    pool.submit([job])
    help_until(pool, job.done.is_set)


def test_help_says_when_to_call_again(crew: Crew) -> None:
    pool = crew.pool(2)
    crew.block(pool, 1)
    pool.submit([Turn()])
    again = pool.help()
    if again is not None:  # else the job was taken meanwhile
        assert 0 < again <= 0.1


def test_idle_workers_retire_but_the_last(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "IDLE_TIMEOUT", 0.01)
    pool = crew.pool(6)
    for job in crew.block(pool, 6):
        job.gate.set()
    until(lambda: pool.size == 1)
    assert pool.counters().turns == 6
    until(lambda: pool.idle == 1)
    last = Turn()
    pool.submit([last])
    wait_for(last.done)
    assert pool.counters().turns == 7


def test_a_pool_that_shrank_grows_again(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "IDLE_TIMEOUT", 0.01)
    pool = crew.pool(4)
    for _ in range(3):
        jobs = crew.block(pool, 4)
        assert pool.size == 4
        for job in jobs:
            job.gate.set()
        until(lambda: pool.size == 1)


def test_no_job_is_lost_between_submitting_and_going_to_sleep(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers retire, park and are woken all the time; each job comes to its end without help."""
    monkeypatch.setattr(workers, "IDLE_TIMEOUT", 0.0001)
    pool = crew.pool(8)
    for count in itertools.islice(itertools.cycle((1, 1, 2, 1, 5)), 3000):
        jobs = [Turn(more=count % 2) for _ in range(count)]
        pool.submit(jobs)
        for job in jobs:
            assert job.done.wait(PATIENCE)


def test_submitting_from_many_threads(crew: Crew) -> None:
    pool = crew.pool(4)

    def submit() -> list[Turn]:
        jobs = [Turn() for _ in range(500)]
        for job in jobs:
            pool.submit([job])
        return jobs

    tasks: list[Task] = [start_thread(submit) for _ in range(8)]
    for task in tasks:
        jobs = task.result()
        assert isinstance(jobs, list)
        for job in jobs:
            help_until(pool, job.done.is_set)
    assert pool.waiting == 0
    until(lambda: pool.counters().turns == 4000)


def test_counters_are_the_sum_of_all_workers(crew: Crew) -> None:
    pool = crew.pool(4)
    for job in crew.block(pool, 4):
        job.gate.set()
    until(lambda: pool.idle == 4)
    counters = pool.counters()
    assert counters.turns == 4
    assert counters.queue_wait.count == 4
    assert counters.turn_time.count == 4
    assert counters.turn_time.read()[1] > 0


def test_stop_lets_the_queue_be_finished(crew: Crew) -> None:
    pool = crew.pool(1)
    [gate] = crew.block(pool, 1)
    jobs = [Turn(more=2) for _ in range(20)]
    pool.submit(jobs)
    pool.stop()
    assert pool.size
    gate.gate.set()
    until(lambda: not pool.size)
    assert all(job.done.is_set() for job in jobs)


def test_stop_finds_workers_for_what_waits_behind_blocked_ones(crew: Crew) -> None:
    pool = crew.pool(8)
    crew.block(pool, 3)
    jobs = [Turn() for _ in range(10)]
    pool.submit(jobs)
    pool.stop()
    for job in jobs:
        wait_for(job.done)


def test_join_has_a_deadline_and_a_clock(crew: Crew) -> None:
    pool = crew.pool(1)
    [job] = crew.block(pool, 1)
    pool.stop()
    assert pool.size
    job.gate.set()
    until(lambda: not pool.size)


def test_a_system_without_threads_to_spare_goes_on_with_those_there_are(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = crew.pool(4)
    first = Turn()
    pool.submit([first])
    wait_for(first.done)
    until(lambda: pool.idle == 1)

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    [gate] = crew.block(pool, 1)
    with monkeypatch.context() as patch, quiet() as records:
        patch.setattr(threading.Thread, "start", refuse)
        job = Turn()
        pool.submit([job])
        until(lambda: pool.help() is not None and bool(records))
        assert pool.size == 1
    assert "could not be started" in records[0].getMessage()
    gate.gate.set()
    wait_for(job.done)


def test_rest_ends_when_the_queue_is_empty(crew: Crew) -> None:
    pool = crew.pool(2)
    pool.rest(PATIENCE)  # nothing is queued
    for _ in range(300):
        jobs = [Turn() for _ in range(3)]
        pool.submit(jobs)
        pool.rest(PATIENCE)
        for job in jobs:
            wait_for(job.done)


def test_rest_ends_though_a_job_blocks(crew: Crew) -> None:
    pool = crew.pool(2)
    crew.block(pool, 1)
    pool.rest(0.001)
    job = Turn()
    pool.submit([job])
    help_until(pool, job.done.is_set)

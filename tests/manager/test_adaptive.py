"""Workers that poll: somebody always does, callbacks run in order, and the end comes to all."""

from __future__ import annotations

import contextlib
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import PATIENCE, Task, quiet, start_thread, stays, until, wait_for
from tests.manager.fakes import Blocked, Job, Reactor
from ws4py.engine.histogram import KEPT_VALUES
from ws4py.manager import adaptive
from ws4py.manager.adaptive import AdaptiveScheduler

limits = pytest.mark.parametrize("limit", [1, 32])


class Stand:
    """Schedulers with their reactors, which are ended with nothing left behind."""

    def __init__(self) -> None:
        self.threads = set(threading.enumerate())
        self.made: list[tuple[AdaptiveScheduler, Reactor]] = []
        self.blocked: list[Blocked] = []

    def make(self, limit: int, start: bool = True, **options: Any) -> tuple[AdaptiveScheduler, Reactor]:
        reactor = Reactor()
        scheduler = AdaptiveScheduler(reactor, limit, **options)
        if start:
            self.made.append((scheduler, reactor))
            scheduler.start()
            reactor.wait_polling()
        return scheduler, reactor

    def block(self, count: int) -> list[Blocked]:
        """Return jobs that block, and are let go at the end."""
        jobs = [Blocked() for _ in range(count)]
        self.blocked += jobs
        return jobs

    def workers(self) -> int:
        """How many threads the schedulers have, without the watchdogs."""
        return len([thread for thread in self.new_threads() if thread.name.startswith("WebSocketWorker")])

    def new_threads(self) -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread not in self.threads]

    def close(self) -> None:
        for job in self.blocked:
            job.gate.set()
        for scheduler, reactor in self.made:
            reactor.stop()
            assert scheduler.join(PATIENCE)
            assert not scheduler.is_alive()
            assert reactor.released.is_set()
            assert reactor.faults == []
        until(lambda: not self.new_threads())


@pytest.fixture
def stand() -> Iterator[Stand]:
    stand = Stand()
    yield stand
    stand.close()


@pytest.fixture
def without_watchdog(monkeypatch: pytest.MonkeyPatch) -> None:
    """It finds nothing to do."""
    monkeypatch.setattr(AdaptiveScheduler, "_look", lambda scheduler: None)


def compute() -> None:
    """Compute for longer than nobody may poll."""
    begin = time.thread_time()
    while time.thread_time() < begin + 4 * adaptive.PATIENCE:
        pass


# --- the usual --------------------------------------------------------------------------------------------------------


@limits
def test_jobs_run_when_they_are_ready(stand: Stand, limit: int) -> None:
    scheduler, reactor = stand.make(limit)
    assert scheduler.is_alive()
    for _ in range(5):
        jobs = [Job() for _ in range(3)]
        reactor.offer(*jobs)
        for job in jobs:
            job.wait()
    until(lambda: scheduler.counters().turns == 15)
    assert scheduler.counters().queue_wait.count == 15
    assert scheduler.counters().turn_time.count == 15


def test_each_turn_is_measured_and_none_is_kept_for_long(stand: Stand) -> None:
    """As by ``Histogram.observe``, which the loop over the queue does not call."""
    scheduler, reactor = stand.make(1)
    turns = 2 * KEPT_VALUES + 7
    job = Job(more=turns - 1)
    reactor.offer(job)
    job.wait()
    until(lambda: scheduler.counters().turns == turns)
    reactor.wait_polling()
    assert (scheduler.counters().queue_wait.count, scheduler.counters().turn_time.count) == (turns, turns)
    for worker in scheduler._running():
        assert len(worker.counters.queue_wait.kept) < KEPT_VALUES
        assert len(worker.counters.turn_time.kept) < KEPT_VALUES


@limits
def test_a_job_with_more_to_do_has_more_turns(stand: Stand, limit: int) -> None:
    _, reactor = stand.make(limit)
    jobs = [Job(more=10), Job(more=20)]
    reactor.offer(*jobs)
    for job in jobs:
        job.wait()
        assert job.turns == job.more + 1


def test_with_one_worker_jobs_run_in_order(stand: Stand) -> None:
    _, reactor = stand.make(1)
    order: list[int] = []
    jobs = [Job(lambda number=number: order.append(number)) for number in range(200)]  # type: ignore[misc]
    for start in range(0, 200, 10):
        reactor.offer(*jobs[start : start + 10])
    jobs[-1].wait()
    assert order == list(range(200))


def test_jobs_with_more_to_do_take_turns(stand: Stand) -> None:
    _, reactor = stand.make(1)
    order: list[str] = []
    jobs = [Job(lambda name=name: order.append(name), more=4) for name in "abc"]  # type: ignore[misc]
    reactor.offer(*jobs)
    for job in jobs:
        job.wait()
    assert "".join(order) == "abc" * 5


def test_quick_callbacks_run_on_the_thread_that_polled(stand: Stand) -> None:
    scheduler, reactor = stand.make(32)
    seen = set()
    for _ in range(20):
        job = Job()
        reactor.offer(job)
        job.wait()
        seen.update(job.threads)
        reactor.wait_polling()
    assert len(seen) <= 2, "the one that polls, and the reserve"
    assert stand.workers() == 2
    assert scheduler.counters().in_place >= 15


@limits
def test_never_more_callbacks_at_once_than_the_limit(stand: Stand, limit: int) -> None:
    scheduler, reactor = stand.make(limit)
    jobs = stand.block(limit + 5)
    reactor.offer(*jobs)
    until(lambda: sum(job.entered.is_set() for job in jobs) == limit)
    reactor.wait_cycles(3)
    assert sum(job.entered.is_set() for job in jobs) == limit
    assert stand.workers() == limit + 1
    assert scheduler.state() == (limit, limit, 0, 5)
    for job in jobs[:limit]:
        job.gate.set()
    for job in jobs[:limit]:
        job.wait()
    until(lambda: sum(job.entered.is_set() for job in jobs) == min(2 * limit, limit + 5))


def test_no_two_turns_of_one_job_at_once_and_none_is_lost(stand: Stand) -> None:
    scheduler, reactor = stand.make(8)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        random_ = random.Random(5)

        def act() -> None:
            if random_.random() < 0.2:
                time.sleep(0.002)  # the callback waits

        jobs = [Job(act, more=random_.randrange(10)) for _ in range(300)]
        for start in range(0, 300, 6):
            reactor.offer(*jobs[start : start + 6])
        for job in jobs:
            job.wait()
            assert job.turns == job.more + 1
    finally:
        sys.setswitchinterval(interval)
    until(lambda: scheduler.counters().turns == sum(job.turns for job in jobs))


# --- somebody polls ---------------------------------------------------------------------------------------------------


@limits
def test_somebody_polls_while_all_callbacks_block(stand: Stand, limit: int) -> None:
    _, reactor = stand.make(limit)
    jobs = stand.block(limit)
    reactor.offer(*jobs)
    for job in jobs:
        job.wait_entered()
    reactor.wait_cycles(5)


@limits
def test_a_worker_that_blocks_is_relieved_by_the_watchdog(stand: Stand, limit: int) -> None:
    scheduler, reactor = stand.make(limit)
    [job] = stand.block(1)
    assert scheduler.reliefs == 0
    reactor.offer(job)
    job.wait_entered()
    reactor.wait_cycles(3)
    assert scheduler.reliefs >= 1


def test_jobs_behind_a_blocked_one_go_to_other_workers(stand: Stand) -> None:
    _, reactor = stand.make(32)
    [blocked] = stand.block(1)
    jobs = [Job() for _ in range(10)]
    reactor.offer(blocked, *jobs)
    for job in jobs:
        job.wait()
    assert not blocked.done.is_set()


def test_jobs_that_wait_are_spread_eagerly(stand: Stand) -> None:
    """After a callback that waits a worker does not wait for the watchdog, which looks every few milliseconds."""
    scheduler, reactor = stand.make(32)
    (first,) = stand.block(1)
    reactor.offer(first)
    first.wait_entered()
    until(lambda: scheduler._eager_until > time.monotonic())
    reliefs = scheduler.reliefs
    jobs = stand.block(20)
    reactor.offer(*jobs)
    for job in jobs:
        job.wait_entered()
    reactor.wait_cycles(1)
    assert scheduler.reliefs - reliefs < 5, "hardly anybody had to wait for it"


def test_callbacks_that_compute_are_not_spread(stand: Stand) -> None:
    _, reactor = stand.make(32)
    jobs = [Job(compute) for _ in range(20)]
    reactor.offer(*jobs)
    for job in jobs:
        job.wait()
    assert stand.workers() < 10


def test_between_quick_callbacks_the_sockets_are_looked_at(stand: Stand) -> None:
    """A long queue of quick callbacks keeps nobody waiting who has come meanwhile."""
    _, reactor = stand.make(1)
    late = Job()
    looked: list[bool] = []

    def act() -> None:
        begin = time.monotonic()
        while time.monotonic() - begin < 0.0005:
            pass

    jobs = [Job(act) for _ in range(40)]
    jobs[0].function = lambda: reactor.offer(late)
    jobs[-1].function = lambda: looked.append(reactor.cycles > before + 1)
    before = reactor.cycles
    reactor.offer(*jobs)
    late.wait()
    assert looked == [True]


def test_no_time_to_poll_is_lost_on_a_job_that_never_has_enough(stand: Stand) -> None:
    """One worker, and a job that has always more: another one has its turn all the same."""
    _, reactor = stand.make(1)
    ending = threading.Event()
    restless = Job()
    restless.run_turn = lambda counters: not ending.is_set()  # type: ignore[method-assign]
    reactor.offer(restless)
    other = Job()
    reactor.offer(other)
    other.wait()
    ending.set()


class Handover(list[Any]):
    """Jobs that are ready. While who polled puts them on the run queue something happens.

    :param act: what happens.
    """

    def __init__(self, jobs: Sequence[Any], act: Callable[[], object]) -> None:
        super().__init__(jobs)
        self._act = act
        self._iterations = 0

    def __iter__(self) -> Iterator[Any]:
        self._iterations += 1
        if self._iterations == 2:  # the first one is for the times
            self._act()
        return super().__iter__()


def test_a_worker_that_comes_just_when_jobs_become_ready_does_not_poll_and_leave_them(stand: Stand) -> None:
    """One worker has polled and is about to put two jobs on the run queue; another one has just finished its job. It
    must not wait for sockets while the first one is in a callback that blocks, and a free worker's job waits.
    """
    _, reactor = stand.make(32)
    (running, blocking) = stand.block(2)
    behind = Job()

    def let_the_other_worker_come() -> None:
        running.gate.set()
        running.wait()
        with contextlib.suppress(AssertionError):  # it does not poll, if all is well
            until(lambda: reactor.polling, 0.1)

    reactor.offer(running)
    running.wait_entered()
    reactor.wait_polling()
    reactor.offer_as(Handover([blocking, behind], let_the_other_worker_come))
    blocking.wait_entered()
    behind.wait()


# --- who waits in a call of ours --------------------------------------------------------------------------------------


@limits
@pytest.mark.parametrize("max_waiting", [None, 1, 3])
def test_so_many_workers_may_wait_and_no_more(stand: Stand, limit: int, max_waiting: int | None) -> None:
    scheduler, reactor = stand.make(limit, max_waiting=max_waiting)
    allowed = max(1, limit // 2) if max_waiting is None else max_waiting
    answers: list[bool] = []
    gate = threading.Event()

    def act() -> None:
        answer = scheduler.begin_wait()
        answers.append(answer)
        wait_for(gate)
        if answer:
            scheduler.end_wait()

    jobs = [Job(act) for _ in range(limit)]
    reactor.offer(*jobs)
    until(lambda: len(answers) == limit)
    assert sum(answers) == min(allowed, limit)
    gate.set()
    for job in jobs:
        job.wait()
    answers.clear()
    again = Job(act)
    reactor.offer(again)
    again.wait()
    assert answers == [True], "who has waited has given his place back"


def test_who_is_no_worker_may_always_wait(stand: Stand) -> None:
    scheduler, _ = stand.make(2, max_waiting=1)
    for _ in range(5):
        assert scheduler.begin_wait()
    for _ in range(5):
        scheduler.end_wait()
    assert scheduler.begin_wait()


def test_somebody_polls_as_soon_as_a_worker_begins_to_wait(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it waits for may come of a socket, and the watchdog does not have to be there for that."""
    monkeypatch.setattr(adaptive, "PATIENCE", 1000.0)  # the watchdog finds nothing
    scheduler, reactor = stand.make(4)
    gate = threading.Event()
    answers: list[bool] = []

    def act() -> None:
        answers.append(scheduler.begin_wait())
        wait_for(gate)
        scheduler.end_wait()

    job = Job(act)
    reactor.offer(job)
    reactor.wait_cycles(3)
    assert answers == [True]
    assert scheduler.reliefs == 0
    gate.set()
    job.wait()


# --- who calls --------------------------------------------------------------------------------------------------------


def test_a_callback_knows_its_job(stand: Stand) -> None:
    scheduler, reactor = stand.make(2)
    seen: list[bool] = []
    other = Job()
    job = Job(lambda: seen.extend([scheduler.runs(job), scheduler.runs(other)]))
    reactor.offer(job)
    job.wait()
    assert seen == [True, False]
    assert not scheduler.runs(job), "who is no worker runs none"


def test_who_polls_between_two_callbacks_is_in_none_of_them(stand: Stand, without_watchdog: None) -> None:
    scheduler, reactor = stand.make(1)
    seen: list[bool] = []
    jobs = [Job(compute) for _ in range(3)]
    reactor.on_cycle = lambda: seen.append(any(scheduler.runs(job) for job in jobs))
    reactor.offer(*jobs)
    for job in jobs:
        job.wait()
    assert 0.0 in reactor.timeouts, "it has polled between two callbacks"
    assert set(seen) == {False}


def test_an_idle_worker_keeps_no_job_alive(stand: Stand) -> None:
    scheduler, reactor = stand.make(1)
    job = Job()
    reactor.offer(job)
    job.wait()
    until(lambda: scheduler.state()[2] == 1)
    until(lambda: sys.getrefcount(job) == 2)


# --- what raises ------------------------------------------------------------------------------------------------------


def _raise(error: BaseException) -> None:
    raise error


@limits
@pytest.mark.parametrize("error", [ValueError("wrong"), SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_a_turn_that_raises_ends_its_job_only(stand: Stand, limit: int, error: BaseException) -> None:
    _, reactor = stand.make(limit)
    wrong, other = Job(lambda: _raise(error)), Job()
    reactor.offer(wrong, other)
    wrong.wait()
    other.wait()
    assert wrong.error is error
    reactor.wait_cycles(2)


def test_a_job_that_cannot_even_fail_ends_nobody_else(stand: Stand) -> None:
    _, reactor = stand.make(1)
    wrong, other = Job(lambda: _raise(ValueError("wrong"))), Job()
    wrong.fail = _raise  # type: ignore[method-assign]
    with quiet() as records:
        reactor.offer(wrong, other)
        other.wait()
    assert len(records) == 1


# --- threads ----------------------------------------------------------------------------------------------------------


def test_idle_workers_retire_but_for_two(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptive, "IDLE_TIMEOUT", 0.05)
    scheduler, reactor = stand.make(8)
    jobs = stand.block(8)
    reactor.offer(*jobs)
    for job in jobs:
        job.wait_entered()
    assert stand.workers() == 9
    for job in jobs:
        job.gate.set()
    until(lambda: stand.workers() == 2)
    assert scheduler.counters().turns == 8, "what they have done still counts"
    again = Job()
    reactor.offer(again)
    again.wait()


def test_workers_come_and_go_and_no_job_is_lost(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptive, "IDLE_TIMEOUT", 0.002)
    scheduler, reactor = stand.make(6)
    turns = 0
    for number in range(60):
        jobs = [Job(lambda: time.sleep(0.002)) for _ in range(1 + number % 7)]
        turns += len(jobs)
        reactor.offer(*jobs)
        for job in jobs:
            job.wait()
        time.sleep(0.001 * (number % 5))  # so some retire, and some are just about to
    until(lambda: scheduler.counters().turns == turns)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the system does not tell how often a thread wakes up")
def test_with_no_work_nobody_wakes_up(stand: Stand) -> None:
    _, reactor = stand.make(8)
    jobs = stand.block(2)
    reactor.offer(*jobs)
    for job in jobs:
        job.wait_entered()
        job.gate.set()
    reactor.wait_polling()

    def wakeups() -> dict[str, int]:
        counts = {}
        for thread in stand.new_threads():
            with contextlib.suppress(FileNotFoundError):
                status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
                counts[thread.name] = sum(
                    int(line.split()[1]) for line in status.splitlines() if "ctxt_switches" in line
                )
        return counts

    def rests() -> bool:
        """Tell whether nobody has been awake for a while."""
        before = wakeups(), reactor.cycles
        try:
            stays(lambda: (wakeups(), reactor.cycles) == before, 0.2)
        except AssertionError:
            return False
        return True

    until(rests)  # the watchdog needs a few looks until it sleeps
    assert rests()


def test_work_after_a_long_rest_is_watched_again(stand: Stand) -> None:
    scheduler, reactor = stand.make(4)
    until(lambda: scheduler._watchdog.asleep)
    [job] = stand.block(1)
    reactor.offer(job)
    job.wait_entered()
    reactor.wait_cycles(2)
    job.gate.set()
    job.wait()
    until(lambda: scheduler._watchdog.asleep)


@contextlib.contextmanager
def no_threads(monkeypatch: pytest.MonkeyPatch, after: int = 0) -> Iterator[list[threading.Thread]]:
    """The system has no thread more, or only so many."""
    start = threading.Thread.start
    refused: list[threading.Thread] = []
    left = [after]

    def refuse(thread: threading.Thread) -> None:
        if not left[0]:
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        left[0] -= 1
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        yield refused


def test_without_threads_those_that_there_are_must_do(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler, reactor = stand.make(8)
    jobs = stand.block(4)
    with quiet() as records, no_threads(monkeypatch) as refused:
        reactor.offer(*jobs)
        jobs[0].wait_entered()
        jobs[1].wait_entered()
        until(lambda: refused)
        reliefs = scheduler.reliefs
        stays(lambda: scheduler.reliefs == reliefs)  # nobody was sent
        for job in jobs:
            job.gate.set()
        for job in jobs:
            job.wait()
        assert len(refused) == 1, "it is not asked for again at once"
        assert len(records) == 1
        reactor.wait_cycles(2)
    assert stand.workers() == 2


def test_a_thread_is_asked_for_again_later(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptive, "RETRY", 0.02)
    scheduler, reactor = stand.make(8)
    jobs = stand.block(4)
    with quiet() as records:
        with no_threads(monkeypatch) as refused:
            reactor.offer(*jobs)
            until(lambda: len(refused) >= 3)
        for job in jobs:
            job.wait_entered()
        reactor.wait_cycles(1)
    assert len(records) == 1, "it is logged once"
    assert scheduler.state()[1] >= 5, "four wait, and one polls"


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_start_without_threads_undoes_itself(stand: Stand, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    scheduler, reactor = stand.make(4, start=False)
    with no_threads(monkeypatch, after), pytest.raises(RuntimeError, match="thread"):
        scheduler.start()
    assert not scheduler.is_alive()
    assert scheduler.join(PATIENCE)
    until(lambda: not stand.new_threads())
    assert reactor.cycles == 0
    assert reactor.finished


# --- the end ----------------------------------------------------------------------------------------------------------


@limits
def test_the_end(stand: Stand, limit: int) -> None:
    scheduler, reactor = stand.make(limit)
    job = Job()
    reactor.offer(job)
    job.wait()
    assert not scheduler.join(0.0)
    reactor.stop()
    assert scheduler.join(PATIENCE)
    assert reactor.released.is_set(), "before those who wait are told"
    assert not scheduler.is_alive()
    assert scheduler.counters().turns == 1


def test_what_is_ready_at_the_end_is_run(stand: Stand) -> None:
    """Jobs that the last cycle returns."""
    scheduler, reactor = stand.make(2)
    last = Job()
    reactor.on_fail = lambda: [last]
    reactor.raise_next(OSError("the poller is gone"))
    last.wait()
    assert scheduler.join(PATIENCE)


@limits
def test_a_cycle_that_raises_ends_all_after_the_last_callbacks(stand: Stand, limit: int) -> None:
    scheduler, reactor = stand.make(limit)
    error = OSError("the poller is gone")
    last = [Job(lambda: time.sleep(0.02)) for _ in range(5)]
    reactor.on_fail = lambda: last
    done: list[bool] = []
    reactor.on_release = lambda: done.extend(job.done.is_set() for job in last)
    reactor.raise_next(error)
    assert scheduler.join(PATIENCE)
    assert reactor.failed_with is error
    assert done == [True] * 5, "they have had their time"


@limits
def test_callbacks_that_run_when_a_cycle_raises_are_waited_for(stand: Stand, limit: int) -> None:
    scheduler, reactor = stand.make(limit)
    [running] = stand.block(1)
    done: list[bool] = []
    reactor.on_release = lambda: done.append(running.done.is_set())
    reactor.offer(running)
    running.wait_entered()
    reactor.wait_polling()
    failing = threading.Event()
    reactor.on_fail = lambda: failing.set() or []  # type: ignore[func-returns-value]
    reactor.raise_next(OSError("the poller is gone"))
    wait_for(failing)
    assert not scheduler.join(0.05), "it is not released meanwhile"
    running.gate.set()
    assert scheduler.join(PATIENCE)
    assert done == [True]


def test_a_cycle_that_raises_between_two_callbacks_leaves_no_job_behind(stand: Stand, without_watchdog: None) -> None:
    """The one worker looks at the sockets between two callbacks, and that fails: the second one is still to be run."""
    scheduler, reactor = stand.make(1)
    done: list[bool] = []

    def act() -> None:
        reactor.fatal = OSError("the poller is gone")
        compute()

    first, second = Job(act), Job()
    reactor.on_release = lambda: done.append(second.done.is_set())
    reactor.offer(first, second)
    assert scheduler.join(PATIENCE)
    assert reactor.timeouts[-1] == 0.0, "it was between the two"
    assert done == [True]


def test_callbacks_that_never_return_are_left_behind(stand: Stand) -> None:
    scheduler, reactor = stand.make(4)
    jobs = stand.block(2)
    reactor.offer(*jobs)
    for job in jobs:
        job.wait_entered()
    reactor.wait_polling()
    reactor.raise_next(OSError("the poller is gone"))
    assert scheduler.join(PATIENCE)
    assert not jobs[0].done.is_set()


def test_a_callback_may_wait_for_the_end(stand: Stand) -> None:
    scheduler, reactor = stand.make(2)
    answers: list[bool] = []
    seen: list[Any] = []

    def act() -> None:
        answers.append(scheduler.join(PATIENCE))

    job = Job(act)
    reactor.offer(job)
    until(lambda: list(scheduler.joining()) == [job])
    reactor.on_cycle = lambda: seen.append(list(scheduler.joining()))
    reactor.wait_cycles(2)
    assert [job] in seen, "who polls knows who waits"
    reactor.stop()
    job.wait()
    assert answers == [True]
    until(lambda: scheduler.joining() == [])


def test_all_callbacks_may_wait_for_the_end(stand: Stand) -> None:
    scheduler, reactor = stand.make(3)
    jobs = [Job(lambda: scheduler.join(PATIENCE)) for _ in range(3)]
    reactor.offer(*jobs)
    until(lambda: len(scheduler.joining()) == 3)
    reactor.wait_cycles(2)
    reactor.stop()
    for job in jobs:
        job.wait()


def test_a_callback_may_wait_for_the_end_that_an_error_brings(stand: Stand) -> None:
    scheduler, reactor = stand.make(2)
    answers: list[bool] = []
    job = Job(lambda: answers.append(scheduler.join(PATIENCE)))
    reactor.offer(job)
    until(scheduler.joining)
    reactor.wait_polling()
    reactor.raise_next(OSError("the poller is gone"))
    assert scheduler.join(PATIENCE)
    job.wait()
    assert answers == [True]


def test_the_last_callbacks_may_wait_for_the_end(stand: Stand) -> None:
    """Those that an error has made ready: whoever polled last runs them, and is waited for by all."""
    scheduler, reactor = stand.make(2)
    answers: list[bool] = []
    jobs = [Job(lambda: answers.append(scheduler.join(PATIENCE / 4))) for _ in range(3)]
    reactor.on_fail = lambda: jobs
    begin = time.monotonic()
    reactor.raise_next(OSError("the poller is gone"))
    assert scheduler.join(PATIENCE)
    for job in jobs:
        job.wait()
    assert answers == [True] * 3
    assert time.monotonic() - begin < PATIENCE / 4


def test_a_join_may_give_up(stand: Stand) -> None:
    scheduler, reactor = stand.make(2)
    answers: list[bool] = []
    job = Job(lambda: answers.append(scheduler.join(0.01)))
    reactor.offer(job)
    job.wait()
    assert answers == [False]
    assert scheduler.joining() == []
    reactor.wait_cycles(1)


def test_many_may_wait_for_the_end(stand: Stand) -> None:
    scheduler, reactor = stand.make(2)
    tasks: list[Task] = [start_thread(scheduler.join, PATIENCE) for _ in range(5)]
    reactor.stop()
    assert [task.result() for task in tasks] == [True] * 5

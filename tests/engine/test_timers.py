"""The timer wheel."""

from __future__ import annotations

import gc
import random
import tracemalloc
import weakref

from ws4py.engine.timers import UNSET, TimerWheel


class Item:
    def __init__(self) -> None:
        self.timer_slot = UNSET


def wheel() -> TimerWheel[Item]:
    return TimerWheel(resolution=0.5)


def test_an_item_goes_off_once_not_early_and_at_most_a_slot_late() -> None:
    timers, item = wheel(), Item()
    timers.set(item, 10.2)
    assert timers.due(10.2) == []
    assert timers.next_time() == 10.5
    assert timers.due(10.499) == []
    assert timers.due(10.5) == [item]
    assert timers.due(100.0) == []
    assert timers.next_time() is None


def test_a_time_on_the_edge_of_a_slot_is_kept() -> None:
    timers, item = wheel(), Item()
    timers.set(item, 10.5)
    assert timers.due(10.4999) == []
    assert timers.due(10.5) == [item]


def test_nothing_is_due_on_an_empty_wheel() -> None:
    timers = wheel()
    assert timers.next_time() is None
    assert timers.due(1e9) == []


def test_due_items_come_in_the_order_of_their_slots() -> None:
    timers = wheel()
    items = [Item() for _ in range(20)]
    times = list(range(20))
    random.Random(7).shuffle(times)
    for item, time in zip(items, times, strict=True):
        timers.set(item, float(time))
    assert timers.due(25.0) == [item for _, item in sorted(zip(times, items, strict=True), key=lambda pair: pair[0])]


def test_set_again_moves_the_item() -> None:
    timers, item = wheel(), Item()
    for first, second in ((1.0, 5.0), (15.0, 11.0)):
        timers.set(item, first)
        timers.set(item, second)
        assert timers.due(min(first, second)) == ([item] if second < first else [])
        assert timers.due(max(first, second)) == ([item] if second > first else [])


def test_an_item_moved_away_and_back_goes_off_once() -> None:
    timers, item = wheel(), Item()
    for time in (1.0, 2.0, 1.0, 2.0, 1.0):
        timers.set(item, time)
    assert timers.due(3.0) == [item]
    assert timers.due(3.0) == []


def test_a_cancelled_item_does_not_go_off_and_may_be_set_again() -> None:
    timers, item, other = wheel(), Item(), Item()
    timers.set(item, 1.0)
    timers.set(other, 1.0)
    timers.cancel(item)
    timers.cancel(item)
    assert timers.due(2.0) == [other]
    timers.set(item, 3.0)
    assert timers.due(3.0) == [item]


def test_an_item_set_while_it_goes_off_is_kept() -> None:
    timers, item = wheel(), Item()
    timers.set(item, 1.0)
    assert timers.due(1.0) == [item]
    timers.set(item, 1.0)
    assert timers.due(1.0) == [item]


def test_nobody_is_woken_for_what_was_moved_or_cancelled() -> None:
    timers, first, second = wheel(), Item(), Item()
    timers.set(first, 1.0)
    timers.set(second, 2.0)
    timers.set(first, 30.0)
    timers.cancel(second)
    assert timers.next_time() == 30.0
    timers.cancel(first)
    assert timers.next_time() is None


def test_a_cancelled_or_moved_item_is_not_kept_alive() -> None:
    timers, item = wheel(), Item()
    reference = weakref.ref(item)
    timers.set(item, 3600.0)
    timers.set(item, 7200.0)
    timers.cancel(item)
    del item
    gc.collect()
    assert reference() is None


def test_many_items_against_a_plain_list() -> None:
    random_ = random.Random(11)
    timers = TimerWheel[Item](resolution=1.0)
    items = [Item() for _ in range(200)]
    expected: dict[Item, int] = {}
    now = 0
    for _ in range(5000):
        item = random_.choice(items)
        if random_.random() < 0.2:
            timers.cancel(item)
            expected.pop(item, None)
        else:
            expected[item] = now + random_.randrange(1, 50)
            timers.set(item, float(expected[item]))
        if random_.random() < 0.1:
            now += random_.randrange(1, 4)
            due = timers.due(float(now))
            assert sorted(map(id, due)) == sorted(id(item) for item, time in expected.items() if time <= now)
            expected = {item: time for item, time in expected.items() if time > now}
            assert timers.next_time() == min(map(float, expected.values()), default=None)


def test_one_item_of_a_slot_takes_no_dictionary() -> None:
    """Connections that come one after the other have a slot each."""
    timers = wheel()
    items = [Item() for _ in range(1000)]
    tracemalloc.start()
    try:
        for number, item in enumerate(items):
            timers.set(item, 1000.0 + number)
        each = tracemalloc.get_traced_memory()[0] / len(items)
    finally:
        tracemalloc.stop()
    assert each < 200
    others = [Item() for _ in range(1000)]
    for number, other in enumerate(others):
        timers.set(other, 1000.0 + number)
    for number, item in enumerate(items):
        timers.set(item, 3000.0 + number)
    assert timers.due(2500.0) == others
    assert timers.due(5000.0) == items

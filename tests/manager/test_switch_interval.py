"""The interval at which threads take turns: the least that a running manager asks for, put back at the end."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.helpers import PATIENCE
from ws4py.manager import WebSocketManager


@pytest.fixture(autouse=True)
def usual() -> Iterator[float]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.005)
    yield 0.005
    sys.setswitchinterval(before)


def running(interval: float | None) -> WebSocketManager:
    manager = WebSocketManager(switch_interval=interval)
    manager.daemon = True
    manager.start()
    return manager


def end(manager: WebSocketManager) -> None:
    manager.stop()
    manager.join(PATIENCE)


def test_the_least_of_all_that_run_holds(usual: float) -> None:
    first, second = running(0.001), running(0.002)
    assert sys.getswitchinterval() == pytest.approx(0.001)
    end(first)
    assert sys.getswitchinterval() == pytest.approx(0.002)
    end(second)
    assert sys.getswitchinterval() == pytest.approx(usual)


def test_it_is_never_made_longer(usual: float) -> None:
    manager = running(1.0)
    assert sys.getswitchinterval() == pytest.approx(usual)
    end(manager)
    assert sys.getswitchinterval() == pytest.approx(usual)


def test_without_it_nothing_changes(usual: float) -> None:
    manager = running(None)
    assert sys.getswitchinterval() == pytest.approx(usual)
    end(manager)


def test_what_the_application_sets_meanwhile_stays() -> None:
    manager = running(0.001)
    sys.setswitchinterval(0.003)
    end(manager)
    assert sys.getswitchinterval() == pytest.approx(0.003)


def test_what_the_application_sets_meanwhile_is_what_others_begin_and_end_with() -> None:
    first, second = running(0.001), running(0.002)
    sys.setswitchinterval(0.0005)
    end(first)
    assert sys.getswitchinterval() == pytest.approx(0.0005), "less than the second one asks for"
    sys.setswitchinterval(0.0001)
    third = running(0.0003)
    assert sys.getswitchinterval() == pytest.approx(0.0001)
    sys.setswitchinterval(0.004)
    end(third)
    assert sys.getswitchinterval() == pytest.approx(0.002)
    end(second)
    assert sys.getswitchinterval() == pytest.approx(0.004)


def test_a_manager_that_is_started_again_asks_again() -> None:
    manager = running(0.001)
    end(manager)
    manager.start()
    assert sys.getswitchinterval() == pytest.approx(0.001)
    end(manager)


@pytest.mark.parametrize("interval", [0, -1, float("inf"), float("nan")])
def test_it_must_be_a_time(interval: float) -> None:
    with pytest.raises(ValueError, match="switch_interval"):
        WebSocketManager(switch_interval=interval)

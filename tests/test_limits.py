"""The limits: what they are by default, and which values are refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from ws4py.manager import Limits, WebSocketManager

COUNTS = (
    "max_message_size",
    "max_fragments",
    "max_connections",
    "max_connections_per_ip",
    "max_messages_per_second",
    "max_waiting_senders",
    "max_workers",
    "drain_pace",
)
SIZES = ("max_inbox_messages", "max_inbox_size", "max_outbox_size")
INTERVALS = ("message_timeout", "ping_interval", "ping_timeout")
TIMES = ("send_timeout", "close_timeout", "drain_timeout")

BAD_COUNTS: tuple[Any, ...] = (0, -1, 1.5, "1", True, float("nan"))
BAD_TIMES: tuple[Any, ...] = (-0.1, float("nan"), float("inf"), "1", True)


def test_the_defaults() -> None:
    assert dataclasses.asdict(Limits()) == {
        "max_message_size": 1 << 20,
        "max_fragments": 4096,
        "max_inbox_messages": 64,
        "max_inbox_size": 1 << 20,
        "max_outbox_size": 1 << 20,
        "send_timeout": 10.0,
        "max_waiting_senders": None,
        "max_workers": None,
        "overflow": "close",
        "max_connections": None,
        "max_connections_per_ip": None,
        "max_messages_per_second": None,
        "message_timeout": 120.0,
        "ping_interval": 30.0,
        "ping_timeout": 30.0,
        "close_timeout": 5.0,
        "max_topics": 100,
        "drain_timeout": 10.0,
        "drain_pace": None,
    }


BAD = (
    [(name, value) for name in COUNTS for value in BAD_COUNTS]
    + [(name, value) for name in SIZES for value in (*BAD_COUNTS, None)]
    + [(name, value) for name in INTERVALS for value in (*BAD_TIMES, 0)]
    + [(name, value) for name in TIMES for value in (*BAD_TIMES, None)]
    + [("overflow", value) for value in ("", "ignore", None, 1)]
)


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_bad_limit_is_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must be .* not "):
        Limits(**{name: value})
    with pytest.raises(ValueError, match=rf"^{name} must be"):
        WebSocketManager(**{name: value})
    with pytest.raises(ValueError, match=rf"^{name} must be"):
        Limits().but(**{name: value})


GOOD = (
    [(name, value) for name in COUNTS for value in (1, 1 << 40, None)]
    + [(name, value) for name in SIZES for value in (1, 1 << 40)]
    + [(name, value) for name in INTERVALS for value in (0.001, 5, None)]
    + [(name, value) for name in TIMES for value in (0, 0.5, 86400)]
    + [("overflow", value) for value in ("close", "drop", "latest")]
)


@pytest.mark.parametrize(("name", "value"), GOOD)
def test_a_good_limit_is_kept(name: str, value: Any) -> None:
    assert getattr(Limits(**{name: value}), name) == value
    assert getattr(WebSocketManager(**{name: value}).limits, name) == value


def test_an_unknown_limit_is_named() -> None:
    with pytest.raises(TypeError, match="max_mesage_size"):
        WebSocketManager(max_mesage_size=1)
    with pytest.raises(TypeError, match="bogus"):
        Limits().but(bogus=1)


@pytest.mark.parametrize("workers", [-1, 1.5, "4", None, True])
def test_a_bad_number_of_workers_is_named(workers: Any) -> None:
    with pytest.raises(ValueError, match=r"^workers must be"):
        WebSocketManager(workers=workers)


def test_but_changes_a_copy() -> None:
    limits = Limits(max_connections=7)
    changed = limits.but(send_timeout=1.0)
    assert (changed.max_connections, changed.send_timeout) == (7, 1.0)
    assert limits.send_timeout == 10.0
    assert limits.but() is limits


def test_limits_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Limits().send_timeout = 1.0  # type: ignore[misc]


def test_single_limits_go_over_given_ones() -> None:
    manager = WebSocketManager(limits=Limits(send_timeout=1.0, close_timeout=2.0), close_timeout=3.0)
    assert (manager.limits.send_timeout, manager.limits.close_timeout) == (1.0, 3.0)

"""The scenarios by their names: which users there are, and what is required of a run if nothing else is."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SCENARIOS", "Scenario"]


@dataclass(frozen=True)
class Scenario:
    """What is done to a server.

    :ivar says: what that is.
    :ivar users: the classes of ``locustfile.py``.
    :ivar others: how many users there are of the classes with a fixed count.
    :ivar required: beside no failure and no lost websocket; ``{users}`` stands for how many users there are.
    :ivar options: of ``locustfile.py``, which can be given others.
    """

    says: str
    users: tuple[str, ...]
    others: int = 0
    required: tuple[str, ...] = ("peak>={websockets}",)
    options: tuple[str, ...] = ()


SCENARIOS = {
    "idle": Scenario(
        "a crowd that is connected, answers Pings, and now and then hears a broadcast",
        ("IdleUser", "AnnouncerUser"),
        1,
        ("peak>={websockets}", "open>={websockets}", "broadcasts>=1", "missed<=0"),
    ),
    "echo": Scenario(
        "messages that are echoed",
        ("EchoUser",),
        0,
        ("peak>={websockets}", "round-trip.count>=1"),
        ("--message-interval", "0.1"),
    ),
    "chat": Scenario(
        "everybody says something to everybody",
        ("ChatUser",),
        0,
        ("peak>={websockets}", "broadcasts>=1", "missed<=0"),
    ),
    "mixed": Scenario(
        "a crowd is connected, and pages are fetched from the same server",
        ("IdleUser", "AnnouncerUser", "PageUser"),
        6,
        ("peak>={websockets}", "open>={websockets}", "missed<=0", "page.count>=1"),
    ),
    "churn": Scenario(
        "connect, talk, leave, again and again",
        ("ChurnUser",),
        0,
        ("connect.count>=1", "round-trip.count>=1", "close.count>=1"),
        ("--message-interval", "0.1"),
    ),
    "blocking": Scenario(
        "messages to handlers that block for 10 ms",
        ("BlockingUser",),
        0,
        ("peak>={websockets}", "round-trip.count>=1"),
        ("--message-interval", "0.1"),
    ),
}

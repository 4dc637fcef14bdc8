"""What an engine asks of what is above it: of whoever runs it, and of whom its connections belong to."""

from __future__ import annotations

from typing import Any, Final, Protocol

__all__ = ["NOBODY", "Backend", "Callers", "Owner"]


class Owner(Protocol):
    """Whom a connection belongs to: a websocket, and its callbacks."""

    id: int
    """A number that no other one of the engine ever has."""
    failed: bool
    """Whether messages are passed over: a handler has raised, or the application gave the connection up."""
    finishing: bool
    """Whether ``closed()`` is due or running."""
    finished: bool
    """Whether ``closed()`` has returned."""

    @property
    def ping_interval(self) -> float | None:
        """After how many seconds a Ping is due; None for never."""

    @property
    def wants_pongs(self) -> bool:
        """Whether Pongs that answer no Ping of the engine go into the inbox."""

    def take_early(self) -> bytes:
        """Return what was read of the connection before the engine had it, once."""


class Nobody:
    """Whom a connection belongs to when it is gone."""

    id = 0
    failed = finishing = finished = True
    ping_interval = None
    wants_pongs = False

    def take_early(self) -> bytes:
        """Nothing was read."""
        return b""

    def __str__(self) -> str:
        """Say so, in a line of a log."""
        return "a connection that is gone"


NOBODY: Final[Owner] = Nobody()


class Backend(Protocol):
    """The kind of threads, or greenlets, that use an engine."""

    def make_lock(self) -> Any:
        """Return a lock, which is held for a few assignments only."""

    def holds(self, lock: Any) -> bool:
        """Tell whether the calling thread holds a lock: then it is in a signal handler, or a ``__del__``, and in the
        midst of what the lock guards.
        """

    def make_condition(self, lock: Any) -> Any:
        """Return a condition over such a lock, to wait on."""


class Callers(Protocol):
    """What is to be known of the thread, or greenlet, that calls."""

    def in_own_thread(self) -> bool:
        """Tell whether it is the one that polls and runs callbacks, too, so that it can't wait for another."""

    def owns_engine(self) -> bool:
        """Tell whether it may do now what is for the thread that polls."""

    def pass_on(self, owner: Any, error: BaseException) -> None:
        """Let what a callback has raised go on to whom it is meant for."""

    def is_kill(self, error: BaseException) -> bool:
        """Tell whether a callback was ended by this from outside, so that it is nobody's fault."""

    def throw(self, error: BaseException) -> None:
        """Let what met the thread that polls by chance go on to whom it is meant for."""

    def begin_wait(self) -> bool:
        """It is about to wait in a call of ours; return False if it may not, since too many of its kind do."""

    def end_wait(self) -> None:
        """It waits no more."""

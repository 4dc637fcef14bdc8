"""What the parts of an engine ask of each other: so that none imports who uses it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ws4py.closing import Closing
from ws4py.engine.counters import EngineCounters
from ws4py.engine.host import Callers
from ws4py.engine.outbox import Outbox
from ws4py.engine.pollers import Poller
from ws4py.limits import Limits
from ws4py.messaging import CloseControlMessage
from ws4py.streaming import Stream

__all__ = ["Core", "Line"]


class Core(Protocol):
    """The engine, as its connections and their lifecycle see it. :class:`ws4py.engine.pure.Engine` has the words."""

    callers: Callers | None
    connections: dict[int, Any]
    counters: EngineCounters
    displaced: set[Any]
    lifecycle: Any
    lock: Any
    poller: Poller | None
    read_at: float
    reader: Any
    ready: list[Any]
    relay: Any
    unread: dict[Any, None]

    @property
    def clock(self) -> Callable[[], float]: ...

    @property
    def make_lock(self) -> Callable[[], Any]: ...

    @property
    def make_condition(self) -> Callable[[Any], Any]: ...

    @property
    def holds(self) -> Callable[[Any], bool]: ...

    @property
    def read_ended(self) -> Callable[[Any], object]: ...

    @property
    def released(self) -> Callable[[Any, Any], object]: ...

    def ask(self, act: Callable[[], object]) -> None: ...
    def begin_wait(self) -> bool: ...
    def count(self, name: str, number: int = 1) -> None: ...
    def count_limit(self, name: str) -> None: ...
    def drop(self, connection: Any) -> None: ...
    def end_wait(self) -> None: ...
    def fault(self, connection: Any) -> None: ...
    def forget(self, connection: Any) -> bool: ...
    def in_own_thread(self) -> bool: ...
    def make_way(self, connection: Any) -> None: ...
    def mark_dirty(self, connection: Any) -> None: ...
    def may_read(self, connection: Any) -> bool: ...
    def send(self, connections: list[Any]) -> None: ...
    def unwatch(self, connection: Any) -> None: ...
    def watch(self, connection: Any) -> None: ...
    def write_until(self, connection: Any, deadline: float) -> bool: ...


class Line(Protocol):
    """A connection, as what sends on it sees it. :class:`ws4py.engine.outgoing.Outgoing` has the words."""

    closing: Closing
    dirty: bool
    engine: Core
    limits: Limits
    lock: Any
    outbox: Outbox | None
    send_ended: bool
    sender: Any
    stream: Stream

    @property
    def buffered(self) -> int: ...

    @property
    def may_append(self) -> bool: ...

    def append(self, frame: bytes, opcode: int, whole: bool, size: int) -> bool: ...
    def append_close(self, message: CloseControlMessage) -> None: ...
    def close(self, message: CloseControlMessage) -> None: ...
    def give_up_locked(self, message: CloseControlMessage) -> None: ...

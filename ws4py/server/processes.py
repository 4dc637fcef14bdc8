"""Several processes that serve one address, and the one that has started them.

That one listens, and the others inherit its socket: none of them has connections waiting that are lost with it. It
serves nothing itself, and imports nothing of the application.

``SIGTERM`` and ``SIGINT`` end them all, a second one at once. ``SIGHUP`` replaces them, one after another, and none
ends before the new one in its place serves. A process that dies is started again.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from ws4py.server.gathering import Gathering
from ws4py.server.joined import ENVIRONMENT, Channel, encoded

__all__ = ["Processes"]

FIRST_PAUSE: Final = 0.1
"""How many seconds pass before a process that has died is started again, doubled each time up to..."""
LONGEST_PAUSE: Final = 30.0
RECOVERED: Final = 30.0
"""After so many seconds a process is well, and the pause before the next one is the first again."""

START_TIMEOUT: Final = 60.0
"""For how many seconds a process may start."""

LEAST_PATIENCE: Final = 10.0
"""Within how many seconds one ends that has not said how long it takes."""

MOST_UNSENT: Final = 1 << 20
"""A process that reads nothing while more bytes than that wait for it is told nothing more."""

SIGNALS: Final = ("SIGTERM", "SIGINT", "SIGHUP", "SIGCHLD")


class _Process:
    """One that was started.

    :ivar deadline: when it is killed; None while it serves.
    :ivar unsent: what its channel has not taken yet.
    """

    def __init__(self, number: int, command: Sequence[str], listener: int) -> None:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                descriptors = (listener, theirs.fileno())
                self._popen = subprocess.Popen(
                    command,
                    env={**os.environ, ENVIRONMENT: " ".join(map(str, (number, *descriptors)))},
                    pass_fds=descriptors,
                    start_new_session=True,  # a terminal's signals are passed on, and come once
                )
        except BaseException:
            ours.close()
            raise
        ours.setblocking(False)
        self.number = number
        self.channel = Channel(ours)
        self.unsent = bytearray()
        self.ready = False
        self.told_to_end = False
        self.patience = LEAST_PATIENCE
        self.began = time.monotonic()
        self.deadline: float | None = self.began + START_TIMEOUT

    @property
    def status(self) -> int | None:
        """How it has ended; None while it runs."""
        return self._popen.poll()

    def send(self, message: dict[str, Any]) -> bool:
        """Send it a message; return False if it takes none now, or never again."""
        if len(self.unsent) > MOST_UNSENT or self.channel.sock.fileno() < 0:
            return False
        self.unsent += encoded(message)
        self.write()
        return True

    def write(self) -> None:
        """Write as much as its channel takes now."""
        try:
            del self.unsent[: self.channel.sock.send(self.unsent)]
        except BlockingIOError:
            pass
        except OSError:  # it ends, which is seen by reading
            self.unsent.clear()

    def end(self) -> None:
        """Tell it to end; the second time, at once."""
        self._popen.terminate()
        if not self.told_to_end:
            self.told_to_end = True
            self.deadline = time.monotonic() + self.patience

    def kill(self) -> None:
        """End it at once."""
        self.deadline = None
        self._popen.kill()

    def wait(self) -> None:
        """Wait until it has ended."""
        self._popen.wait()


class Processes:
    """Starts processes, and keeps as many of them as there shall be.

    :param command: what each of them is; it finds its :class:`~ws4py.server.joined.JoinedProcess` in its environment.
    :param count: how many.
    :param listener: the socket that listens. It is closed when the end begins.
    :param say: is called with what happens, in a line.
    """

    def __init__(
        self, command: Sequence[str], count: int, listener: socket.socket, say: Callable[[str], object]
    ) -> None:
        self._command = command
        self._count = count
        self._listener = listener
        self._say = say
        self._serving: dict[int, _Process] = {}  # by their numbers
        self._leaving: list[_Process] = []
        self._successor: _Process | None = None  # of the one with its number
        self._to_replace: deque[int] = deque()
        self._due: dict[int, float] = {}  # when a process is started again
        self._pauses: dict[int, float] = {}
        self._signals: deque[int] = deque()
        self._begun: Callable[[], object] | None = None
        self._ending = False
        self._result = 0
        self._selector = selectors.DefaultSelector()
        self._gathering = Gathering(time.monotonic)

    def run(self, begun: Callable[[], object]) -> int:
        """Run the processes until a signal ends them; return the exit status. In the main thread.

        The first one is started alone: if it ends before it serves, there will be none.

        :param begun: is called when all of them serve.
        """
        reader, writer = socket.socketpair()
        numbers = [signal.Signals[name] for name in SIGNALS]
        with reader, writer, self._selector:
            reader.setblocking(False)
            writer.setblocking(False)
            self._selector.register(reader, selectors.EVENT_READ)
            wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
            handlers = [(number, signal.signal(number, self._note)) for number in numbers]
            self._begun = begun
            try:
                self._start(1)
                while self._serving or self._leaving or self._successor or self._due:
                    self._turn()
            finally:
                signal.set_wakeup_fd(wakeup)
                for number, handler in handlers:
                    signal.signal(number, handler)
                for process in self._all():  # there are some if this has raised
                    process.kill()
                    process.wait()
                self._listener.close()
        return self._result

    def _note(self, number: int, _: Any) -> None:
        self._signals.append(number)

    def _all(self) -> list[_Process]:
        return [*self._serving.values(), *self._leaving, *([self._successor] if self._successor else [])]

    def _turn(self) -> None:
        """Wait until something happens, and do what it asks for."""
        for process in self._all():
            if process.channel.sock.fileno() >= 0:
                events = selectors.EVENT_READ | (selectors.EVENT_WRITE if process.unsent else 0)
                self._selector.modify(process.channel.sock, events, process)
        for key, events in self._selector.select(self._time_to_wait()):
            if key.data is None:
                with suppress(BlockingIOError):
                    key.fileobj.recv(4096)  # type: ignore[union-attr]
                continue
            if events & selectors.EVENT_WRITE:
                key.data.write()
            if events & selectors.EVENT_READ:
                self._read(key.data)
        self._gathering.give_up_late_ones()
        while self._signals:
            number = self._signals.popleft()
            if number == signal.SIGHUP:
                self._to_replace = deque(range(1, self._count + 1))
            elif number != signal.SIGCHLD:
                self._end(0)
        now = time.monotonic()
        for process in self._all():
            if process.deadline is not None and now >= process.deadline:
                process.kill()
            if process.status is not None:
                self._bury(process)
        for number in [number for number, due in self._due.items() if due <= now]:
            del self._due[number]
            self._start(number)
        self._replace()

    def _time_to_wait(self) -> float | None:
        due = [*self._due.values(), *(item.deadline for item in self._all() if item.deadline is not None)]
        if self._gathering.deadline is not None:
            due.append(self._gathering.deadline)
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _make(self, number: int) -> _Process | None:
        try:
            process = _Process(number, self._command, self._listener.fileno())
        except OSError as error:
            self._say(f"process {number} can't be started: {error}")
            return None
        self._selector.register(process.channel.sock, selectors.EVENT_READ, process)
        return process

    def _start(self, number: int) -> None:
        """Start a process that there is none in the place of."""
        process = self._make(number)
        if process is not None:
            self._serving[number] = process
        elif self._begun is not None:
            self._end(1)
        else:
            self._start_later(number)

    def _start_later(self, number: int) -> float:
        pause = self._pauses.get(number, FIRST_PAUSE)
        self._pauses[number] = min(2 * pause, LONGEST_PAUSE)
        self._due[number] = time.monotonic() + pause
        return pause

    def _read(self, process: _Process) -> None:
        try:
            for message in process.channel.receive():
                if "ready" in message:
                    self._now_ready(process, message["ready"])
                elif "gather" in message:
                    serving = [item for item in self._serving.values() if item.ready]
                    self._gathering.begin(process, message, serving)
                else:
                    self._gathering.answer(process, message)
        except BlockingIOError:
            pass
        except OSError:  # it ends
            self._forget_channel(process)

    def _forget_channel(self, process: _Process) -> None:
        if process.channel.sock.fileno() >= 0:
            self._selector.unregister(process.channel.sock)
            process.channel.sock.close()
            self._gathering.forget(process)

    def _now_ready(self, process: _Process, patience: float) -> None:
        process.ready = True
        process.patience = patience
        if process.told_to_end:
            return
        process.deadline = None
        if process is self._successor:
            self._successor = None
            self._due.pop(process.number, None)  # the one before has died meanwhile
            before = self._serving.get(process.number)
            self._serving[process.number] = process
            if before is not None:
                self._leaving.append(before)
                before.end()
        if self._begun is None:
            return
        for number in range(1, self._count + 1):
            if number not in self._serving and number not in self._due:
                self._start(number)
        if not self._ending and sum(item.ready for item in self._serving.values()) == self._count:
            self._begun()
            self._begun = None

    def _bury(self, process: _Process) -> None:
        """A process has ended."""
        self._forget_channel(process)
        if process in self._leaving:
            self._leaving.remove(process)
        elif process is self._successor:
            self._successor = None
            if not self._ending:
                self._to_replace.clear()
                self._say(f"a new process {process.number} has {_how(process)} before it served: the others stay")
        else:
            del self._serving[process.number]
            if self._ending:
                return
            if self._begun is not None and not process.ready:
                status = process.status
                self._end(status if status is not None and status > 0 else 1)
                return
            if time.monotonic() - process.began >= RECOVERED:
                self._pauses.pop(process.number, None)
            pause = self._start_later(process.number)
            self._say(f"process {process.number} has {_how(process)}, and is started again in {pause:g} s")

    def _replace(self) -> None:
        """Go on with the replacement of all, if nothing of it is under way."""
        if self._begun is None and not (self._ending or self._successor or self._leaving or self._due):
            if not self._to_replace or not all(process.ready for process in self._serving.values()):
                return
            self._successor = self._make(self._to_replace.popleft())
            if self._successor is None:
                self._to_replace.clear()

    def _end(self, result: int) -> None:
        """End all; at once if that was said before."""
        if self._ending:
            result = 1
        self._ending = True
        self._result = result
        self._listener.close()
        self._due.clear()
        for process in self._all():
            process.end()


def _how(process: _Process) -> str:
    status = process.status
    if status is not None and status < 0:
        return f"been ended by {signal.Signals(-status).name}"
    return f"ended with {status}"

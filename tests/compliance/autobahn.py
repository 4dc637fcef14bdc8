"""Run the Autobahn test suite against a server or a client in a process of its own, and read its verdicts.

Whatever happens, no process is left, every wait has a deadline, and what every process wrote is kept in a file of the
run's folder, the end of which is in the message of :class:`SuiteError`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from . import environment
from .cases import COMPRESSION_MESSAGES

HOST: Final = "127.0.0.1"
NAME: Final = "target"
START: Final = 20.0
"""Seconds that a process has until it listens."""
STOP: Final = 10.0
"""Seconds that a process has to end after SIGTERM."""
RUN: Final = 600.0
"""Seconds that a whole run has."""


class SuiteError(Exception):
    """The suite could not be run to its end; the message has the end of the logs."""


@dataclass(frozen=True)
class Verdict:
    """What the suite says about a case: its behaviour, and that of the closing handshake."""

    behaviour: str
    close: str


class Report:
    """The verdicts of a run by the name of the case, and the details in the files beside them."""

    def __init__(self, folder: Path) -> None:
        """Read the reports that the suite wrote to ``folder``; SuiteError if there are none."""
        try:
            index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SuiteError(f"the suite wrote no report: {error}") from error
        self._folder = folder
        self._index: dict[str, dict[str, Any]] = index.get(NAME, {})
        self.verdicts: Mapping[str, Verdict] = {
            case: Verdict(entry["behavior"], entry["behaviorClose"]) for case, entry in self._index.items()
        }

    def explain(self, case: str) -> str:
        """Return what the suite did in a case, what it expected and what it got, to be read by people."""
        path = self._folder / self._index[case]["reportfile"]
        details = json.loads(path.read_text(encoding="utf-8"))
        shown = {
            "case": details["description"],
            "expectation": details["expectation"],
            "result": details["result"],
            "expected": details["expected"],
            "received": details["received"],
            "close": details["resultClose"],
            "close expected": details["expectedClose"],
            "close received": (details["remoteCloseCode"], details["remoteCloseReason"]),
            "clean": details["wasClean"] or details["wasNotCleanReason"],
            "frames": [entry for entry in details["wirelog"] or () if entry[0] in {"TF", "RF", "TIE", "KLE"}],
        }
        lines = [f"{key}: {_shorten(' '.join(str(value).split()))}" for key, value in shown.items()]
        return "\n".join([*lines, f"all of it: {path}"])


def run_against_server(command: Sequence[str], cases: Sequence[str], folder: Path) -> Report:
    """Let the suite, as a client, play ``cases`` against the server that ``command`` and a port start.

    The server must echo at ``/ws``, on the port of 127.0.0.1 that is its last argument.
    """
    port = free_port()
    spec = {"servers": [{"agent": NAME, "url": f"ws://{HOST}:{port}/ws"}]}
    with running([*command, str(port)], folder / "server.log") as server:
        wait_until_listening(server, port)
        with running(_suite("fuzzingclient", spec, cases, folder), folder / "suite.log") as suite:
            wait(suite, RUN)
        if server.process.poll() is not None:
            raise SuiteError(f"the server ended by itself during the run\n{server}")
    return Report(folder)


def run_against_client(command: Sequence[str], cases: Sequence[str], folder: Path) -> Report:
    """Let the suite, as a server, play ``cases`` against the client that ``command`` and a URL start.

    The client gets the URL (``ws://127.0.0.1:PORT``) and a name as its last arguments, and must: ask
    ``/getCaseCount`` (the reply is one message, a number); connect to ``/runCase?case=N&agent=NAME`` for N from 1 up to
    it, and echo until that closes; connect to ``/updateReports?agent=NAME``, wait until that closes, and end with 0.
    """
    port = free_port()
    spec = {"url": f"ws://{HOST}:{port}"}
    with running(_suite("fuzzingserver", spec, cases, folder), folder / "suite.log") as suite:
        wait_until_listening(suite, port)
        with running([*command, f"ws://{HOST}:{port}", NAME], folder / "client.log") as client:
            wait(client, RUN, suite)
    return Report(folder)


@dataclass(frozen=True)
class Running:
    """A process and the file of what it writes; str() is the end of that."""

    process: subprocess.Popen[bytes]
    log: Path

    def __str__(self) -> str:
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return f"--- the end of {self.log}\n{text[-4000:]}\n---"


@contextlib.contextmanager
def running(command: Sequence[str], log: Path) -> Iterator[Running]:
    """Run a command in the checkout and in a session of its own; at the end nothing of that session is left."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=environment.CHECKOUT,
            start_new_session=True,
        )
    try:
        yield Running(process, log)
    finally:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP)
        with contextlib.suppress(ProcessLookupError):  # also what it may have started
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(STOP)


def wait(waited: Running, seconds: float, *others: Running) -> None:
    """Wait until a process ends well; SuiteError, with its log and the others', if it fails or takes longer."""
    try:
        status = waited.process.wait(seconds)
    except subprocess.TimeoutExpired:
        outcome = f"not ended after {seconds:g} s"
    else:
        if status == 0:
            return
        outcome = f"ended with {status}"
    raise SuiteError("\n".join([outcome, *map(str, (waited, *others))]))


def wait_until_listening(server: Running, port: int, seconds: float = START) -> None:
    """Wait until a process accepts connections; SuiteError, with its log, if it ends before or takes longer."""
    deadline = time.monotonic() + seconds
    while True:
        if server.process.poll() is not None:
            raise SuiteError(f"ended with {server.process.returncode} before it listened\n{server}")
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            return
        if time.monotonic() > deadline:
            raise SuiteError(f"not listening after {seconds:g} s\n{server}")
        time.sleep(0.05)


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.create_server((HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _suite(mode: str, spec: Mapping[str, object], cases: Sequence[str], folder: Path) -> list[str]:
    """Return the command that runs the suite with a specification, which is written to ``folder``."""
    path = folder / "spec.json"
    common = {"outdir": str(folder), "cases": list(cases), "exclude-cases": [], "exclude-agent-cases": {}}
    path.write_text(json.dumps({**common, **spec}), encoding="utf-8")
    python = [str(environment.PYTHON), "-u", "-W", "ignore"]
    return [*python, str(environment.WSTEST), mode, str(path), str(COMPRESSION_MESSAGES)]


def _shorten(text: str, limit: int = 1000) -> str:
    return text if len(text) <= limit else f"{text[:limit]} ... ({len(text)} characters)"

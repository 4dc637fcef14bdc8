"""One measurement: a server is started on its processor, put under load from another one, and stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from benchmarks.peers import ENVIRONMENTS, HERE, Peer

START_DEADLINE: Final = 30.0
STOP_DEADLINE: Final = 5.0
LOAD_DEADLINE: Final = 90.0  # seconds beyond those that a load lasts
CERTIFICATES: Final = ENVIRONMENTS / "tls"


class MeasurementError(Exception):
    """A server, or its load, did not do what it was to do; the text says what."""


def raise_fd_limit() -> int:
    """Raise the limit of open files as far as allowed, and return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def build() -> None:
    """Compile the load and the floor, and make a certificate, where they are missing or old.

    :raises subprocess.CalledProcessError: if that fails.
    """
    ENVIRONMENTS.mkdir(exist_ok=True)
    folder = HERE / "load"
    headers = list(folder.glob("*.h"))
    for program, names, libraries in (
        ("wsload", ("wsload.c", "client.c", "histogram.c"), ("-lssl", "-lcrypto", "-lz")),
        ("limit", ("limit.c",), ("-lcrypto",)),
    ):
        sources = [folder / name for name in names]
        target = ENVIRONMENTS / program
        newest = max(path.stat().st_mtime for path in (*sources, *headers))
        if not target.exists() or target.stat().st_mtime < newest:
            subprocess.run(["cc", "-O2", "-o", target, *sources, *libraries], check=True)
    if not (CERTIFICATES / "certificate.pem").exists():
        CERTIFICATES.mkdir(exist_ok=True)
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650"
        subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        files = ["-keyout", str(CERTIFICATES / "key.pem"), "-out", str(CERTIFICATES / "certificate.pem")]
        subprocess.run([*command.split(), *subject, *files], check=True, capture_output=True)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@dataclass(frozen=True)
class Bench:
    """Where, and for how long, a peer is measured.

    :ivar peer: the server.
    :ivar seconds: that a load lasts, after half a second of warm-up.
    :ivar server_cpus: that the server may use, as ``taskset -c`` takes them.
    :ivar load_cpus: likewise for the load.
    :ivar brief: leave out what takes long.
    """

    peer: Peer
    seconds: float
    server_cpus: str = "0"
    load_cpus: str = "1"
    brief: bool = False

    @contextlib.contextmanager
    def serving(self, *options: str, everywhere: bool = False) -> Iterator[Serving]:
        """Run the server.

        :param options: for it; see ``servers/common.py``.
        :param everywhere: it may use the load's processors, too, and the load the server's.
        :raises MeasurementError: if it does not listen in time; the text has what it printed.
        """
        port = _free_port()
        bench = self
        if everywhere:
            cpus = f"{self.server_cpus},{self.load_cpus}"
            bench = dataclasses.replace(self, server_cpus=cpus, load_cpus=cpus)
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(
                ["taskset", "-c", bench.server_cpus, *self.peer.command, str(port), *self.peer.arguments, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=ENVIRONMENTS,
                start_new_session=True,
            )
            try:
                self._await(process, port, log)
                yield Serving(bench, process.pid, port, "tls" in "".join(options), "deflate=1" in options)
            except MeasurementError as error:
                said = _last_line(log)
                raise MeasurementError(f"{error} (the server: {said})" if said else str(error)) from error
            finally:
                _end(process)

    def _await(self, process: subprocess.Popen[bytes], port: int, log: IO[bytes]) -> None:
        deadline = time.monotonic() + START_DEADLINE
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1.0).close()
            except OSError as error:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise MeasurementError("it does not listen") from error
                time.sleep(0.05)
            else:
                return


def _last_line(log: IO[bytes]) -> str:
    """Return the last line that a server has printed."""
    log.seek(0)
    lines = log.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")[-200:]


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop a server, and what it has started."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_DEADLINE)
    except subprocess.TimeoutExpired:
        pass
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # the group is its own
    process.wait()


@dataclass(frozen=True)
class Serving:
    """A server that is running."""

    bench: Bench
    pid: int
    port: int
    tls: bool
    deflate: bool

    def _command(self, mode: str, path: str, options: dict[str, float], nice: int = 0) -> list[str]:
        command = ["taskset", "-c", self.bench.load_cpus, "nice", "-n", str(nice), str(ENVIRONMENTS / "wsload"), mode]
        command += ["--port", str(self.port), "--path", path]
        for name, value in options.items():
            command += [f"--{name}", f"{value:g}" if isinstance(value, float) else str(value)]
        return command + ["--tls"] * self.tls + ["--deflate"] * self.deflate

    def load(self, mode: str, path: str = "/ws", **options: float) -> dict[str, float]:
        """Run a load to its end; see ``load/wsload.c`` for modes and options.

        :returns: what it has found.
        :raises MeasurementError: if it fails, or takes too long.
        """
        options.setdefault("seconds", self.bench.seconds)
        try:
            result = subprocess.run(
                self._command(mode, path, options),
                check=True,
                capture_output=True,
                text=True,
                timeout=options["seconds"] + LOAD_DEADLINE,
            )
        except subprocess.TimeoutExpired as error:
            raise MeasurementError(f"the load {mode} did not end") from error
        except subprocess.CalledProcessError as error:
            raise MeasurementError(error.stderr.strip()[-200:] or f"status {error.returncode}") from error
        found: dict[str, float] = json.loads(result.stdout)
        return found

    @contextlib.contextmanager
    def loaded(self, mode: str, path: str, **options: float) -> Iterator[None]:
        """Run a load beside others; it gives way to them on their processor.

        :raises MeasurementError: if it has ended before.
        """
        command = self._command(mode, path, {**options, "seconds": LOAD_DEADLINE}, nice=10)
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            try:
                yield
                if process.poll() is not None:
                    raise MeasurementError(process.communicate()[1].strip()[-200:])
            finally:
                process.kill()

    @contextlib.contextmanager
    def crowd(self, most: int, path: str = "/ws", **options: float) -> Iterator[Crowd]:
        """Hold connections open, none at first. They give way to another load on their processor.

        :param most: how many there can be.
        """
        process = subprocess.Popen(
            self._command("hold", path, {"connections": most, **options}, nice=10),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield Crowd(process)
        finally:
            process.kill()
            process.communicate()

    @contextlib.contextmanager
    def hostile(self, kind: str, count: int, path: str = "/ws") -> Iterator[None]:
        """Have clients do their worst; see ``load/hostile.py``. They give way to another load on their processor.

        :raises MeasurementError: if they don't come.
        """
        command = ["taskset", "-c", self.bench.load_cpus, "nice", "-n", "10", sys.executable]
        command += [str(HERE / "load" / "hostile.py"), kind, str(self.port), path, str(LOAD_DEADLINE)]
        pipe = subprocess.PIPE
        processes = [subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) for _ in range(count)]
        try:
            for process in processes:
                assert process.stdout is not None
                if not process.stdout.readline():
                    raise MeasurementError(process.communicate()[1].strip()[-200:])
            yield
        finally:
            for process in processes:
                process.kill()
                process.communicate()

    @property
    def _processes(self) -> list[int]:
        """The server's process, and those that it has started."""
        parents: dict[int, int] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        found = [self.pid]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found

    def memory(self) -> int:
        """Return the resident set of the server, in bytes."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self._processes)
        return pages * resource.getpagesize()

    def cpu_time(self) -> float:
        """Return the processor time that the server has used, in seconds."""
        ticks = 0
        for pid in self._processes:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def system_calls(self, seconds: float) -> int:
        """Return how many system calls the server makes in a time, as strace sees them.

        :raises MeasurementError: without strace.
        """
        with tempfile.TemporaryDirectory() as folder:
            trace = Path(folder) / "trace"
            pids = [argument for pid in self._processes for argument in ("-p", str(pid))]
            try:
                tracer = subprocess.Popen(
                    ["strace", "-f", "-qq", "-e", "signal=none", "-o", str(trace), *pids], stderr=subprocess.DEVNULL
                )
            except FileNotFoundError as error:
                raise MeasurementError("strace is not installed") from error
            try:
                time.sleep(1.0)
                before = _finished(trace)
                time.sleep(seconds)
                return _finished(trace) - before
            finally:
                tracer.send_signal(signal.SIGINT)
                tracer.wait(10.0)


def _finished(trace: Path) -> int:
    """Count the calls in a trace that have returned."""
    return sum(" = " in line or "resumed>" in line for line in trace.read_text().splitlines())


class Crowd:
    """Connections that are held open by a load."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def grow(self, count: int) -> dict[str, float]:
        """Let there be so many connections, all of them open.

        :returns: what it took.
        :raises MeasurementError: if they don't come.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{count}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass
        line = self._process.stdout.readline()
        if not line:
            raise MeasurementError(self._process.communicate()[1].strip()[-200:])
        found: dict[str, float] = json.loads(line)
        return found

    def end(self) -> dict[str, float]:
        """Close all; returns what happened to them.

        :raises MeasurementError: if some were lost meanwhile.
        """
        output, errors = self._process.communicate(timeout=LOAD_DEADLINE)
        if self._process.returncode:
            raise MeasurementError(errors.strip()[-200:])
        found: dict[str, float] = json.loads(output)
        if found["lost"]:
            raise MeasurementError(f"{found['lost']} connections were lost")
        return found

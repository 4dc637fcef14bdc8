"""Put a server under load: ``python -m loadtest SCENARIO`` runs one and judges it, ``python -m loadtest web`` starts
locust's page.

Without ``--host`` a server is started for the run. Options that are not known here are locust's: ``--html FILE``,
``--csv PREFIX``, ``--processes N``, ``--master``, ...
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from loadtest import checks, report
from loadtest.report import Requirement
from loadtest.scenarios import SCENARIOS
from loadtest.server import add_arguments

HERE = Path(__file__).resolve().parent
START_DEADLINE = 30.0
STOP_DEADLINE = 15.0
PAGES = 5  # users of HTTP in the scenario `mixed`, who have no websocket


def _parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="python -m loadtest",
        description=__doc__,
        epilog="scenarios: " + "; ".join(f"{name}: {scenario.says}" for name, scenario in SCENARIOS.items()),
    )
    parser.add_argument("scenario", choices=[*SCENARIOS, "web"])
    parser.add_argument("--users", type=int, default=100, help="how many at most; 100")
    parser.add_argument("--spawn-rate", type=float, default=100.0, help="how many come in a second; 100")
    parser.add_argument("--seconds", type=float, default=30.0, help="of the run, from the first user on; 30")
    parser.add_argument(
        "--require",
        action="append",
        default=[],
        metavar="FIGURE<=NUMBER",
        help="what must be so, such as 'round-trip.p99<=50' (ms), 'delivery.max<500', 'connect.rate>=100'; or more",
    )
    parser.add_argument("--summary", type=Path, help="a file for all figures, as JSON")
    parser.add_argument("--web-port", type=int, default=8089, help="of locust's page; 8089")
    parser.add_argument("--processes", type=int, default=1, help="of locust on this machine; 1")
    parser.add_argument("--host", help="a server that runs already, such as https://example.org:9000")
    parser.add_argument("--tls", action="store_true", help="let the server that is started speak TLS")
    parser.add_argument("--ignore-checks", action="store_true", help="begin even if the machine allows too little")
    add_arguments(parser)
    options, rest = parser.parse_known_args(arguments)
    if options.users < 1 or options.seconds <= 0 or options.processes < 1:
        parser.error("--users, --seconds and --processes must be positive")
    try:
        options.requirements = [Requirement.parse(text) for text in _required(options)]
    except ValueError as error:
        parser.error(str(error))
    return options, rest


def _required(options: argparse.Namespace) -> list[str]:
    if options.scenario == "web":
        return []
    scenario = SCENARIOS[options.scenario]
    websockets = options.users - PAGES * ("PageUser" in scenario.users)
    own = [text.format(websockets=websockets) for text in ("failures<=0", "lost<=0", *scenario.required)]
    given = {re.split("[<>=]", text)[0].strip() for text in options.require}
    return [text for text in own if re.split("[<>=]", text)[0] not in given] + list(options.require)


# --- the server -------------------------------------------------------------------------------------------------------


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _make_certificate(folder: Path) -> tuple[str, str]:
    """Make a certificate for this machine, which nobody else trusts."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*command.split(), *names, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return str(certificate), str(key)


@contextlib.contextmanager
def _serving(options: argparse.Namespace, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Run a server; yields its URL, and locust's options for it.

    :raises RuntimeError: if it does not listen in time.
    """
    port = _free_port()
    command = [sys.executable, "-m", "loadtest.server", "--server", options.server, "--port", str(port)]
    command += ["--workers", str(options.workers), "--ping-interval", str(options.ping_interval)]
    for_locust: list[str] = []
    if options.compression:
        command.append("--compression")
        for_locust.append("--compress")
    if options.tls:
        certificate, key = _make_certificate(folder)
        command += ["--certificate", certificate, "--key", key]
        for_locust += ["--verify", certificate]
    process = subprocess.Popen(command, cwd=HERE.parent, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(START_DEADLINE) or not process.stdout.readline():
                raise RuntimeError("the server does not listen")
        yield f"{'https' if options.tls else 'http'}://127.0.0.1:{port}", for_locust
        if process.poll() is not None:
            raise RuntimeError(f"the server has ended, with status {process.returncode}")
    finally:
        process.terminate()
        try:
            process.wait(STOP_DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            print("The server did not stop when it was asked to", file=sys.stderr)
        process.stdout.close()


# --- locust -----------------------------------------------------------------------------------------------------------


def _locust(options: argparse.Namespace, host: str) -> list[str]:
    command = [sys.executable, "-m", "locust", "-f", str(HERE / "locustfile.py"), "--host", host]
    command += ["--users", str(options.users), "--spawn-rate", str(options.spawn_rate)]
    if options.processes > 1:
        port = str(_free_port())  # several runs on a machine would get into each other's way
        command += ["--processes", str(options.processes), "--master-bind-host", "127.0.0.1"]
        command += ["--master-bind-port", port, "--master-port", port]
    if options.scenario == "web":
        return [*command, "--class-picker", "--web-host", "127.0.0.1", "--web-port", str(options.web_port)]
    scenario = SCENARIOS[options.scenario]
    command += ["--headless", "--only-summary", "--loglevel", "WARNING", "--exit-code-on-error", "0"]
    command += ["--duration", f"{options.seconds:g}", *scenario.options]
    if options.processes > 1:
        command += ["--expect-workers", str(options.processes), "--expect-workers-max-wait", "30"]
    return command + list(scenario.users)


def _call(command: list[str], environment: dict[str, str], log: IO[str] | None) -> int:
    """Run locust, and return its status. What ends this process ends it, too."""
    process = subprocess.Popen(command, env=environment, cwd=HERE.parent, stdout=log, stderr=log)
    try:
        return process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def _complaints(log: Path) -> list[str]:
    """Return what locust has to complain about: workers that it has lost, processors that are too busy."""
    lines = [line.partition("/")[2] for line in log.read_text().splitlines() if re.search("/(WARNING|ERROR)/", line)]
    shown = list(dict.fromkeys(lines))[:10]
    return [f"locust: {line}" for line in shown] + [""] * bool(shown)


def _terminate(*_: object) -> None:
    raise SystemExit(128 + signal.SIGTERM)


def _run(options: argparse.Namespace, rest: list[str], folder: Path, host: str, more: list[str]) -> int:
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    summary = folder / "summary.json"
    command = [*_locust(options, host), *more, "--summary", str(summary), *rest]
    if options.scenario == "web":
        print(f"http://127.0.0.1:{options.web_port}/ puts {host} under load; Ctrl+C ends it", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            return _call(command, environment, None)
        return 0
    output = folder / "locust.log"
    with output.open("w") as log:
        status = _call(command, environment, log)
    if status or not summary.exists():
        print(output.read_text(), f"locust ended with status {status}", sep="\n", file=sys.stderr)
        return 2
    text = summary.read_text()
    if options.summary:
        options.summary.write_text(text)
    words, passed = report.as_text(json.loads(text), options.requirements)
    print(*_complaints(output), sep="\n", end="")
    print(words)
    return 0 if passed else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; returns 0 if all is as required, 1 if not, 2 if there was no run."""
    options, rest = _parse(arguments)
    if find_spec("locust") is None:
        print("locust is not installed: pip install 'ws4py[loadtest]'", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _terminate)
    checks.raise_fd_limit()
    lacks = checks.shortages(
        checks.Machine.read(), options.users, options.processes, options.host or "127.0.0.1", options.host is None
    )
    for lack in lacks:
        print(lack, file=sys.stderr)
    if lacks and not options.ignore_checks:
        return 2
    with tempfile.TemporaryDirectory(prefix="loadtest-") as name:
        folder = Path(name)
        if options.host:
            return _run(options, rest, folder, options.host, ["--compress"] if options.compression else [])
        try:
            with _serving(options, folder) as (host, more):
                return _run(options, rest, folder, host, more)
        except RuntimeError as error:
            print(error, file=sys.stderr)
            return 2


if __name__ == "__main__":
    raise SystemExit(main())

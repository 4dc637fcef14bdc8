"""The load test: each scenario at a small size, and what it makes of a server that fails.

What runs locust needs the package locust, in processes of its own: importing it patches the whole process.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from loadtest.checks import Machine, shortages
from loadtest.report import Requirement, as_text, figures_of
from loadtest.scenarios import SCENARIOS
from loadtest.tally import Tally, merged

ROOT = Path(__file__).parent.parent
PATIENCE = 50

needs_locust = pytest.mark.skipif(importlib.util.find_spec("locust") is None, reason="locust is not installed")

Figures = dict[str, float]


def loadtest(*arguments: str) -> tuple[int, str]:
    """Run the command; return its status, and what it printed."""
    command = [sys.executable, "-m", "loadtest", *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    return result.returncode, result.stdout + result.stderr


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Figures]:
    """Run a scenario that must pass; return its figures."""

    def run(*arguments: str) -> Figures:
        file = tmp_path / "summary.json"
        small = ("--users", "12", "--spawn-rate", "50", "--broadcast-interval", "0.5", "--broadcast-grace", "0.5")
        status, output = loadtest(*arguments, *small, "--summary", str(file))
        assert status == 0, output
        assert output.endswith("passed\n")
        return figures_of(json.loads(file.read_text()))

    return run


@needs_locust
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(scenario: str, run: Callable[..., Figures]) -> None:
    pytest.importorskip("cherrypy", reason="the server is CherryPy")
    seconds = "4" if scenario in ("idle", "mixed", "chat") else "2"
    figures = run(scenario, "--seconds", seconds)
    assert figures["failures"] == figures["lost"] == figures["missed"] == 0
    if scenario in ("idle", "chat"):
        assert figures["delivery.count"] > figures["broadcasts"] > 0
        assert figures["last.max"] > 0
    if scenario == "mixed":
        assert figures["page.count"] > 0
    if scenario == "blocking":
        assert figures["round-trip.min"] >= 10
    if scenario == "churn":
        assert figures["connect.count"] > 12
    assert figures["close.count"] >= 7


@needs_locust
@pytest.mark.parametrize("server", ["cheroot", "gevent"])
def test_other_servers(server: str, run: Callable[..., Figures]) -> None:
    pytest.importorskip("cheroot" if server == "cheroot" else "gevent", reason="the server is not installed")
    run("echo", "--seconds", "2", "--server", server, "--tls", "--compression")


@needs_locust
def test_several_processes(run: Callable[..., Figures]) -> None:
    pytest.importorskip("cherrypy", reason="the server is CherryPy")
    figures = run("idle", "--seconds", "5", "--processes", "2")
    assert figures["peak"] == figures["open"] == 12
    assert figures["broadcasts"] > 0


@needs_locust
def test_threshold_that_is_not_met_fails() -> None:
    pytest.importorskip("cherrypy", reason="the server is CherryPy")
    status, output = loadtest("echo", "--users", "3", "--seconds", "1", "--require", "round-trip.p50<=0.001")
    assert status == 1
    assert "FAIL  round-trip.p50 <= 0.001" in output


@pytest.fixture
def server() -> Iterator[subprocess.Popen[str]]:
    """The server of the scenarios, which says where it listens."""
    pytest.importorskip("cherrypy", reason="the server is CherryPy")
    port = 20000 + os.getpid() % 10000
    process = subprocess.Popen(
        [sys.executable, "-m", "loadtest.server", "--port", str(port)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.url = f"http://{process.stdout.readline().split()[-1]}"  # type: ignore[attr-defined]
    yield process
    process.kill()
    process.communicate()


@needs_locust
def test_lost_websockets_fail(server: Any) -> None:
    command = [sys.executable, "-m", "loadtest", "idle", "--users", "5", "--seconds", "4", "--host", server.url]
    run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ})
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            run.wait(3.0)  # the websockets are open now
        server.send_signal(signal.SIGTERM)
        output, _ = run.communicate(timeout=PATIENCE)
    finally:
        run.kill()
        run.wait()
    assert run.returncode == 1
    assert "WS close: lost: 1001" in output
    assert "FAIL  lost <= 0" in output
    assert server.wait(PATIENCE) == 0


@needs_locust
def test_unknown_requirement() -> None:
    status, output = loadtest("echo", "--require", "nonsense")
    assert status == 2
    assert "is no requirement" in output


# --- without locust ---------------------------------------------------------------------------------------------------

LARGE = Machine(
    fds=1 << 20,
    hard_fds=1 << 20,
    first_port=1024,
    last_port=65535,
    queue=4096,
    system_files=1 << 24,
    tracked=None,
    free_kb=1 << 24,
)


def test_large_machine_lacks_nothing() -> None:
    assert shortages(LARGE, 10000, 1, "http://127.0.0.1:9000", True) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"hard_fds": 1024}, "ulimit -n 10256"),
        ({"first_port": 32768, "last_port": 40000}, "net.ipv4.ip_local_port_range"),
        ({"queue": 128}, "net.core.somaxconn=1024"),
        ({"system_files": 1000}, "fs.file-max=20256"),
        ({"tracked": 1000}, "nf_conntrack_max=20256"),
        ({"free_kb": 1000}, "memory"),
    ],
)
def test_small_machine_is_told_what_to_raise(change: dict[str, int], says: str) -> None:
    found = shortages(dataclasses.replace(LARGE, **change), 10000, 1, "http://127.0.0.1:9000", True)
    assert len(found) == 1
    assert says in found[0]


def test_processes_share_the_users() -> None:
    machine = dataclasses.replace(LARGE, hard_fds=6000)
    assert shortages(machine, 10000, 2, "http://elsewhere", False) == []
    assert len(shortages(machine, 10000, 2, "http://127.0.0.1", True)) == 1  # the server is one process


def test_this_machine_can_be_read() -> None:
    assert Machine.read().fds > 0


@pytest.mark.parametrize(
    ("text", "met"), [("a.p99<=5", True), ("a.p99 < 5", False), ("a.p99>=5", True), ("a.p99>5", False), ("b>0", False)]
)
def test_requirement(text: str, met: bool) -> None:
    assert Requirement.parse(text).is_met({"a.p99": 5.0}) is met


def test_no_requirement() -> None:
    with pytest.raises(ValueError, match="is no requirement"):
        Requirement.parse("a.p99=5")


def test_tallies_are_merged() -> None:
    first, second = Tally(grace=1.0), Tally(grace=1.0)
    for tally in (first, second, second):
        tally.opened()
    first.sent("n", 100.0, 3)
    first.delivered("n", 5.0, 100.0)
    second.delivered("n", 7.0, 100.0)
    second.closed(lost=True)
    total = merged([Tally.from_dict(tally.as_dict()) for tally in (first, second)])
    total.ended_at = 102.0
    assert (total.open, total.peak, total.lost, total.missed) == (2, 3, 1, 1)
    assert total.news["n"].last == 7.0
    total.delivered("n", 1.0, 100.0)
    assert total.missed == 0
    total.ended_at = 100.5  # within the grace
    assert total.judged == []


def test_run_ends_once() -> None:
    tally = Tally()
    tally.opened()
    tally.stopping()
    tally.closed(lost=False)
    tally.stopping()  # locust's workers say it twice
    assert tally.at_end == 1


def test_report() -> None:
    tally = Tally(peak=2, at_end=1, lost=1, ended_at=10.0)
    tally.sent("n", 1.0, 2)
    tally.delivered("n", 4.0, 1.0)
    entry = {"count": 10, "failures": 1, "rate": 2.0, "p50": 1.0, "p90": 2.0, "p99": 3.0, "max": 4.0}
    failures = [{"what": "WS close", "error": "lost: 1006", "count": 1}]
    summary = {"entries": {"round-trip": entry, "none": {"count": 0, "failures": 0, "rate": 0.0}}, "failures": failures}
    requirements = [Requirement.parse("round-trip.p99<=3"), Requirement.parse("missed<=0")]
    text, passed = as_text({**summary, "tally": tally.as_dict()}, requirements)
    assert not passed
    assert "2 peak, 1 open, 1 lost" in text
    assert "1 x WS close: lost: 1006" in text
    assert "pass  round-trip.p99 <= 3  (3)" in text
    assert "FAIL  missed <= 0  (1)" in text
    assert text.endswith("FAILED")
    assert as_text({**summary, "tally": tally.as_dict()}, requirements[:1])[1]

"""The harness itself, without the suite: it reports what goes wrong, in time, and leaves no process behind."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import psutil
import pytest

from . import autobahn, cases, environment
from .autobahn import Report, SuiteError, Verdict
from .targets import TARGETS, expected

# Starts another process, says which, and waits for input that never comes.
WITH_CHILD = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
print(child.pid, flush=True)
child.wait()
"""


def gone(pid: int) -> bool:
    """Wait until a process, which may be no child of ours, has ended."""
    try:
        psutil.Process(pid).wait(10)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return False
    return True


def python(source: str) -> list[str]:
    return [sys.executable, "-c", source]


def test_the_cases_are_those_of_the_suite() -> None:
    assert (len(cases.CORE), len(cases.LIMITS), len(cases.COMPRESSION)) == (247, 54, 216)
    assert len({*cases.CORE, *cases.LIMITS, *cases.COMPRESSION}) == 517
    assert cases.INFORMATIONAL.issubset(cases.CORE)


def test_only_ok_is_good_enough() -> None:
    target = TARGETS[0]
    assert expected(target, "1.1.1") == Verdict("OK", "OK")
    assert {case for case in target.cases if expected(target, case) != Verdict("OK", "OK")} == cases.INFORMATIONAL


def test_a_server_that_ends_is_an_error_with_its_log(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"ended with 3 before it listened[^$]*no port for me"):
        autobahn.run_against_server(python("print('no port for me'); raise SystemExit(3)"), cases.CORE, tmp_path)


def test_a_server_that_never_listens_is_an_error_and_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with (
        pytest.raises(SuiteError, match=r"not listening after 0\.2 s"),
        autobahn.running(python("import signal; signal.pause()"), log) as server,
    ):
        autobahn.wait_until_listening(server, autobahn.free_port(), 0.2)
    assert not psutil.pid_exists(server.process.pid)


def test_what_takes_too_long_is_an_error_and_nothing_of_it_is_left(tmp_path: Path) -> None:
    with (
        pytest.raises(SuiteError, match=r"not ended after 1 s"),
        autobahn.running(python(WITH_CHILD), tmp_path / "log") as parent,
    ):
        autobahn.wait(parent, 1)
    child = int((tmp_path / "log").read_text(encoding="utf-8"))
    assert gone(child)


def test_a_client_that_fails_is_an_error_with_its_log(tmp_path: Path) -> None:
    with (
        pytest.raises(SuiteError, match=r"ended with 1[^$]*it went wrong"),
        autobahn.running(python("raise SystemExit('it went wrong')"), tmp_path / "log") as client,
    ):
        autobahn.wait(client, 20)


def test_no_report_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"the suite wrote no report"):
        Report(tmp_path)


def test_a_report_has_the_verdicts_and_explains_them(tmp_path: Path) -> None:
    index = {"7.3.2": {"behavior": "FAILED", "behaviorClose": "WRONG CODE", "reportfile": "case.json"}}
    case = {
        "description": "Send a close frame with a payload of 1.",
        "expectation": "1002",
        "result": "differs",
        "expected": {"OK": []},
        "received": [],
        "resultClose": "wrong",
        "expectedClose": {"closeCode": [1002]},
        "remoteCloseCode": 1005,
        "remoteCloseReason": None,
        "wasClean": True,
        "wasNotCleanReason": None,
        "wirelog": [["TO", [2, "8100"]], ["RF", [0, ""], 8, True, 0, False, None]],
    }
    (tmp_path / "index.json").write_text(json.dumps({autobahn.NAME: index}), encoding="utf-8")
    (tmp_path / "case.json").write_text(json.dumps(case), encoding="utf-8")
    report = Report(tmp_path)
    assert report.verdicts == {"7.3.2": Verdict("FAILED", "WRONG CODE")}
    assert "close received: (1005, None)" in report.explain("7.3.2")
    assert '"TO"' not in report.explain("7.3.2")


def test_the_environment_is_not_complete_without_its_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_STAMP", tmp_path / "complete")
    assert not environment.is_complete()
    (tmp_path / "complete").write_text("made from other files", encoding="ascii")
    assert not environment.is_complete()

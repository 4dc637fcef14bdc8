"""The negative control: the suite finds what is wrong with programs that are wrong, and nothing else."""

from __future__ import annotations

import pytest

from . import environment
from .autobahn import RUN, Verdict
from .cases import CORE
from .conftest import Run
from .targets import CONTROLS

pytestmark = [
    pytest.mark.compliance,
    pytest.mark.timeout(RUN + 60),
    pytest.mark.skipif(not environment.is_complete(), reason=f"the Autobahn test suite: {environment.SETUP}"),
]

_ALL_INVALID = ("6.3.", "6.4.", "6.8.", "6.10.", *(f"6.{group}." for group in range(12, 22)))
INVALID_UTF8 = {case for case in CORE if case.startswith(_ALL_INVALID)} | {
    *("6.6.1", "6.6.3", "6.6.4", "6.6.6", "6.6.8", "6.6.10", "6.11.5"),
}
"""The cases that send text which is not UTF-8, by the descriptions of the suite."""


@pytest.mark.parametrize("run", CONTROLS, ids=str, indirect=True)
def test_a_program_that_does_not_check_utf8_fails_exactly_where_that_matters(run: Run) -> None:
    if run.report is None:
        pytest.fail(run.error, pytrace=False)
    assert sorted(run.report.verdicts) == sorted(run.cases)
    failed = {case for case, verdict in run.report.verdicts.items() if verdict != Verdict("OK", "OK")}
    assert failed == INVALID_UTF8
    assert {run.report.verdicts[case] for case in failed} == {Verdict("FAILED", "FAILED")}
    assert "UTF-8" in run.report.explain("6.3.1")

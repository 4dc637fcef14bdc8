"""Each case of the Autobahn test suite against each server and client of ws4py."""

from __future__ import annotations

import pytest

from . import environment
from .autobahn import RUN
from .conftest import Run
from .targets import EXEMPTIONS, TARGETS, expected

pytestmark = [
    pytest.mark.compliance,
    pytest.mark.timeout(RUN + 60),  # the first test of a target waits for the whole run
    pytest.mark.skipif(not environment.is_complete(), reason=f"the Autobahn test suite: {environment.SETUP}"),
]


@pytest.mark.parametrize("run", TARGETS, ids=str, indirect=True)
def test_run(run: Run) -> None:
    """The suite ran to its end, and gave a verdict on each case."""
    if run.report is None:
        pytest.fail(run.error, pytrace=False)
    assert sorted(run.report.verdicts) == sorted(run.cases)


@pytest.mark.parametrize(
    ("run", "case"),
    [pytest.param(target, case, id=f"{target}-{case}") for target in TARGETS for case in target.cases],
    indirect=["run"],
)
def test_case(run: Run, case: str) -> None:
    """The case gets the one verdict that is expected."""
    if run.report is None:
        pytest.fail(f"no report: {run.error.splitlines()[0]}; the logs are in {run.folder}", pytrace=False)
    if case not in run.report.verdicts:
        pytest.fail(f"no verdict; the logs are in {run.folder}", pytrace=False)
    got, due = run.report.verdicts[case], expected(run.target, case)
    if got != due:
        pytest.fail(f"{run.target} {case}: {got}, expected {due}\n{run.report.explain(case)}", pytrace=False)


def test_exemptions_are_of_cases_that_are_run() -> None:
    run = {(target.name, case) for target in TARGETS for case in target.cases}
    assert set(EXEMPTIONS) <= run
    assert all(exemption.reason for exemption in EXEMPTIONS.values())

"""Runs the suite once for each target that is asked for, with the cases that are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from .autobahn import Report, SuiteError
from .targets import Target


@dataclass(frozen=True)
class Run:
    """The run of the suite against a target: its report, or why there is none."""

    target: Target
    cases: Sequence[str]
    folder: Path
    report: Report | None
    error: str = ""


@pytest.fixture(scope="session")
def runs() -> dict[Target, Run]:
    """What has been run: pytest may come back to a target after others."""
    return {}


@pytest.fixture
def run(request: pytest.FixtureRequest, runs: dict[Target, Run], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run the suite against the target that is the parameter, once; an error is kept, for a test to show it in full."""
    target: Target = request.param
    if target not in runs:
        cases = _asked_for(request.session, target) or target.cases
        folder = tmp_path_factory.mktemp(target.name)
        try:
            runs[target] = Run(target, cases, folder, target.run(cases, folder))
        except SuiteError as error:
            runs[target] = Run(target, cases, folder, None, str(error))
    return runs[target]


def _asked_for(session: pytest.Session, target: Target) -> list[str]:
    """Return the cases of a target among the tests that are left after ``-k`` and the like, in their order."""
    specs = (getattr(item, "callspec", None) for item in session.items)
    params = (spec.params for spec in specs if spec is not None)
    return [param["case"] for param in params if param.get("run") is target and "case" in param]

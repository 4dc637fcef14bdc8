"""The servers and clients of ws4py that must pass the suite, with the cases that each is run with."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .autobahn import Report, Verdict, run_against_client, run_against_server
from .cases import COMPRESSION, CORE, INFORMATIONAL, LIMITS

_HERE: Final = "tests.compliance"


@dataclass(frozen=True)
class Target:
    """A program under test: a module of this package with its arguments, and how the suite meets it."""

    name: str
    meet: Callable[[Sequence[str], Sequence[str], Path], Report]
    command: tuple[str, ...]
    cases: tuple[str, ...]

    def run(self, cases: Sequence[str], folder: Path) -> Report:
        """Play ``cases``, of this target's or of all there are; logs and reports go to ``folder``."""
        module, *arguments = self.command
        return self.meet([sys.executable, "-m", f"{_HERE}.{module}", *arguments], cases, folder)

    def __str__(self) -> str:
        return self.name


TARGETS: Final = (
    # a target a line
    Target("cherrypy", run_against_server, ("servers.cherrypy_echo",), CORE + LIMITS + COMPRESSION),
    Target("gevent", run_against_server, ("servers.gevent_echo",), CORE),
    Target("threaded-client", run_against_client, ("clients.echo_client", "threaded"), CORE),
    Target("gevent-client", run_against_client, ("clients.echo_client", "gevent"), CORE),
)

_CONTROL: Final = tuple(case for case in CORE if case.startswith(("1.", "6.")))

CONTROLS: Final = (
    Target("broken-server", run_against_server, ("broken_echo", "server"), _CONTROL),
    Target("broken-client", run_against_client, ("broken_echo", "client"), _CONTROL),
)
"""Programs that break one rule: they echo text without looking whether it is UTF-8."""


@dataclass(frozen=True)
class Exemption:
    """A case that a target can't meet in principle: the verdict that it gets instead, and why."""

    verdict: Verdict
    reason: str


EXEMPTIONS: Final[Mapping[tuple[str, str], Exemption]] = {}
"""By (name of the target, case)."""


def expected(target: Target, case: str) -> Verdict:
    """Return the one verdict that a case must get: OK and closed well, but for what is listed by name."""
    if (target.name, case) in EXEMPTIONS:
        return EXEMPTIONS[target.name, case].verdict
    return Verdict("INFORMATIONAL", "INFORMATIONAL") if case in INFORMATIONAL else Verdict("OK", "OK")

"""Run the Autobahn test suite, with fewer messages in its compression cases: ``wstest.py MODE SPEC MESSAGES``.

Runs in the suite's own environment. MODE is ``fuzzingclient`` or ``fuzzingserver``, SPEC the path of its JSON
specification, MESSAGES the most that a case of 12.* or 13.* sends: they send 1,000 as published, which takes minutes.
"""

from __future__ import annotations

import sys

from autobahntestsuite import fuzzing, wstest
from autobahntestsuite.case import Cases


def main() -> None:
    mode, spec, messages = sys.argv[1], sys.argv[2], int(sys.argv[3])
    for case in Cases:
        if case.__name__.startswith(("Case12_", "Case13_")):
            case.COUNT = min(case.COUNT, messages)
    # Nobody reads the HTML, and it takes longer to write than the rest.
    for page in ("createMasterReportHTML", "createAgentCaseReportHTML"):
        setattr(fuzzing.FuzzingFactory, page, lambda *_: None)
    sys.argv[1:] = ["--mode", mode, "--webport", "0", "--spec", spec]
    wstest.run()


if __name__ == "__main__":
    main()

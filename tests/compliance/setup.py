"""Make the environment of the Autobahn test suite: ``python -m tests.compliance.setup [--python PYTHON]``.

The suite is Python 2 code that is translated with lib2to3, so this needs a Python from 3.10 (for Twisted) to 3.12 (for
lib2to3): the running one, or another that is named. Does nothing when the environment is complete; takes about half a
minute otherwise.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from . import environment

OLDEST, NEWEST = (3, 10), (3, 12)


def version_of(python: str) -> tuple[int, int]:
    """Return the version of an interpreter, as (major, minor)."""
    if python == sys.executable:
        return sys.version_info[:2]
    command = [python, "-c", "import sys; print(*sys.version_info[:2])"]
    major, minor = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.split()
    return int(major), int(minor)


def run(*command: str | Path) -> None:
    """Run a command without its output, unless it fails: then show that, and raise SystemExit."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        shown = " ".join(map(str, command))
        raise SystemExit(f"{done.stdout}{done.stderr}\nThis failed with {done.returncode}: {shown}")


def make(python: str) -> None:
    """Make the environment anew; a folder that is something else stays untouched."""
    pip = (environment.PYTHON, "-m", "pip", "--quiet", "install")
    folder = environment.ENVIRONMENT
    if folder.exists():
        if any(folder.iterdir()) and not (folder / "pyvenv.cfg").exists():
            raise SystemExit(f"{folder} holds something else than a virtual environment")
        shutil.rmtree(folder)
    run(python, "-m", "venv", environment.ENVIRONMENT)
    run(*pip, "--no-deps", "--requirement", environment.REQUIREMENTS_SUITE)
    run(*pip, "--requirement", environment.REQUIREMENTS)
    run(environment.PYTHON, "-W", "ignore", environment.PORT)
    run(environment.PYTHON, "-W", "ignore", "-c", "from autobahntestsuite import fuzzing, wstest")
    environment.mark_complete()


def main() -> None:
    parser = argparse.ArgumentParser(prog=environment.SETUP, description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("--python", default=sys.executable, help="the interpreter to use (default: this one)")
    python = parser.parse_args().python
    if environment.is_complete():
        print(f"The Autobahn test suite is set up already, in {environment.ENVIRONMENT}")
        return
    version = version_of(python)
    if not OLDEST <= version <= NEWEST:
        raise SystemExit(
            f"{python} is Python {version[0]}.{version[1]}, but the Autobahn test suite can be set up only with "
            f"Python {OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]} (it is translated with lib2to3). "
            f"Name one: {environment.SETUP} --python python3.11"
        )
    make(python)
    print(f"The Autobahn test suite is set up in {environment.ENVIRONMENT}")


if __name__ == "__main__":
    main()

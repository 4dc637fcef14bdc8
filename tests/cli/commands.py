"""``ws4py serve`` in a process of its own, as the tests start it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from tests.serving import PATIENCE, ROOT


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", **changes}


class Serving:
    """The command, serving, until the end of the block."""

    def __init__(self, directory: Path, *arguments: str, **changes: str) -> None:
        command = [sys.executable, "-m", "ws4py", "serve", *arguments]
        self.process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment(**changes),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        match = re.search(r"(\S+):(\d+)/$", self.line)
        self.port = int(match[2]) if match else 0

    def ask(self, path: str, **headers: str) -> bytes:
        """Return a page.

        :raises HTTPError: if it is none.
        """
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return bytes(answer.read())

    def end(self, number: int = signal.SIGTERM) -> tuple[str, str]:
        """Send a signal, and return what was written to the output and to the error output."""
        self.process.send_signal(number)
        return self.process.communicate(timeout=PATIENCE)

    def __enter__(self) -> Serving:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.process.kill()
        self.process.communicate(timeout=PATIENCE)


def refused(*arguments: str, directory: Path, **changes: str) -> str:
    """Run a command that must fail; return the one line that says why."""
    done = subprocess.run(
        [sys.executable, "-m", "ws4py", "serve", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        cwd=directory,
        env=environment(**changes),
    )
    assert (done.returncode, done.stdout) == (1, ""), done
    assert re.fullmatch(r"ws4py: .*\n", done.stderr), done
    return done.stderr

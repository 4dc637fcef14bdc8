"""Runs a target under atheris, with the corpus of the repository to begin with."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
CORPUS = HERE / "corpus"
FOUND = HERE.parents[1] / ".cache" / "fuzz"

Check = Callable[[bytes], None]


@contextlib.contextmanager
def instrumented(module: str) -> Iterator[None]:
    """Have what is imported inside tell the fuzzer where it goes, if ``module`` is the program that runs."""
    if module != "__main__":
        yield
        return
    import atheris

    with atheris.instrument_imports(include=["ws4py"]):
        yield


def fuzz(name: str, check: Check) -> None:
    """Run a target with the arguments of the command line, and end the process: with 0 if nothing was found."""
    import atheris

    found = FOUND / name
    found.mkdir(parents=True, exist_ok=True)
    arguments = sys.argv[1:]
    if not any(not argument.startswith("-") for argument in arguments):
        arguments += [str(found), str(CORPUS / name)]  # what is new goes to the first
    if not any(argument.startswith("-artifact_prefix=") for argument in arguments):
        arguments.insert(0, f"-artifact_prefix={found}-")
    atheris.Setup([sys.argv[0], *arguments], check)
    atheris.Fuzz()

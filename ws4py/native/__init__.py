"""The parts that are compiled, where they could be: which there are, and which run.

Each does what a module in Python does that is its specification, and none is needed. The C files beside this one need
no Python; the modules in Cython on top of them are thin.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

__all__ = ["Build", "build", "load"]

CHOICES: Final = ("pure", "compiled")
"""What the environment variable ``WS4PY_ENGINE`` may demand."""

FRAMING: Final = "ws4py.native.framing"
ENGINE: Final = "ws4py.engine._wire"

_missing: dict[str, str] = {}  # why, by the module's name


@dataclass(frozen=True)
class Build:
    """What of the package runs compiled, and in which interpreter.

    :ivar engine: pure or compiled: what reads and writes the sockets of a manager; the compiled one only on demand.
    :ivar framing: pure or compiled: what parses, builds and masks frames.
    :ivar reason: why something is pure that could be compiled; "" if nothing is.
    :ivar gil: whether the interpreter has its global lock.
    """

    engine: str
    framing: str
    reason: str
    gil: bool

    def __str__(self) -> str:
        parts = f"{self.engine} engine" if self.engine == self.framing else f"{self.engine} engine, compiled framing"
        reason = f": {self.reason}" if self.reason else ""
        return f"{parts}{reason}; interpreter {'with its lock' if self.gil else 'without a lock'}"


def demanded() -> str | None:
    """Return which of :data:`CHOICES` the environment demands; None if it leaves the choice.

    :raises ImportError: for another word.
    """
    choice = os.environ.get("WS4PY_ENGINE") or None
    if choice not in (None, *CHOICES):
        raise ImportError(f"WS4PY_ENGINE must be one of {', '.join(CHOICES)}, not {choice!r}")
    return choice


@functools.cache
def load(name: str) -> Any:
    """Return a compiled module; None if the one in Python is to be used. What it is once, it is for the process.

    :raises ImportError: if the environment demands the compiled one, and it is not there.
    """
    choice = demanded()
    if choice == "pure":
        _missing[name] = "WS4PY_ENGINE=pure"
        return None
    try:
        module: ModuleType = importlib.import_module(name)
    except ImportError as error:
        absent = isinstance(error, ModuleNotFoundError) and error.name == name
        reason = "it was installed without compiled parts" if absent else str(error)
        if choice is not None:
            raise ImportError(f"WS4PY_ENGINE=compiled demands what is not there: {reason}") from error
        _missing[name] = reason
        return None
    return module


def build() -> Build:
    """Tell what runs in this process."""
    framing = "pure" if load(FRAMING) is None else "compiled"
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    engine = "compiled" if demanded() == "compiled" and load(ENGINE) is not None else "pure"
    return Build(engine, framing, _missing.get(FRAMING, ""), gil)

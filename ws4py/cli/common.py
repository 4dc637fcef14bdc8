"""What several commands have in common."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Final

__all__ = ["broker_url", "fail", "header", "note", "seconds"]

BROKER: Final = "WS4PY_BROKER"
"""The environment variable that has the URL of the broker, which may have a password."""


def broker_url(parser: argparse.ArgumentParser, default: str | None) -> None:
    """Add the option for a broker's URL; its default is in the environment.

    :param default: what is taken if it is not there, either.
    """
    text = f"the URL of a broker, such as redis://localhost/0; by default what {BROKER} says"
    parser.add_argument(
        "--broker", metavar="URL", default=os.environ.get(BROKER) or default, help=f"{text}, or {default or 'none'}"
    )


def header(text: str) -> tuple[str, str]:
    """Parse an argument of the form ``NAME: VALUE``."""
    name, colon, value = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME: VALUE")
    return name.strip(), value.strip()


def seconds(text: str) -> float:
    """Parse an argument that is a time."""
    number = float(text)
    if not 0 <= number < 1e6:
        raise ValueError
    return number


def note(message: str) -> None:
    """Say something that is no output."""
    print(f"ws4py: {message}", file=sys.stderr, flush=True)


def fail(message: str) -> int:
    """Say what is wrong; return the exit status for it."""
    note(message)
    return 1

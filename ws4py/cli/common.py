"""What several commands have in common."""

from __future__ import annotations

import argparse
import sys

__all__ = ["fail", "header", "seconds"]


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


def fail(message: str) -> int:
    """Say what is wrong; return the exit status for it."""
    print(f"ws4py: {message}", file=sys.stderr)
    return 1

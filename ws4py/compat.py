"""The names that programs written for ws4py 0.6 and earlier import from here. Nothing in this package uses them.

They stood for what Python 2 and Python 3 call differently; what they stand for in Python 3 is all that is left.
"""

from __future__ import annotations

import builtins
import sys
from typing import Any, Final
from urllib.parse import urlsplit

__all__ = [
    "basestring",
    "dec",
    "detach_connection",
    "enc",
    "get_connection",
    "ord",
    "py3k",
    "range",
    "sys",
    "unicode",
    "urlsplit",
]

py3k: Final = True
"""Whether this is Python 3."""

range = builtins.range  # noqa: A001 - the name that 0.6 gave it
unicode = str
basestring: Final = (bytes, str)
"""The types of a string, for ``isinstance``."""


def ord(c: int | str | bytes) -> int:  # noqa: A001 - the name that 0.6 gave it
    """Return the number of a character, or of a byte, which may be a number already."""
    return c if isinstance(c, int) else builtins.ord(c)


def enc(b: str, encoding: str = "utf-8") -> bytes:
    """Return a text as bytes."""
    return b.encode(encoding)


def dec(b: bytes, encoding: str = "utf-8") -> str:
    """Return bytes as the text that they are."""
    return b.decode(encoding)


def get_connection(fileobj: Any) -> Any:
    """Return the socket under a buffered file that its ``makefile`` has made."""
    return fileobj.raw._sock


def detach_connection(fileobj: Any) -> None:
    """Part a buffered file from the socket under it, which stays open."""
    fileobj.detach()

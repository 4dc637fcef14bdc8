"""The cases of the suite by name, so that pytest can list them without the suite, and what each must give."""

from __future__ import annotations

from typing import Final

# group: how many cases it has, numbered from 1
# fmt: off
_CORE: Final = {
    "1.1": 8, "1.2": 8, "2": 11, "3": 7, "4.1": 5, "4.2": 5, "5": 20,
    "6.1": 3, "6.2": 4, "6.3": 2, "6.4": 4, "6.5": 5, "6.6": 11, "6.7": 4, "6.8": 2, "6.9": 4, "6.10": 3, "6.11": 5,
    "6.12": 8, "6.13": 5, "6.14": 10, "6.15": 1, "6.16": 3, "6.17": 5, "6.18": 5, "6.19": 5, "6.20": 7, "6.21": 8,
    "6.22": 34, "6.23": 7,
    "7.1": 6, "7.3": 6, "7.5": 1, "7.7": 13, "7.9": 9, "7.13": 2, "10.1": 1,
}
# fmt: on
_LIMITS: Final = {"9.1": 6, "9.2": 6, "9.3": 9, "9.4": 9, "9.5": 6, "9.6": 6, "9.7": 6, "9.8": 6}
_COMPRESSION: Final = {
    **{f"12.{n}": 18 for n in range(1, 6)},
    **{f"13.{n}": 18 for n in range(1, 8)},
}


def _names(groups: dict[str, int]) -> tuple[str, ...]:
    return tuple(f"{group}.{number}" for group, size in groups.items() for number in range(1, size + 1))


CORE: Final = _names(_CORE)
"""Framing, ping and pong, fragments, UTF-8, closing: 247 cases."""

LIMITS: Final = _names(_LIMITS)
"""Messages of up to 16 MiB, up to 65,536 fragments, and many small messages: 54 cases."""

COMPRESSION: Final = _names(_COMPRESSION)
"""permessage-deflate with its parameters: 216 cases."""

COMPRESSION_MESSAGES: Final = 50
"""How many messages a case of COMPRESSION sends; 1,000 as published."""

INFORMATIONAL: Final = frozenset({"7.1.6", "7.13.1", "7.13.2"})
"""The cases that the suite runs without judging: their verdict is INFORMATIONAL, never OK."""

"""What a peer has chosen, made fit for logs, pages, terminals and the labels of metrics: printable, short and few."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from http import HTTPStatus
from ipaddress import IPv4Address, ip_address
from typing import Any, Final

__all__ = [
    "LONGEST_TEXT",
    "Address",
    "address_of",
    "code_label",
    "packed_address",
    "path_of",
    "printable",
    "short_address",
    "status_label",
    "unpacked_address",
]

Address = tuple[Any, ...] | str | bytes
"""Of a socket."""

LONGEST_TEXT: Final = 256
"""How many characters of a peer's text are shown."""

_LONGEST_CACHED: Final = 64
"""Characters of an address."""

_IPV4: Final = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){3}")
_WITH_PORT: Final = re.compile(r"(?:\[([^\]]*)\]|([^:]*))(?::[0-9]{1,5})?")
_STATUSES: Final = frozenset(map(int, HTTPStatus))


def printable(text: str) -> str:
    """Return a text that stays on its line and commands no terminal.

    Controls, line separators, what turns the direction of writing, and lone surrogates become "?"; what is longer than
    :data:`LONGEST_TEXT` is cut.
    """
    text = text[:LONGEST_TEXT]
    return text if text.isprintable() else "".join(letter if letter.isprintable() else "?" for letter in text)


def path_of(environ: Mapping[str, Any]) -> str:
    """Return the path of a WSGI environ's request as a :func:`printable` text, "" if it has none."""
    path: str = (environ.get("SCRIPT_NAME") or "") + (environ.get("PATH_INFO") or "")  # the one object if one is empty
    if not path.isascii():
        path = path.encode("latin-1", "replace").decode("utf-8", "replace")
    return printable(path)


def address_of(word: str) -> str | None:
    """Return the IP address that a word is, None if it is none.

    It may have a port, and be in brackets, as proxies write it. One address is one text, however it was written: IPv6
    is in its short form and without a zone, and IPv4 inside IPv6 is IPv4.
    """
    return _address_of(word) if len(word) <= _LONGEST_CACHED else _address_of.__wrapped__(word)


@functools.lru_cache(maxsize=1024)
def _address_of(word: str) -> str | None:
    """See :func:`address_of`; each client's address is looked at several times in a handshake."""
    word = word.strip()
    if match := _WITH_PORT.fullmatch(word):
        word = match[1] or match[2] or ""
    try:
        address = ip_address(word)
    except ValueError:
        return None
    # A zone is any text: ipaddress takes "fe80::1%<script>" for an address.
    return str(getattr(address, "ipv4_mapped", None) or address).partition("%")[0]


def code_label(code: int) -> int | str:
    """Return under what a close code is counted: "3xxx" and "4xxx" are all those of which a peer may choose any."""
    return code if code < 3000 else f"{code // 1000}xxx"


def status_label(status: int) -> int | str:
    """Return under what an HTTP status is counted: one that has no name is counted with its class, as "4xx"."""
    return status if status in _STATUSES else f"{status // 100}xx"


def short_address(address: Address) -> Address:
    """Reduce the address of a socket to (host, port), over IPv6 too. That of a unix socket stays what it is."""
    return address[:2] if isinstance(address, tuple) else address


def packed_address(address: Address) -> Address | int:
    """Return the (host, port) of an IPv4 socket as one number, in a quarter of the memory; others as they are."""
    match address:
        case (str(host), int(port)) if _IPV4.fullmatch(host):
            return int(IPv4Address(host)) << 16 | port
    return address


def unpacked_address(packed: Address | int) -> Address:
    """Return the address that was packed."""
    return (str(IPv4Address(packed >> 16)), packed & 0xFFFF) if isinstance(packed, int) else packed

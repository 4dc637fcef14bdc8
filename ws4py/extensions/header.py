"""The header Sec-WebSocket-Extensions (RFC 6455, section 9.1)."""

from __future__ import annotations

import re
from typing import Final

from ws4py.extensions import Parameters

__all__ = ["format_extension", "parse_extensions"]

_WORD: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_SPACE: Final = r"[ \t]*"
_NAME: Final = re.compile(rf"{_SPACE}({_WORD}){_SPACE}")
_PARAMETER: Final = re.compile(rf';{_SPACE}({_WORD}){_SPACE}(?:={_SPACE}(?:({_WORD})|"((?:[^"\\]|\\.)*)"){_SPACE})?')
_EMPTY: Final = re.compile(rf"{_SPACE}(?=,|$)")
_WHOLE_WORD: Final = re.compile(_WORD)
_ESCAPE: Final = re.compile(r"\\(.)")


def parse_extensions(value: str) -> list[tuple[str, Parameters]]:
    """Read the header.

    :param value: of the header; of several, joined by commas.
    :returns: the extensions in their order, (name, parameters) each; a quoted value comes without its quotes.
    :raises ValueError: if it does not keep to the grammar.
    """
    extensions: list[tuple[str, Parameters]] = []
    position = 0
    while position <= len(value):
        # Empty elements of a list are allowed, and mean nothing (RFC 9110, section 5.6.1).
        found = _EMPTY.match(value, position)
        if found is None:
            found = _NAME.match(value, position)
            if found is None:
                raise ValueError("Header Sec-WebSocket-Extensions is malformed")
            name = found[1]
            parameters: list[tuple[str, str | None]] = []
            while (parameter := _PARAMETER.match(value, found.end())) is not None:
                parameters.append((parameter[1], _value(parameter[2], parameter[3])))
                found = parameter
            extensions.append((name, tuple(parameters)))
        position = found.end()
        if value[position : position + 1] not in ("", ","):
            raise ValueError("Header Sec-WebSocket-Extensions is malformed")
        position += 1
    return extensions


def _value(token: str | None, quoted: str | None) -> str | None:
    """Return a parameter's value; what is quoted must be a token, too."""
    if quoted is None:
        return token
    text = _ESCAPE.sub(r"\1", quoted)
    if not _WHOLE_WORD.fullmatch(text):
        raise ValueError("Header Sec-WebSocket-Extensions is malformed: a quoted value must be a token")
    return text


def format_extension(name: str, parameters: Parameters) -> str:
    """Return one element of the header."""
    return "; ".join([name, *(key if value is None else f"{key}={value}" for key, value in parameters)])

"""Words that a peer has chosen, made fit to be shown and counted."""

from __future__ import annotations

from typing import Any

import pytest

from ws4py.labels import (
    LONGEST_TEXT,
    address_of,
    code_label,
    packed_address,
    path_of,
    printable,
    status_label,
    unpacked_address,
)

CONTROLS = [*map(chr, range(32)), *map(chr, range(127, 160))]
LINES = ["\u2028", "\u2029"]
DIRECTIONS = [*"\u061c\u200e\u200f", *map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))]


@pytest.mark.parametrize("letter", CONTROLS + LINES + DIRECTIONS + ["\ufeff", "\ud800"])
def test_what_commands_a_terminal_is_left_out(letter: str) -> None:
    assert printable(f"a{letter}b c") == "a?b c"


def test_what_people_write_stays() -> None:
    for text in ("", "/ws?x=1", "Grüße, \N{SNOWMAN} Привет \N{HEBREW LETTER ALEF}", "<&>'\""):
        assert printable(text) == text


def test_a_text_has_an_end() -> None:
    assert printable("x" * 100_000) == "x" * LONGEST_TEXT


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        ({}, ""),
        ({"PATH_INFO": "/ws"}, "/ws"),
        ({"SCRIPT_NAME": "/app", "PATH_INFO": "/ws"}, "/app/ws"),
        ({"SCRIPT_NAME": "/app"}, "/app"),
        ({"PATH_INFO": "/\N{SNOWMAN}".encode().decode("latin-1")}, "/\N{SNOWMAN}"),
        ({"PATH_INFO": "/\u2028".encode().decode("latin-1")}, "/?"),
        ({"PATH_INFO": "/" + "x" * 1000}, "/" + "x" * 255),
        ({"PATH_INFO": "/a\nINFO all is well\x1b[2J"}, "/a?INFO all is well?[2J"),
        ({"PATH_INFO": None}, ""),
    ],
)
def test_paths(environ: dict[str, Any], path: str) -> None:
    assert path_of(environ) == path


@pytest.mark.parametrize(
    ("word", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        (" 192.0.2.7 ", "192.0.2.7"),
        ("192.0.2.7:4711", "192.0.2.7"),
        ("2001:db8::7", "2001:db8::7"),
        ("2001:DB8:0:0:0:0:0:7", "2001:db8::7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("[2001:db8::7]:4711", "2001:db8::7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::1"),
        ("fe80::1%<script>", "fe80::1"),
        ("fe80::1%<script>alert(1)</script>", None),
        ("[fe80::1%\n]:80", "fe80::1"),
        ("", None),
        ("unknown", None),
        ("_hidden", None),
        ("<script>", None),
        ("192.0.2.7<script>", None),
        ("192.0.2.7:port", None),
        ("192.0.2.7, 192.0.2.8", None),
        ("192.0.2.07", None),
        ("192.0.2.256", None),
        ("[192.0.2.7", None),
        ("[::1]x", None),
        ("1234", None),
        ("\N{ARABIC-INDIC DIGIT ONE}92.0.2.7", None),
    ],
)
def test_an_address_is_what_ipaddress_takes_for_one(word: str, address: str | None) -> None:
    assert address_of(word) == address


def test_labels_are_few() -> None:
    assert [code_label(code) for code in (1000, 1014, 2999)] == [1000, 1014, 2999]
    assert {code_label(code) for code in range(3000, 5000)} == {"3xxx", "4xxx"}
    assert [status_label(status) for status in (400, 429, 503)] == [400, 429, 503]
    assert {status_label(status) for status in range(100, 1000)} >= {"4xx", "5xx", "9xx"}
    assert len({status_label(status) for status in range(1000)}) < 80


@pytest.mark.parametrize(
    "address",
    [
        ("192.0.2.7", 65535),
        ("0.0.0.0", 0),
        ("::1", 80),
        (3, 1024),
        "/run/socket",
        b"\0abstract",
        "",
        ("192.0.2.7", 1, 2),
    ],
)
def test_a_packed_address_is_what_it_was(address: Any) -> None:
    assert unpacked_address(packed_address(address)) == address

"""Whose request it is that a proxy passes on."""

from __future__ import annotations

import pytest

from ws4py.server.forwarded import TrustedProxies


@pytest.mark.parametrize(
    ("names", "peer", "header", "client"),
    [
        ((), "10.0.0.1", "203.0.113.7", "10.0.0.1"),
        ((), None, "203.0.113.7", None),
        (("10.0.0.1",), "10.0.0.1", None, "10.0.0.1"),
        (("10.0.0.1",), "10.0.0.1", "203.0.113.7", "203.0.113.7"),
        ("10.0.0.1", "10.0.0.1", "203.0.113.7", "203.0.113.7"),
        (("10.0.0.1",), "10.0.0.2", "203.0.113.7", "10.0.0.2"),
        (("10.0.0.1",), "10.0.0.1", "1.2.3.4, 203.0.113.7", "203.0.113.7"),  # the first one is the client's own word
        (("10.0.0.0/8",), "10.0.0.1", "1.2.3.4, 203.0.113.7,10.9.9.9", "203.0.113.7"),
        (("10.0.0.0/8",), "10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),  # from inside
        (("10.0.0.0/8",), "10.0.0.1", "1.2.3.4, nonsense", "10.0.0.1"),
        (("10.0.0.0/8",), "10.0.0.1", "", "10.0.0.1"),
        (("unix",), None, "1.2.3.4, 203.0.113.7", "203.0.113.7"),
        (("unix", "203.0.113.0/24"), None, "1.2.3.4, 203.0.113.7", "1.2.3.4"),
        (("unix",), "10.0.0.1", "203.0.113.7", "10.0.0.1"),
        (("::1",), "::1", "[2001:db8::1]:443", "2001:db8::1"),
        (("127.0.0.1",), "::ffff:127.0.0.1", "2001:db8::1", "2001:db8::1"),
    ],
)
def test_the_client(names: tuple[str, ...], peer: str | None, header: str | None, client: str | None) -> None:
    assert TrustedProxies(names).client(peer, header) == client


@pytest.mark.parametrize("name", ["", "proxy.example.org", "10.0.0.1/8"])
def test_what_is_no_address(name: str) -> None:
    with pytest.raises(ValueError, match=r"address|network|host bits"):
        TrustedProxies([name])

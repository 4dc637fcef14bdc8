"""Where redirections lead a client, and what is told there."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from tests.client_servers import Scripted, answer, read_request
from tests.helpers import Certificates, Peer
from ws4py.client import WebSocketBaseClient
from ws4py.exc import HandshakeError


class Client(WebSocketBaseClient):
    """Connects directly, whatever the environment says."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{"proxy": None} | options)


class Place:
    """A script of a server: it keeps the requests, and sends each to the next of some locations, or accepts it."""

    def __init__(self, *locations: str, lines: tuple[str, ...] = ()) -> None:
        self.locations = list(locations)
        self.requests: list[dict[str, str]] = []
        self.certificates: list[object] = []
        self._lines = lines

    def __call__(self, sock: socket.socket) -> None:
        request = read_request(sock)
        self.requests.append(request)
        if isinstance(sock, ssl.SSLSocket):
            self.certificates.append(sock.getpeercert())
        if self.locations:
            sock.sendall(f"HTTP/1.1 307 Elsewhere\r\nLocation: {self.locations.pop(0)}\r\n\r\n".encode())
            return
        sock.sendall(answer(request, *self._lines))
        Peer(sock, masking=False).say_goodbye()


COMMON = {"", "host", "origin", "connection", "upgrade", "sec-websocket-key", "sec-websocket-version"}


class TellingClient(Client):
    """Adds a header in the other way that there is."""

    @property
    def handshake_headers(self) -> list[tuple[str, str]]:
        return [*super().handshake_headers, ("X-Token", "secret")]


def test_another_place_is_told_nothing_of_the_user() -> None:
    there = Place()
    with Scripted(there) as second:
        here = Place("/again", second.url + "x")
        with Scripted(here) as first:
            url = first.url.replace("//", "//me:secret@")
            headers = {"Cookie": "c=secret", "X-Api-Key": "secret", "Host": "secret", "Authorized": "secret"}
            client = TellingClient(url, ["token.secret"], headers=headers, compression=True)
            with client:
                assert client.receive() is None
                assert client.protocols == []
    private = {"authorization", "cookie", "x-api-key", "x-token", "authorized", "sec-websocket-protocol"}
    assert all(private <= set(request) for request in here.requests), "the same place may know"
    (told,) = there.requests
    assert set(told) == COMMON | {"sec-websocket-extensions"}
    assert "secret" not in str(told)
    assert told[""] == "GET /x HTTP/1.1"
    assert told["host"] == f"127.0.0.1:{second.port}"
    assert (client.url, client.port) == (url, first.port)
    assert ("Cookie", "c=secret") in client.handshake_headers


def test_nobody_leads_back_with_the_users_headers() -> None:
    """What a server says about another one is not what the user says."""
    there = Place()
    with Scripted(there) as second:
        here = Place(second.url)
        with Scripted(here) as first:
            there.locations.append(first.url + "delete")
            with Client(first.url.replace("//", "//me:secret@"), headers={"Cookie": "c=1", "X-Mine": "1"}) as client:
                assert client.receive() is None
    assert len(here.requests) == 2
    assert set(here.requests[1]) == COMMON


def test_another_place_may_not_choose_what_it_was_not_offered() -> None:
    with Scripted(Place(lines=("Sec-WebSocket-Protocol: chat",))) as second, Scripted(Place(second.url)) as first:
        with pytest.raises(HandshakeError, match="not offered"):
            Client(first.url, ["chat"]).connect()
        client = Client(second.url, ["chat"])
        with client:
            assert client.protocols == [b"chat"]


def test_redirections_come_to_an_end() -> None:
    with Scripted(Place(*["/again"] * 9)) as server:
        with pytest.raises(HandshakeError, match="over 3 times"):
            Client(server.url, max_redirects=3).connect()
        assert server.connections == 4
        with pytest.raises(HandshakeError, match="307 Elsewhere"):
            Client(server.url, max_redirects=0).connect()
        assert server.connections == 5


@pytest.mark.parametrize(
    "location",
    [
        *("http://[", "http://[::1/x", "//[bad", "ws://a..b/", f"http://{'a' * 70}.test/", f"ws://{'a.' * 200}b/"),
        *(
            "http://h:x/",
            "http://h:70000/",
            "ftp://h/",
            "ws://\xe2\x84\x80/",
            "ws://u:s3cret@:1/",
            "javascript:alert(1)",
        ),
        f"x://u:s3cret@{'y' * 9000}",
    ],
    ids=lambda location: location[:30],
)
def test_a_bad_location_is_a_refusal(location: str) -> None:
    with Scripted(Place(location)) as server, pytest.raises(HandshakeError) as refusal:
        Client(server.url, max_redirects=1).connect()
    assert "s3cret" not in str(refusal.value)
    assert len(str(refusal.value)) < 400


def test_the_clients_certificate_is_for_the_users_host_only(tmp_path: Path) -> None:
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_OPTIONAL
    trusted, own = str(tmp_path / "ca.pem"), str(tmp_path / "own.pem")
    authority.cert_pem.write_to_path(trusted)
    authority.issue_cert("me@client.test").private_key_and_cert_chain_pem.write_to_path(own)

    there = Place()
    with Scripted(there, context) as second:
        here = Place("/again", second.url)
        with Scripted(here, context) as first:
            with Client(first.url, ssl_options={"ca_certs": trusted, "certfile": own}) as client:
                assert client.receive() is None
            assert all(here.certificates)
            assert not any(there.certificates)

            here.locations.append(second.url)
            mine = ssl.create_default_context(cafile=trusted)
            mine.load_cert_chain(own)
            with pytest.raises(HandshakeError, match="ssl_context"):
                Client(first.url, ssl_context=mine).connect()
    assert len(there.requests) == 1, "what a context holds can't be known"


def test_another_host_has_a_name_of_its_own(certificates: Certificates, tmp_path: Path) -> None:
    """A name that the user has given for the first host verifies no other one."""
    trusted = tmp_path / "ca.pem"
    trusted.write_text("".join(map(ssl.DER_cert_to_PEM_cert, certificates.client.get_ca_certs(binary_form=True))))
    options = {"ca_certs": str(trusted), "server_hostname": "localhost"}
    there = Place()
    with Scripted(there, certificates.server) as second:
        url = second.url.replace("localhost", "127.0.0.1")
        with Scripted(Place(url), certificates.server) as first, pytest.raises(ssl.SSLCertVerificationError):
            Client(first.url.replace("localhost", "127.0.0.1"), ssl_options=options).connect()
    assert not there.requests

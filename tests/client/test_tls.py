"""TLS of the clients: verified, and used by several threads."""

from __future__ import annotations

import ssl
import threading

import pytest

from tests.client.test_threaded import Client, connected, serving
from tests.client_servers import foreign_server
from tests.helpers import PATIENCE, Certificates, Peer, quiet, start_thread
from ws4py.client import WebSocketBaseClient


def test_tls_from_many_threads(certificates: Certificates) -> None:
    """A TLS object that two threads use at once breaks; and what it has decrypted already is not forgotten."""
    count, senders = 200, 4
    with foreign_server(certificates.server) as url:
        client = Client(url, ssl_context=certificates.client)
        seen = threading.Semaphore(0)
        client.on_message = lambda message: seen.release()
        client.connect()

        def send() -> None:
            for number in range(count):
                client.send(bytes([number % 256]) * (number * 100), binary=True)

        tasks = [start_thread(send) for _ in range(senders)]
        for task in tasks:
            task.result()
        for _ in range(senders * count):
            assert seen.acquire(timeout=PATIENCE)
        client.close()
        client.wait()
        sizes = sorted(len(event[1]) for event in client.events if event[0] == "message")
    assert sizes == sorted(n * 100 for n in range(count) for _ in range(senders))


def test_messages_in_one_tls_record_all_arrive(certificates: Certificates) -> None:
    def script(peer: Peer) -> None:
        peer.send(*[peer.text(str(number)) for number in range(5)])
        assert peer.receive_close() == (1000, "")
        peer.send(peer.goodbye())

    with serving(script, context=certificates.server) as server:
        client = Client(server.url, ssl_context=certificates.client)
        client.on_message = lambda message: client.close() if message.data == b"4" else None
        client.connect()
        assert len([event for event in client.events if event[0] == "message"] or client.wait()) > 0
        assert [event[1] for event in client.wait() if event[0] == "message"] == [b"0", b"1", b"2", b"3", b"4"]


def test_tls_is_verified_unless_it_is_not_to_be(certificates: Certificates) -> None:
    with foreign_server(certificates.server) as url:
        with pytest.raises(ssl.SSLCertVerificationError):
            Client(url).connect()
        with pytest.raises(ssl.SSLCertVerificationError):
            Client(url.replace("localhost", "127.0.0.1"), ssl_context=certificates.client).connect()
        with quiet() as records:
            client = connected(url, ssl_options={"cert_reqs": ssl.CERT_NONE})
            client.close()
            client.wait()
        assert any("not verified" in record.getMessage() for record in records)


def test_the_servers_name_is_told(certificates: Certificates) -> None:
    names: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificates._certificate.configure_cert(context)
    context.sni_callback = lambda sock, name, context: names.append(name)
    with foreign_server(context) as url:
        with WebSocketBaseClient(url, ssl_context=certificates.client, proxy=None):
            pass
        address = url.replace("localhost", "127.0.0.1")
        options = {"server_hostname": "localhost"}
        with WebSocketBaseClient(address, ssl_context=certificates.client, ssl_options=options, proxy=None):
            pass
    assert names == ["localhost", "localhost"]

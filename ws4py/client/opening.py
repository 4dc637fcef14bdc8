"""The opening of a client's connection: dialling, the request, the answer, and where that leads."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from ws4py.client.network import Deadline, Network, UnconnectedSocket, read_head
from ws4py.client.proxy import choose_proxy, connect_through
from ws4py.client.tls import make_context
from ws4py.client.url import redirected
from ws4py.exc import HandshakeError
from ws4py.handshake import Response, build_request
from ws4py.labels import printable

__all__ = ["DialOptions", "Dialer", "Opening", "offered_protocols"]

logger = logging.getLogger("ws4py")

REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
# What says where a client is to connect, and what it says there.
POINTERS: Final = ("scheme", "host", "port", "resource", "unix_socket_path", "extra_headers", "_client_login")
# What a redirection to another scheme, host or port may be asked with: what every client sends. All else is the user's,
# and may be a secret: a cookie, a key of an API, a token in the place of a subprotocol.
PUBLIC_HEADERS: Final = frozenset(
    {
        "connection",
        "host",
        "origin",
        "sec-websocket-extensions",
        "sec-websocket-key",
        "sec-websocket-version",
        "upgrade",
    }
)
# The ssl_options that are for the host that the user has named: who the client is there, and what that host is called.
PRIVATE_OPTIONS: Final = frozenset({"certfile", "keyfile", "password", "server_hostname"})


@dataclass(frozen=True)
class DialOptions:
    """How a client connects; see the arguments of :class:`~ws4py.client.WebSocketBaseClient`."""

    connect_timeout: float | None
    handshake_timeout: float | None
    proxy: str | bool | None
    max_redirects: int


class Dialer(Protocol):
    """The client, as an opening of its connection sees it. :class:`~ws4py.client.WebSocketBaseClient` has the words."""

    scheme: str
    host: str
    port: int | None
    resource: str
    unix_socket_path: str | None
    extra_headers: list[tuple[str, str]]
    ssl_context: Any
    ssl_options: dict[str, Any]
    _client_login: str | None
    _client_offered: list[str] | None

    @property
    def handshake_headers(self) -> list[tuple[str, str]]: ...

    @property
    def handshake_request(self) -> bytes: ...

    def _point_to(self, url: str) -> None: ...


class Opening:
    """One attempt to open a client's connection.

    :param client: whose attributes say where to, and who makes the request.
    :param network: to connect with.
    :param options: how to.
    :param settings: what was set on the socket before there was one.
    """

    def __init__(self, client: Dialer, network: Network, options: DialOptions, settings: UnconnectedSocket) -> None:
        self._client = client
        self._network = network
        self._options = options
        self._settings = settings
        self._elsewhere = False  # redirected to another scheme, host or port, from where nothing leads back

    def open(self) -> tuple[Any, bytes, Response, bytes]:
        """Connect and send the request, again where redirections lead.

        :returns: the socket, the head of the answer, its meaning, and the bytes that came after it.
        :raises HandshakeError: if no whole head of an answer came, or a proxy or a redirection does not lead to one.
        :raises OSError: if the connection, or TLS, failed.
        """
        client = self._client
        asked = {name: getattr(client, name) for name in POINTERS}
        try:
            for _ in range(self._options.max_redirects + 1):
                sock = self._dial()
                try:
                    head, response, rest = self._ask(sock)
                except BaseException:
                    sock.close()
                    raise
                location = response.get_all("location")
                if response.status not in REDIRECTS or not location or not self._options.max_redirects:
                    return sock, head, response, rest
                sock.close()
                self._follow(location[0])
            raise HandshakeError(f"Redirected over {self._options.max_redirects} times", response.status)
        finally:
            for name, value in asked.items():
                setattr(client, name, value)

    def _dial(self) -> Any:
        client, network = self._client, self._network
        deadline = Deadline(self._timeout(self._options.connect_timeout))
        prepare = self._settings.apply
        if client.unix_socket_path is not None:
            sock = network.connect_unix(client.unix_socket_path, deadline, prepare)
        else:
            port = client.port or 0
            try:
                proxy = choose_proxy(client.scheme, client.host, port, self._options.proxy)
            except ValueError as error:
                raise HandshakeError(f"The proxy can't be used: {error}") from error
            if proxy is None:
                sock = network.connect_tcp(client.host, port, deadline, prepare)
            else:
                sock = connect_through(network, proxy, client.host, port, deadline, prepare)
        if not client.scheme.startswith("wss"):
            return sock
        try:
            context, hostname = self._tls()
        except BaseException:
            sock.close()
            raise
        return network.start_tls(sock, context, hostname, deadline)

    def _tls(self) -> tuple[Any, str]:
        """Return the context for TLS, and the name that the certificate must have."""
        client, options = self._client, self._client.ssl_options
        if self._elsewhere:
            options = {name: value for name, value in options.items() if name not in PRIVATE_OPTIONS}
        return client.ssl_context or make_context(options), options.get("server_hostname") or client.host

    def _timeout(self, default: float | None) -> float | None:
        own = self._settings.gettimeout()
        return default if own is None else own

    def _ask(self, sock: Any) -> tuple[bytes, Response, bytes]:
        deadline = Deadline(self._timeout(self._options.handshake_timeout))
        client, headers = self._client, self._client.handshake_headers
        if self._elsewhere:
            headers = [item for item in headers if item[0].lower() in PUBLIC_HEADERS]
            request = build_request(client.resource, headers)
        else:
            request = client.handshake_request
        client._client_offered = offered_protocols(headers)
        try:
            sock.settimeout(deadline.remaining())
            sock.sendall(request)
        except OSError as error:
            raise HandshakeError(f"The server broke the connection: {error}") from error
        return read_head(sock, deadline)

    def _follow(self, location: str) -> None:
        """Let the client's attributes point to where a redirection leads."""
        client = self._client
        before = (client.scheme, client.host, client.port)
        if client.unix_socket_path is not None:
            if not location.startswith("/") or location.startswith("//"):
                raise HandshakeError(f"Redirected from a unix socket to {printable(location)!r}")
            client.resource = location.partition("#")[0]
            return
        url = redirected(client.scheme, client.host, client.port, client.resource, location)
        login = client._client_login
        try:
            client._point_to(url)
        except ValueError as error:
            raise HandshakeError(f"Redirected to what is no websocket: {printable(str(error))}") from None
        if (client.scheme, client.host, client.port) == before:
            client._client_login = client._client_login or login
        else:
            self._elsewhere = True
            client.extra_headers = []
            if client.ssl_context is not None and client.scheme == "wss":
                raise HandshakeError(
                    f"Redirected to {client.host} port {client.port}, which is not told what ssl_context may hold: a "
                    "certificate of the client, perhaps"
                )
        logger.debug("Redirected to %s port %s", client.host, client.port)


def offered_protocols(headers: Iterable[tuple[str, str]]) -> list[str]:
    """Return the subprotocols that the headers of a request offer."""
    values = [value for name, value in headers if name.lower() == "sec-websocket-protocol"]
    return [token.strip() for value in values for token in value.split(",") if token.strip()]

"""Proxies: which one to use, and the way through it (RFC 9110, section 9.3.6, for HTTP; SOCKS by python-socks)."""

from __future__ import annotations

import base64
import ipaddress
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, unquote

from ws4py.client.network import Deadline, Network, read_head
from ws4py.client.url import host_and_port, host_header, split_url
from ws4py.exc import HandshakeError

__all__ = ["Proxy", "choose_proxy", "connect_through"]

DEFAULT_PORTS: Final = {"http": 8080, "socks4": 1080, "socks4a": 1080, "socks5": 1080, "socks5h": 1080}


@dataclass(frozen=True)
class Proxy:
    """Where a proxy is, and how it is spoken to: http, socks4, socks4a, socks5 or socks5h."""

    scheme: str
    host: str
    port: int
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> Proxy:
        """Read a proxy's URL, such as ``http://user:password@proxy:3128``; without a scheme it is an HTTP proxy.

        :raises ValueError: if it is none.
        """
        try:
            parts = split_url(url if "://" in url else f"http://{url}")
            host, port = host_and_port(parts)
        except ValueError as error:
            raise ValueError(f"The proxy's URL is none: {error}") from None
        if parts.scheme not in DEFAULT_PORTS:
            raise ValueError(f"A proxy is one of {', '.join(DEFAULT_PORTS)}, not {parts.scheme}")
        if not host:
            raise ValueError("The proxy's URL names no host")
        username = None if parts.username is None else unquote(parts.username)
        password = None if parts.password is None else unquote(parts.password)
        return cls(parts.scheme, host, port or DEFAULT_PORTS[parts.scheme], username, password)


def choose_proxy(scheme: str, host: str, port: int, proxy: str | bool | None) -> Proxy | None:
    """Return the proxy for a host, None for a direct connection.

    :param proxy: a URL; None or False for a direct connection; True for what the environment says: ``https_proxy`` for
        wss, ``http_proxy`` for ws, else ``all_proxy``, but for the hosts of ``no_proxy`` and this machine.
    :raises ValueError: for a URL that is none.
    """
    if isinstance(proxy, str):
        return Proxy.parse(proxy)
    if not proxy or _is_here(host):
        return None
    proxies = urllib.request.getproxies()
    names = ("wss", "https", "all") if scheme == "wss" else ("ws", "http", "all")
    url = next((proxies[name] for name in names if proxies.get(name)), None)
    if url is None or urllib.request.proxy_bypass(f"{host}:{port}"):
        return None
    return Proxy.parse(url)


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def connect_through(
    network: Network, proxy: Proxy, host: str, port: int, deadline: Deadline, prepare: Callable[[Any], None]
) -> Any:
    """Return a socket that is connected to ``host`` by way of a proxy; see
    :meth:`~ws4py.client.network.Network.connect_tcp`.

    :raises HandshakeError: if the proxy refuses, or does not do what a proxy does.
    :raises OSError: if it can't be reached.
    """
    if proxy.scheme != "http":
        return _connect_socks(network, proxy, host, port, deadline, prepare)
    sock = network.connect_tcp(proxy.host, proxy.port, deadline, prepare)
    try:
        address = host_header("", host, port)
        head = f"CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n"
        if proxy.username is not None:
            head += f"Proxy-Authorization: {basic(proxy.username, proxy.password)}\r\n"
        try:
            sock.sendall(f"{head}\r\n".encode())
        except OSError as error:
            raise HandshakeError(f"The proxy broke the connection: {error}") from error
        _, response, rest = read_head(sock, deadline, "proxy")
        if not 200 <= response.status < 300:
            raise HandshakeError(
                f"The proxy refused: {response.status} {response.reason}".rstrip(), response.status, response.headers
            )
        if rest:
            raise HandshakeError("The proxy sent something that nobody has asked for")
    except BaseException:
        sock.close()
        raise
    return sock


def basic(username: str, password: str | None) -> str:
    """Return the value of an Authorization header (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{username}:{password or ''}".encode()).decode()


def _connect_socks(
    network: Network, proxy: Proxy, host: str, port: int, deadline: Deadline, prepare: Callable[[Any], None]
) -> Any:
    try:
        import python_socks
        from python_socks.sync import Proxy as SocksProxy
    except ImportError:
        raise HandshakeError("A SOCKS proxy needs the extra 'socks': pip install ws4py[socks]") from None
    scheme = {"socks4a": "socks4", "socks5h": "socks5"}.get(proxy.scheme, proxy.scheme)
    # The letter at the end says that the proxy, not this machine, looks the host's address up.
    lookup_there = proxy.scheme != scheme
    login = ""
    if proxy.username is not None:
        login = f"{quote(proxy.username, safe='')}:{quote(proxy.password or '', safe='')}@"
    there = f"[{proxy.host}]" if ":" in proxy.host else proxy.host
    client = SocksProxy.from_url(f"{scheme}://{login}{there}:{proxy.port}", rdns=lookup_there)
    remaining = deadline.remaining()
    try:
        # Its timeout is that of each of its steps, so the deadline is for all of them.
        sock = network.call(lambda: client.connect(host, port, timeout=remaining), deadline, lambda sock: sock.close())
    except (TimeoutError, python_socks.ProxyTimeoutError) as error:
        raise TimeoutError(f"No connection through the proxy in {deadline.seconds} seconds") from error
    except python_socks.ProxyConnectionError as error:
        raise OSError(error.errno, f"The proxy can't be reached: {error.strerror}") from error
    except python_socks.ProxyError as error:
        raise HandshakeError(f"The proxy refused: {error}") from error
    except OSError:
        raise
    except Exception as error:
        # Of what a proxy may answer, or be asked for, it fails to read some, with errors of any kind.
        raise HandshakeError(f"The proxy can't be used: {type(error).__name__}") from error
    sock = network.adopt(sock)
    try:
        prepare(sock)
    except BaseException:
        sock.close()
        raise
    return sock

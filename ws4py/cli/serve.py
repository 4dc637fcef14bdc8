"""The command ``ws4py serve``: a class of websockets, served by the server of its own."""

from __future__ import annotations

import argparse
import importlib
import ipaddress
import logging
import os
import signal
import ssl
import sys
from collections.abc import Mapping
from typing import Any, Final

from ws4py.broker.urls import MEMORY
from ws4py.cli.common import Failure, broker_url, fail, listen, note, run_all
from ws4py.exc import BrokerError
from ws4py.manager.adding import look
from ws4py.manager.process import GRACE
from ws4py.server.endpoint import Endpoint
from ws4py.server.joined import JoinedProcess
from ws4py.server.listening import Address
from ws4py.server.stats import StatsApplication, basic_auth
from ws4py.server.threadedserver import WebSocketServer

__all__ = ["add_command"]

STATS: Final = "/stats"
LOGIN: Final = "WS4PY_STATS_LOGIN"
"""The environment variable that has the name and the password for the statistics."""

LAST_SECONDS: Final = 5.0
"""How long a process may take beyond its drain to end by itself, when another one has started it."""

OWN_NAMES: Final = ("localhost", "127.0.0.1", "[::1]")
"""By which names this machine asks itself."""


def add_command(commands: Any) -> None:
    """Add the command to those of ``ws4py``.

    :param commands: where argparse keeps them.
    """
    parser = commands.add_parser(
        "serve",
        help="serve a class of websockets",
        description="Serve a class of websockets, without an HTTP server. SIGTERM and Ctrl+C close all with 1001.",
    )
    parser.add_argument(
        "target",
        metavar="MODULE:NAME",
        help="a class, as in ws4py.websocket:EchoWebSocket, or a mapping of paths to classes",
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=9000, help="the port to listen on, 0 for any (%(default)s)")
    parser.add_argument("--unix", metavar="PATH", help="listen on a unix socket")
    parser.add_argument(
        "--processes",
        type=int,
        default=1,
        metavar="N",
        help="how many processes serve it; SIGHUP replaces them one after another",
    )
    parser.add_argument("--reuse-port", action="store_true", help="let several processes listen on the port")
    parser.add_argument("--certificate", metavar="FILE", help="serve over TLS, with this chain of certificates")
    parser.add_argument("--key", metavar="FILE", help="its key, if it is in a file of its own")
    parser.add_argument(
        "--origin",
        action="append",
        help="an origin whose pages may connect, '*' for all; by default those of this host",
    )
    parser.add_argument(
        "--allow-host", action="append", metavar="HOST", help="a name by which this server may be asked"
    )
    parser.add_argument(
        "--trusted-proxy",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="a proxy, or a network of them, whose X-Forwarded-For is believed; 'unix' for all of a unix socket",
    )
    parser.add_argument("--subprotocol", action="append", metavar="NAME", help="one that is spoken, the best one first")
    parser.add_argument("--compression", action="store_true", help="compress messages for clients that offer it")
    parser.add_argument("--workers", type=int, metavar="N", help="how many callbacks run at once")
    parser.add_argument(
        "--limit", action="append", default=[], type=limit, metavar="NAME=VALUE", help="max_connections=1000, say"
    )
    broker_url(parser, None)
    parser.add_argument("--access-log", action="store_true", help="write a line for each websocket at its end")
    parser.add_argument(
        "--stats",
        action="store_true",
        help=f"serve the statistics at {STATS}; past this machine only with NAME:PASSWORD in {LOGIN}",
    )
    parser.set_defaults(run=run)


def limit(text: str) -> tuple[str, Any]:
    """Parse an argument of the form ``NAME=VALUE``; the value is a number, a word, or None."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE")
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            pass
    return name, None if value.lower() == "none" else value


def run(options: argparse.Namespace) -> int:
    """Serve until a signal comes; return the exit status."""
    if options.access_log:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    joined = JoinedProcess.from_environment()
    if joined is not None:
        with joined:
            return serve(options, joined)
    return serve(options, None) if options.processes == 1 else run_processes(options)


def serve(options: argparse.Namespace, joined: JoinedProcess | None) -> int:
    """Serve in this process; return the exit status.

    :param joined: this process, if it is one of several.
    """
    try:
        server = make_server(options, address_of(options) if joined is None else joined.listener, joined)
    except (Failure, BrokerError, OSError, TypeError, ValueError) as error:
        return fail(str(error))

    if joined is not None:
        joined.answer = lambda question: look(server.manager, *question)

    def end(number: int, _: Any) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second one does not wait
        server.shutdown()

    with server:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, end)
        if joined is None:
            print(f"{options.target} is at {url(server.server_address, options)}", flush=True)
        else:
            joined.serve(server.manager.limits.drain_timeout + GRACE + LAST_SECONDS, server.shutdown)
        server.serve_forever()
    return 0


def run_processes(options: argparse.Namespace) -> int:
    """Have several processes serve, each with the command line of this one; return the exit status."""
    try:
        if options.stats:
            statistics(options)
        listener = listen(options, address_of(options), options.reuse_port)
    except (Failure, OSError) as error:
        return fail(str(error))
    if options.broker in (None, MEMORY):
        note("without --broker, a topic and a broadcast stay within one process")

    def begun() -> None:
        print(f"{options.target} is at {url(listener.address, options)}", flush=True)

    return run_all(options.processes, listener, begun)


def address_of(options: argparse.Namespace) -> Address:
    """Return where to listen."""
    return options.unix if options.unix is not None else (options.host, options.port)


def make_server(options: argparse.Namespace, address: Address, joined: JoinedProcess | None) -> WebSocketServer:
    """Return the server, which listens.

    :param address: where, or a socket that does.
    :param joined: this process, if it is one of several.

    :raises Failure: if the statistics would have no protection, or what is to be served can't be found.
    :raises OSError: if it can't listen, or a file can't be read.
    :raises TypeError: for a limit that there is not.
    :raises ValueError: for one out of range, or a wrong URL.
    :raises BrokerError: if a package is missing for the broker.
    """
    settings = dict(options.limit)
    if options.workers is not None:
        settings["workers"] = options.workers
    applications = {STATS: statistics(options, joined)} if options.stats else None
    context = None
    if options.certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(options.certificate, options.key)
    elif options.key is not None:
        raise Failure("a key needs its certificate")
    return WebSocketServer(
        address,
        load(options.target),
        protocols=options.subprotocol,
        origins=options.origin,
        hosts=options.allow_host,
        compression=options.compression,
        ssl_context=context,
        applications=applications,
        reuse_port=options.reuse_port,
        trusted_proxies=options.trusted_proxy,
        access_log=options.access_log,
        broker=options.broker,
        **settings,
    )


def load(target: str) -> Any:
    """Return what ``MODULE:NAME`` names; modules are looked for where the command is run, too.

    :raises Failure: if it is not there, or nothing that can be served.
    """
    module_name, colon, name = target.partition(":")
    if not colon or not name:
        raise Failure(f"{target!r} is not of the form MODULE:NAME")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there, and wants another one
        raise Failure(f"there is no module {module_name}") from None
    for part in name.split("."):
        found = getattr(found, part, None)
    if not callable(found) and not isinstance(found, (Mapping, Endpoint)):
        raise Failure(f"{module_name} has no class, and no mapping of paths, of the name {name}")
    return found


def statistics(options: argparse.Namespace, joined: JoinedProcess | None = None) -> StatsApplication:
    """Return the statistics, protected; those of all processes, if there are several.

    :raises Failure: if others than this machine could see them without a login.
    """
    gather = None if joined is None else lambda top, keys: joined.gather([top, keys])
    name, colon, password = os.environ.get(LOGIN, "").partition(":")
    if name and colon and password:
        return StatsApplication(authorize=basic_auth(name, password), hosts=options.allow_host, gather=gather)
    if options.unix is not None or not is_loopback(options.host):
        raise Failure(f"statistics that others can ask for need a login: set {LOGIN} to NAME:PASSWORD")
    return StatsApplication(hosts=options.allow_host or OWN_NAMES, gather=gather)


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def url(address: Any, options: argparse.Namespace) -> str:
    """Return where a server is that listens at an address."""
    scheme = "ws" if options.certificate is None else "wss"
    if options.unix is not None:
        return f"{scheme}+unix://{options.unix}"
    host, port = address[:2]
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/"

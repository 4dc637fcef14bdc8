"""The command ``ws4py demo``: the chat of the examples."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from ws4py.cli.common import Failure, broker_url, fail, listen, run_all
from ws4py.exc import BrokerError
from ws4py.limits import Limits
from ws4py.server.joined import JoinedProcess

__all__ = ["add_command"]

PATIENCE: Final = 15.0
"""How many seconds a process may take beyond its drain to end by itself, when another one has started it."""


def add_command(commands: Any) -> None:
    """Add the command to those of ``ws4py``.

    :param commands: where argparse keeps them.
    """
    parser = commands.add_parser("demo", help="serve a chat to try in a browser")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=9000, help="the port to listen on (%(default)s)")
    broker_url(parser, None)
    parser.add_argument(
        "--processes", type=int, default=1, metavar="N", help="how many processes serve it; more than one need a broker"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serve the chat; return the exit status."""
    joined = JoinedProcess.from_environment()
    if joined is None and options.processes != 1:
        return run_processes(options)
    try:
        server = _demo_server()
    except ModuleNotFoundError as error:
        return fail(f"the demo needs {error.name}: pip install 'ws4py[cherrypy]'")
    if joined is None:
        server.run(options.host, options.port, options.broker)
        return 0
    with joined:
        return serve(server, options, joined)


def run_processes(options: argparse.Namespace) -> int:
    """Have several processes serve the chat; return the exit status."""
    if options.broker is None:
        return fail("several processes need --broker, or each has a chat of its own")
    try:
        port = listen(options)
    except (Failure, OSError) as error:
        return fail(str(error))

    def begun() -> None:
        host, number = port.address[:2]
        print(f"The chat is at http://{f'[{host}]' if ':' in host else host}:{number}/ (Ctrl-C stops it)", flush=True)

    return run_all(options.processes, port, begun)


def serve(server: ModuleType, options: argparse.Namespace, joined: JoinedProcess) -> int:
    """Serve the chat in this process, which is one of several; return the exit status."""
    from ws4py.server.cherrypyjoined import serve_from

    try:
        application = server.build(options.host, options.port, options.broker)
    except (BrokerError, ValueError) as error:
        return fail(str(error))
    serve_from(joined.listener)
    server.start(application)
    joined.serve(Limits().drain_timeout + PATIENCE, server.cherrypy.engine.exit)
    server.cherrypy.engine.block()
    return 0


def _demo_server() -> ModuleType:
    """Import the example, which is installed as ws4py.demo; from a checkout it is where it is written."""
    here = Path(__file__).resolve().parents[2] / "examples" / "chat" / "server.py"
    if importlib.util.find_spec("ws4py.demo") is not None or not here.is_file():
        return importlib.import_module("ws4py.demo.server")
    spec = importlib.util.spec_from_file_location("ws4py_demo_server", here)
    assert spec is not None, "the file is there"
    assert spec.loader is not None, "it is Python"
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module

"""The command ``ws4py demo``: the chat of the examples."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from ws4py.cli.common import fail

__all__ = ["add_command"]


def add_command(commands: Any) -> None:
    """Add the command to those of ``ws4py``.

    :param commands: where argparse keeps them.
    """
    parser = commands.add_parser("demo", help="serve a chat to try in a browser")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=9000, help="the port to listen on (%(default)s)")
    parser.add_argument(
        "--broker", metavar="URL", help="keep what is said in a broker, such as redis://localhost/0, over restarts too"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serve the chat; return the exit status."""
    try:
        server = _demo_server()
    except ModuleNotFoundError as error:
        return fail(f"the demo needs {error.name}: pip install 'ws4py[cherrypy]'")
    server.run(options.host, options.port, options.broker)
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

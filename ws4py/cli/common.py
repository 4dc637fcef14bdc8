"""What several commands have in common."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import Final

from ws4py.server.listening import Address, Listener
from ws4py.server.processes import Processes

__all__ = ["Failure", "broker_url", "fail", "header", "listen", "note", "run_all", "seconds"]

BROKER: Final = "WS4PY_BROKER"
"""The environment variable that has the URL of the broker, which may have a password."""


class Failure(Exception):
    """Why nothing can be served, in a sentence."""


def broker_url(parser: argparse.ArgumentParser, default: str | None) -> None:
    """Add the option for a broker's URL; its default is in the environment.

    :param default: what is taken if it is not there, either.
    """
    text = f"the URL of a broker, such as redis://localhost/0; by default what {BROKER} says"
    parser.add_argument(
        "--broker", metavar="URL", default=os.environ.get(BROKER) or default, help=f"{text}, or {default or 'none'}"
    )


def header(text: str) -> tuple[str, str]:
    """Parse an argument of the form ``NAME: VALUE``."""
    name, colon, value = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME: VALUE")
    return name.strip(), value.strip()


def seconds(text: str) -> float:
    """Parse an argument that is a time."""
    number = float(text)
    if not 0 <= number < 1e6:
        raise ValueError
    return number


def note(message: str) -> None:
    """Say something that is no output."""
    print(f"ws4py: {message}", file=sys.stderr, flush=True)


def fail(message: str) -> int:
    """Say what is wrong; return the exit status for it."""
    note(message)
    return 1


def listen(options: argparse.Namespace, address: Address | None = None, reuse_port: bool = False) -> Listener:
    """Listen for several processes.

    :param address: where; by default what the options say.
    :raises Failure: if there can't be that many.
    :raises OSError: if the address can't be listened on.
    """
    if os.name != "posix":
        raise Failure("several processes need a system with signals and sockets that are inherited")
    if options.processes < 1:
        raise Failure(f"--processes must be at least 1, not {options.processes}")
    return Listener((options.host, options.port) if address is None else address, reuse_port=reuse_port)


def run_all(count: int, listener: Listener, begun: Callable[[], object]) -> int:
    """Run several processes, each with the command line of this one; return the exit status.

    :param listener: what they serve; it is closed in the end.
    :param begun: is called when all of them serve.
    """
    try:
        return Processes([sys.executable, *sys.orig_argv[1:]], count, listener.sock, note).run(begun)
    finally:
        listener.close()

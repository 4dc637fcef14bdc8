"""The command ``ws4py publish``: a message to a topic, from a shell."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

from ws4py.broker import connect
from ws4py.cli.common import broker_url, fail, seconds
from ws4py.exc import WebSocketException

__all__ = ["add_command"]


def add_command(commands: Any) -> None:
    """Add the command to those of ``ws4py``.

    :param commands: where argparse keeps them.
    """
    parser = commands.add_parser(
        "publish",
        help="publish to a topic",
        description="Publish to the websockets that are on a topic, of all servers with the same broker. Without a "
        "message each line of the input is one.",
    )
    parser.add_argument("topic", help="its name")
    parser.add_argument("message", nargs="?", help="a text")
    parser.add_argument("--binary", action="store_true", help="publish all of the input as one binary message")
    parser.add_argument(
        "--timeout", type=seconds, default=5.0, metavar="SECONDS", help="how long it may take (%(default)s)"
    )
    broker_url(parser, "redis://localhost/0")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Publish; return the exit status."""
    if options.binary and options.message is not None:
        return fail("a binary message comes from the input")
    try:
        with connect(options.broker, options.timeout) as publisher:
            for message in messages(options):
                publisher.publish(options.topic, message, binary=options.binary)
    except (WebSocketException, ValueError) as error:
        return fail(str(error))
    return 0


def messages(options: argparse.Namespace) -> Iterator[str | bytes]:
    """Yield what is to be published."""
    if options.message is not None:
        yield options.message
    elif options.binary:
        yield sys.stdin.buffer.read()
    else:
        for line in sys.stdin:
            yield line.rstrip("\n")

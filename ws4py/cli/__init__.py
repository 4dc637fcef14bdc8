"""The command ``ws4py``. Each command is a module, which adds itself: :mod:`~ws4py.cli.demo`, a chat to look at,
:mod:`~ws4py.cli.serve`, a server for a class of one's own, :mod:`~ws4py.cli.connect`, a client to talk to any websocket
with, :mod:`~ws4py.cli.publish`, which publishes to a topic, and :mod:`~ws4py.cli.stats`, the figures of a server.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from ws4py import __version__
from ws4py.cli import connect, demo, publish, serve, stats
from ws4py.native import build

__all__ = ["main"]


class _Version(argparse.Action):
    """Writes the version in one line, which argparse's own action would break."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"ws4py {__version__} ({build()})")
        parser.exit()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status.

    :param arguments: without the program's name; those of the process by default.
    """
    parser = argparse.ArgumentParser(prog="ws4py", description="WebSocket for threaded Python.")
    parser.add_argument("--version", action=_Version, nargs=0, help="say which version it is, and what runs compiled")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (demo, serve, connect, publish, stats):
        command.add_command(commands)
    options = parser.parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    return run(options)

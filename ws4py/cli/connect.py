"""The command ``ws4py connect``: a client to talk to any websocket with, at a terminal or in a pipe."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import select
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from ws4py.cli.common import fail, header, seconds
from ws4py.client.threadedclient import WebSocketClient
from ws4py.client.url import without_login
from ws4py.exc import HandshakeError, WebSocketException
from ws4py.messaging import Message

__all__ = ["add_command"]

PROMPT: Final = "> "
MAX_MESSAGE_SIZE: Final = 64 << 20
"""The most bytes of a message that is shown; a larger one closes the websocket."""
# Closes that are no failure: normal, going away, no code.
PEACEFUL: Final = frozenset({1000, 1001, 1005})
HELP: Final = """\
Lines are sent as text messages. Commands:
  /ping [TEXT]             send a Ping
  /binary HEX              send a binary message
  /close [CODE [REASON]]   close the websocket, and leave
  /help                    show this
  //...                    send a line that begins with /"""


def add_command(commands: Any) -> None:
    """Add the command to those of ``ws4py``.

    :param commands: where argparse keeps them.
    """
    parser = commands.add_parser(
        "connect",
        help="talk to a websocket",
        description="Talk to a websocket. At a terminal, lines are typed, and commands begin with a slash: /help lists "
        "them. In a pipe, each line of the input is sent as a text message, and each message that comes is a line of "
        "the output, a binary one in hexadecimal digits. A message of over 64 MiB closes the websocket.",
    )
    parser.add_argument(
        "url", metavar="URL", help="such as ws://localhost:9000/ws, wss://example.org/, ws+unix:///run/x.sock"
    )
    parser.add_argument(
        "-H", "--header", action="append", default=[], type=header, metavar="'NAME: VALUE'", help="a further header"
    )
    parser.add_argument("--subprotocol", action="append", default=[], metavar="NAME", help="a subprotocol to offer")
    parser.add_argument("--insecure", action="store_true", help="do not verify the server's certificate")
    parser.add_argument("--ca", metavar="FILE", help="certificates to trust, in the place of the system's")
    parser.add_argument(
        "--proxy", metavar="URL", help="a proxy; none for no proxy (default: what the environment says)"
    )
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=10.0,
        metavar="SECONDS",
        help="for connecting, and for the answer (%(default)s)",
    )
    parser.add_argument(
        "--wait",
        type=seconds,
        default=1.0,
        metavar="SECONDS",
        help="in a pipe: how long to wait for messages after the end of the input (%(default)s)",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="show the headers of the handshake")
    parser.set_defaults(run=run)


class CommandLineClient(WebSocketClient):
    """Shows what comes, by a function, and tells another one about the end."""

    show: Callable[[str | bytes], None]
    end: Callable[[], None]
    verbose = False

    def process_response_line(self, response_line: bytes) -> None:
        """Show the line, if asked for."""
        if self.verbose:
            print(f"< {_printable(response_line.decode('latin-1'))}", file=sys.stderr)
        super().process_response_line(response_line)

    def process_handshake_header(self, headers: bytes) -> tuple[list[bytes], list[bytes]]:
        """Show the headers, if asked for."""
        if self.verbose:
            for line in headers.decode("latin-1").strip().split("\r\n"):
                print(f"< {_printable(line)}", file=sys.stderr)
        return super().process_handshake_header(headers)

    def received_message(self, message: Message) -> None:
        """Show a message."""
        self.show(str(message) if message.is_text else message.data)

    def ponged(self, pong: Message) -> None:
        """Show a Pong."""
        if sys.stdout.isatty():
            self.show(f"[pong {pong.data.decode(errors='replace')}]")

    def closed(self, code: int, reason: str | bytes | None = None) -> None:
        """Tell of the end."""
        self.end()


def run(options: argparse.Namespace) -> int:
    """Talk to a websocket."""
    ssl_options: dict[str, Any] = {}
    if options.insecure:
        ssl_options["cert_reqs"] = ssl.CERT_NONE
    if options.ca:
        ssl_options["ca_certs"] = options.ca
    try:
        client = CommandLineClient(
            options.url,
            options.subprotocol,
            ssl_options=ssl_options,
            headers=options.header,
            connect_timeout=options.timeout or None,
            handshake_timeout=options.timeout or None,
            proxy=True if options.proxy is None else None if options.proxy == "none" else options.proxy,
            max_message_size=MAX_MESSAGE_SIZE,
        )
    except ValueError as error:
        return fail(str(error))
    client.verbose = options.verbose
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    talk = (Terminal if interactive else Pipe)(client, options)
    try:
        return _talk(talk, client, options)
    finally:
        talk.close()


def _talk(talk: Talk, client: CommandLineClient, options: argparse.Namespace) -> int:
    """Connect and talk; return the exit status."""
    try:
        if options.verbose:
            for line in client.handshake_request.decode("latin-1").strip().split("\r\n"):
                print(f"> {line}", file=sys.stderr)
        client.connect()
    except KeyboardInterrupt:
        return 130
    except HandshakeError as error:
        return fail(f"{_shown(options.url)}: {_printable(str(error))}")
    except OSError as error:
        return fail(f"can't connect to {_shown(options.url)}: {_printable(_reason(error))}")
    try:
        return talk.run()
    except KeyboardInterrupt:
        talk.leave()
        return 130
    except BrokenPipeError:
        # Nobody reads the output any more; the interpreter must not try to flush it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        talk.leave()
        return 1


def _shown(url: str) -> str:
    return _printable(without_login(url))


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or error}"
    if isinstance(error, socket.gaierror):
        return "the name of the host is not known"
    return error.strerror or str(error)


class Talk:
    """A conversation by a client that is to be connected."""

    def __init__(self, client: CommandLineClient, options: argparse.Namespace) -> None:
        self.client = client
        self.options = options
        client.show = self.show
        client.end = self.end

    def show(self, message: str | bytes) -> None:
        """Show a message. Called by the client's thread."""

    def end(self) -> None:
        """The websocket has ended. Called by the client's thread."""

    def run(self) -> int:
        """Talk until the end; return the exit status."""
        raise NotImplementedError

    def close(self) -> None:
        """Give back what the conversation has used."""

    def leave(self, code: int = 1000, reason: str = "") -> None:
        """Close the websocket, and wait for the end."""
        self.client.close(code, reason)
        self.client.run_forever()

    def status(self) -> int:
        """Return the exit status after the end, and say what was wrong."""
        code = self.client.close_code
        if code is None or code in PEACEFUL:
            return 0
        return fail(f"closed with {code} {_printable(self.client.close_reason or '')}".rstrip())


class Pipe(Talk):
    """Lines of the input are sent; messages are lines of the output."""

    def __init__(self, client: CommandLineClient, options: argparse.Namespace) -> None:
        super().__init__(client, options)
        self._reader, self._writer = socket.socketpair()
        self._broken = False

    def show(self, message: str | bytes) -> None:
        """Write a message as a line: a binary one in hexadecimal digits."""
        text = message if isinstance(message, str) else message.hex()
        try:
            print(text, flush=True)
        except (BrokenPipeError, ValueError):
            self._broken = True
            self.client.close()

    def end(self) -> None:
        """Wake whoever waits for the input."""
        with contextlib.suppress(OSError):  # nobody does any more
            self._writer.send(b"\0")

    def close(self) -> None:
        """Give the sockets back."""
        self._reader.close()
        self._writer.close()

    def run(self) -> int:
        """Talk until the input has ended, and for a while more, or until the server closes."""
        fd = sys.stdin.fileno()
        pending, deadline = b"", None
        while True:
            timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready = select.select([self._reader] if deadline else [self._reader, fd], [], [], timeout)[0]
            if self._reader in ready:
                break
            if not ready:
                self.leave()
                break
            data = os.read(fd, 65536)
            *lines, pending = (pending + data).split(b"\n")
            if not data:
                lines = [pending] if pending else []
                deadline = time.monotonic() + self.options.wait
            for line in lines:
                try:
                    self.client.send(line.removesuffix(b"\r"))
                except WebSocketException as error:
                    if not self.client.terminated and not isinstance(error, RuntimeError):
                        print(f"ws4py: not sent: {error}", file=sys.stderr)
                        continue
                    self.client.run_forever()
                    break
        self.client.run_forever()
        if self._broken:
            raise BrokenPipeError
        return self.status()


class Terminal(Talk):
    """A prompt, above which messages appear."""

    def __init__(self, client: CommandLineClient, options: argparse.Namespace) -> None:
        super().__init__(client, options)
        self._ended = False
        self._left = False  # it is this side that closed
        self._prompting = False
        self._left_prompt = threading.Event()
        self._lock = threading.Lock()
        try:
            import readline
        except ImportError:
            self._readline: Any = None
        else:
            self._readline = readline

    def show(self, message: str | bytes) -> None:
        """Print a message above the prompt and what was typed so far."""
        text = _printable(message, "\n\t") if isinstance(message, str) else hex_dump(message)
        with self._lock:
            typed = self._readline.get_line_buffer() if self._readline and self._prompting else ""
            prompt = PROMPT + typed if self._prompting else ""
            sys.stdout.write(f"\r\x1b[K{text}\n{prompt}")
            sys.stdout.flush()

    def end(self) -> None:
        """Get the main thread out of its prompt."""
        self._ended = True
        main = threading.main_thread().ident
        assert main is not None, "it was started"
        while self._prompting:
            signal.pthread_kill(main, signal.SIGINT)
            # Once more if that came too early: readline notices a signal only while it waits for a key.
            self._left_prompt.wait(0.1)

    def _interrupted(self, *_: object) -> None:
        if self._prompting or not self._ended:
            raise KeyboardInterrupt

    def leave(self, code: int = 1000, reason: str = "") -> None:
        """Close the websocket, and wait for the end."""
        self._left = not self._ended
        super().leave(code, reason)

    def run(self) -> int:
        """Talk until Ctrl-D, Ctrl-C, /close, or until the server closes."""
        client = self.client
        chosen = client.subprotocol
        print(f"Connected{f' with subprotocol {chosen}' if chosen else ''}. Ctrl-D closes, /help helps.")
        signal.signal(signal.SIGINT, self._interrupted)
        try:
            while not self._ended:
                line = self._ask()
                if self._ended or not self._obey(line):
                    break
        except EOFError:
            print()
            self.leave()
        except KeyboardInterrupt:
            print()
            if not self._ended:
                self.leave()
        client.run_forever()
        print(f"Closed with {client.close_code} {_printable(client.close_reason or '')}".rstrip())
        return 0 if client.close_code in PEACEFUL or self._left else 1

    def _ask(self) -> str:
        try:
            self._left_prompt.clear()
            with self._lock:  # a message that is just being shown takes no prompt with it
                self._prompting = True
            return "" if self._ended else input(PROMPT)
        finally:
            self._prompting = False
            self._left_prompt.set()

    def _obey(self, line: str) -> bool:
        """Do what a line asks for; return False to leave."""
        command, _, rest = line.partition(" ")
        try:
            if line.startswith("//"):
                self.client.send(line[1:])
            elif not line.startswith("/"):
                if line:
                    self.client.send(line)
            elif command == "/ping":
                self.client.ping(rest)
            elif command == "/binary":
                self.client.send(bytes.fromhex(rest), binary=True)
            elif command == "/close":
                code, _, reason = rest.partition(" ")
                self.leave(int(code or 1000), reason)
                return False
            else:
                print(HELP)
        except (ValueError, WebSocketException) as error:
            print(f"Not sent: {error}")
        return True


def hex_dump(data: bytes) -> str:
    """Return bytes as lines of 16: the offset, the bytes, and the ASCII characters among them."""
    lines = []
    for start in range(0, len(data), 16):
        row = data[start : start + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"{start:08x}  {row.hex(' '):47}  {text}")
    return "\n".join(lines) or "(no bytes)"


def _printable(text: str, allowed: str = "") -> str:
    """Return a text without characters that would command a terminal."""
    return re.sub(
        r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]",
        lambda match: match[0] if match[0] in allowed else f"\\x{ord(match[0]):02x}",
        text,
    )

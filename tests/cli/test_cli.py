"""The command line."""

from __future__ import annotations

import importlib.metadata
import os
import pty
import re
import select
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.client_servers import Scripted, accept, answer, foreign_server, read_request
from tests.helpers import PATIENCE, Certificates, Peer, until
from ws4py import __version__, cli
from ws4py.cli.connect import hex_dump
from ws4py.native import build

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-W", "error", "-m", "ws4py"]
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}


def run(*arguments: str, given: str = "", status: int = 0) -> tuple[str, str]:
    """Run the command in a pipe; return what it has written to its output and to its error output."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        input=given,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        cwd=ROOT,
        env=ENVIRONMENT,
        check=False,
    )
    assert done.returncode == status, done
    return done.stdout, done.stderr


def fails(*arguments: str) -> str:
    """Run ``connect``, which must fail; return the one line that says why."""
    output, errors = run("connect", *arguments, status=1)
    assert output == ""
    assert errors.startswith("ws4py: ")
    assert errors.endswith("\n")
    assert errors.count("\n") == 1, errors
    return errors


def test_version_and_usage() -> None:
    assert run("--version")[0] == f"ws4py {__version__} ({build()})\n"
    assert "usage: ws4py" in run(status=2)[1]
    listed = run("--help")[0]
    for command in ("demo", "serve", "connect", "publish", "stats"):
        assert re.search(rf"^ +{command} +\w", listed, re.MULTILINE)
        assert f"usage: ws4py {command}" in run(command, "--help")[0]
    assert "--subprotocol" in run("connect", "--help")[0]
    assert "invalid seconds value: 'soon'" in run("connect", "ws://h", "--wait", "soon", status=2)[1]
    assert "NAME: VALUE" in run("connect", "ws://h", "--header", "wrong", status=2)[1]


def test_it_is_installed_as_ws4py() -> None:
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="ws4py")
    assert script.load() is cli.main


def test_a_demo_without_cherrypy_says_what_it_needs() -> None:
    script = "import sys; sys.modules['cherrypy'] = None; from ws4py.cli import main; sys.exit(main(['demo']))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT, check=False
    )
    assert (done.returncode, done.stderr) == (1, "ws4py: the demo needs cherrypy: pip install 'ws4py[cherrypy]'\n")


# --- in a pipe --------------------------------------------------------------------------------------------------------


def test_lines_are_sent_and_messages_are_lines() -> None:
    with foreign_server() as url:
        began = time.monotonic()
        assert run("connect", url, "--wait", "0.2", given="one\ntwö\n/three") == ("one\ntwö\n/three\n", "")
        assert time.monotonic() - began >= 0.2


def test_the_server_closes() -> None:
    def script(sock: socket.socket) -> None:
        peer = accept(sock)
        peer.send(peer.binary(b"\x00\xffA"))
        peer.say_goodbye(int(peer.receive_text()), "so \x1blong")

    with Scripted(script) as server:
        assert run("connect", server.url, "--wait", "3600", given="1000\n") == ("00ff41\n", "")
        errors = run("connect", server.url, "--wait", "3600", given="4321\n", status=1)[1]
        assert errors == "ws4py: closed with 4321 so \\x1blong\n"


def test_the_server_closes_while_the_input_goes_on() -> None:
    with Scripted(lambda sock: (accept(sock).say_goodbye(), None)[1]) as server:
        process = subprocess.Popen([*COMMAND, "connect", server.url], stdin=subprocess.PIPE, cwd=ROOT, env=ENVIRONMENT)
        with process:
            assert process.wait(PATIENCE) == 0


def test_ctrl_c() -> None:
    with foreign_server() as url:
        process = subprocess.Popen(
            [*COMMAND, "connect", url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env=ENVIRONMENT
        )
        with process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(b"x\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"x\n"
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 130


def test_nobody_reads_the_output() -> None:
    with foreign_server() as url:
        reader, writer = os.pipe()
        process = subprocess.Popen(
            [*COMMAND, "connect", url],
            stdin=subprocess.PIPE,
            stdout=writer,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env=ENVIRONMENT,
        )
        os.close(writer)
        os.close(reader)
        errors = process.communicate(b"x\n", timeout=PATIENCE)[1]
        assert errors == b""
        assert process.returncode == 1


def test_headers_and_subprotocols() -> None:
    seen: dict[str, str] = {}

    def script(sock: socket.socket) -> None:
        seen.update(read_request(sock))
        sock.sendall(answer(seen, "Sec-WebSocket-Protocol: b", "X-Theirs: \xe9\x9b31m"))
        Peer(sock, masking=False).say_goodbye()

    with Scripted(script) as server:
        arguments = ["connect", server.url, "-v", "-H", "X-Mine: 1", "--subprotocol", "a", "--subprotocol", "b"]
        errors = run(*arguments, "--timeout", "5")[1]
    assert seen["x-mine"] == "1"
    assert seen["sec-websocket-protocol"] == "a, b"
    assert "> X-Mine: 1\n" in errors
    assert "< HTTP/1.1 101 Switching Protocols\n" in errors
    assert "\\x9b31m" in errors


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_bad_urls() -> None:
    assert "Invalid scheme" in fails("http://example.org/")
    assert "Invalid hostname" in fails("ws:///x")
    assert "name of the host" in fails("ws://nowhere.invalid/")
    assert "No such file" in fails("ws+unix:///nowhere/at/all")


def test_refused_connections() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert "Connection refused" in fails(f"ws://127.0.0.1:{taken.getsockname()[1]}/")


def test_no_password_is_in_what_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        errors = fails(f"ws://me:s3cret@{address}/x")
    assert address in errors
    assert "s3cret" not in errors

    def script(sock: socket.socket) -> None:
        read_request(sock)
        sock.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")

    with Scripted(script) as server:
        errors = fails(server.url.replace("//", "//me:s3cret@"))
    assert "403 Forbidden" in errors
    assert "s3cret" not in errors
    assert "s3" not in fails("ws://me:s3/cret@h/")
    assert "s3cret" not in fails("ws://h/", "--proxy", "http://me:s3cret@[")


def test_a_message_without_an_end_is_not_kept() -> None:
    def script(sock: socket.socket) -> None:
        peer = accept(sock)
        sock.sendall(b"\x82\x7f" + (1 << 40).to_bytes(8, "big"))
        assert peer.receive_close()[0] == 1009

    with Scripted(script) as server:
        assert "over 67108864 bytes" in run("connect", server.url, "--wait", "3600", status=1)[1]


def test_answers_that_are_no_101() -> None:
    def script(sock: socket.socket) -> None:
        read_request(sock)
        sock.sendall(b"HTTP/1.1 404 Not Found\r\n\r\n")

    with Scripted(script) as server:
        assert "404 Not Found" in fails(server.url)
    with Scripted(lambda sock: sock.sendall(b"\x1b]0;title\x07")) as server:
        assert "does not answer in HTTP" in fails(server.url)
    with Scripted(lambda sock: (read_request(sock), sock.recv(1), None)[2]) as server:
        assert "did not answer in 0.2 seconds" in fails(server.url, "--timeout", "0.2")


def test_wrong_certificates(certificates: Certificates, tmp_path: Path) -> None:
    trusted = tmp_path / "ca.pem"
    chain = certificates.client.get_ca_certs(binary_form=True)
    trusted.write_text("".join(ssl.DER_cert_to_PEM_cert(der) for der in chain))
    with foreign_server(certificates.server) as url:
        assert "certificate is not trusted" in fails(url)
        assert run("connect", url, "--ca", str(trusted), "--wait", "0.2", given="x")[0] == "x\n"
        output, errors = run("connect", url, "--insecure", "--wait", "0.2", given="x")
        assert output == "x\n"
        assert "not verified" in errors
        assert "No such file" in fails(url, "--ca", "/nowhere")


# --- at a terminal ----------------------------------------------------------------------------------------------------


class Terminal:
    """A terminal in which the command runs."""

    def __init__(self, *arguments: str) -> None:
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=ROOT,
            env={**ENVIRONMENT, "TERM": "xterm"},
            start_new_session=True,
        )
        os.close(slave)
        self.seen = ""

    def expect(self, text: str) -> str:
        """Wait for a text; return what came before it."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.seen:
            ready = select.select([self.master], [], [], max(0.0, deadline - time.monotonic()))[0]
            assert ready, f"{text!r} has not come: {self.seen!r}"
            try:
                self.seen += os.read(self.master, 4096).decode()
            except OSError:
                raise AssertionError(f"{text!r} has not come before the end: {self.seen!r}") from None
        before, _, self.seen = self.seen.partition(text)
        return before

    def wait_until_idle(self) -> None:
        """Wait until the main thread waits for a key: readline overlooks a signal that comes before."""
        state = Path(f"/proc/{self.process.pid}/stat")
        if state.exists():
            until(lambda: all(state.read_text().rpartition(") ")[2][0] == "S" for _ in range(20)))

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)
        os.close(self.master)

    def status(self) -> int:
        return self.process.wait(PATIENCE)


def test_a_conversation() -> None:
    with foreign_server(subprotocols=["chat"]) as url, Terminal("connect", url, "--subprotocol", "chat") as terminal:
        terminal.expect("Connected with subprotocol chat")
        terminal.expect("> ")
        terminal.type("hello\n")
        terminal.expect("\x1b[Khello\r\n> ")
        terminal.type("/ping abc\n")
        terminal.expect("[pong abc]")
        terminal.type("/binary 00ff41\n")
        terminal.expect("00000000  00 ff 41")
        terminal.expect("..A")
        terminal.type("/binary xyz\n")
        terminal.expect("Not sent: ")
        terminal.type("//slash\n")
        terminal.expect("\x1b[K/slash\r\n")
        terminal.type("/what\n")
        terminal.expect("/close [CODE [REASON]]")
        terminal.type("/close 4000 enough\n")
        terminal.expect("Closed with 4000 enough")
        assert terminal.status() == 0


def test_a_message_comes_above_what_is_being_typed() -> None:
    def script(sock: socket.socket) -> None:
        peer = accept(sock)
        peer.receive_text()
        peer.send(peer.text("news \x1b[2J"))
        peer.receive_rest()

    with Scripted(script) as server, Terminal("connect", server.url) as terminal:
        terminal.expect("> ")
        terminal.type("go\nhal")
        before = terminal.expect("news \\x1b[2J\r\n> ")
        if "hal" in before:
            terminal.expect("hal")
        terminal.process.kill()


@pytest.mark.parametrize("key", ["\x04", "\x03"])
def test_leaving(key: str) -> None:
    with foreign_server() as url, Terminal("connect", url) as terminal:
        terminal.expect("> ")
        if key == "\x03":  # the terminal controls no process here, so it can't do it
            terminal.wait_until_idle()
            terminal.process.send_signal(signal.SIGINT)
        else:
            terminal.type(key)
        terminal.expect("Closed with 1000")
        assert terminal.status() == 0


def test_the_server_closes_while_something_is_typed() -> None:
    with foreign_server() as url, Terminal("connect", url) as terminal:
        terminal.expect("> ")
        terminal.type("bye\n")
        terminal.expect("Closed with 4321 so long")
        assert terminal.status() == 1


def test_hex_dump() -> None:
    assert hex_dump(b"") == "(no bytes)"
    assert hex_dump(bytes(range(60, 78))).split("\n") == [
        "00000000  3c 3d 3e 3f 40 41 42 43 44 45 46 47 48 49 4a 4b  <=>?@ABCDEFGHIJK",
        "00000010  4c 4d                                            LM",
    ]


def test_the_demo_is_served() -> None:
    pytest.importorskip("cherrypy")
    command = [*COMMAND[:1], "-m", "ws4py", "demo", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert "The chat is at http://127.0.0.1:" in process.stdout.readline()
        process.terminate()
        assert process.wait(PATIENCE) == 0

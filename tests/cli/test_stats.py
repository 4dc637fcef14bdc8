"""``ws4py stats``: the figures of a server in a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.client_servers import Scripted, read_request
from tests.helpers import Certificates
from tests.server.test_stats_endpoint import StatsServer, serving_stats, validate
from tests.serving import PATIENCE, ROOT
from ws4py.cli.stats import Failure, fetch, make_request, render


@pytest.fixture(scope="module")
def server() -> Iterator[StatsServer]:
    with serving_stats("cheroot") as server:
        yield server


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "ws4py", "stats", *arguments]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=PATIENCE, check=False, cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "COLUMNS": "90"},
    )  # fmt: skip


def test_once(server: StatsServer) -> None:
    with server.open("/ws") as peer:
        peer.echo("hello")
        result = run(f"http://{server.host}/stats")
        peer.finish()
    assert (result.returncode, result.stderr) == (0, "")
    assert re.search(r"^WebSockets  running, up 0:00:\d\d$", result.stdout, re.MULTILINE)
    assert re.search(r"^Connections +1 open", result.stdout, re.MULTILINE)
    assert re.search(r"^Received +\d+ ", result.stdout, re.MULTILINE)
    assert re.search(r"^Handler time +[\d.]+ (µs|ms)", result.stdout, re.MULTILINE)
    assert "\x1b" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 90


@pytest.mark.parametrize("path", ["/stats", "/stats/", "/stats/stats.json"])
def test_json(server: StatsServer, path: str) -> None:
    result = run(f"http://{server.host}{path}", "--json")
    assert result.returncode == 0
    validate(json.loads(result.stdout))


def test_a_name_and_a_password(server: StatsServer) -> None:
    assert run(f"http://admin:s%3Acret@{server.host}/protected").returncode == 0
    assert run(f"http://{server.host}/protected", "-H", "Authorization: Basic YWRtaW46czpjcmV0").returncode == 0
    refused = run(f"http://admin:wrong@{server.host}/protected")
    assert refused.returncode == 1
    assert refused.stderr == "ws4py: the server answers 401 Unauthorized: These statistics are protected\n"


def test_failures(server: StatsServer) -> None:
    for url, text in (
        (f"http://{server.host}/", "can't be read"),
        (f"http://{server.host}/stats/nothing/", "404"),
        ("http://127.0.0.1:1/stats", "can't be asked"),
        ("ftp://example.org/", "is no http:// or https:// address"),
        ("http://", "is no http:// or https:// address"),
    ):
        result = run(url)
        assert result.returncode == 1
        assert result.stdout == ""
        assert text in result.stderr, url
        assert "Traceback" not in result.stderr
        assert result.stderr.count("\n") == 1


# --- other servers, and what they must not be told --------------------------------------------------------------------


def replying(head: str, body: bytes = b"", requests: list[dict[str, str]] | None = None) -> Scripted:
    """Return a server that gives one answer to all."""

    def script(sock: socket.socket) -> None:
        request = read_request(sock)
        if requests is not None:
            requests.append(request)
        sock.sendall(f"HTTP/1.1 {head}\r\nConnection: close\r\n\r\n".encode("latin-1") + body)

    return Scripted(script)


def failure(url: str, *arguments: str) -> str:
    """Return the one line that says why there are no figures."""
    result = run(url, *arguments)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("ws4py: ")
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr


def test_a_redirection_to_another_place_is_not_followed(server: StatsServer) -> None:
    there: list[dict[str, str]] = []
    with replying("200 OK", b"{}", there) as second:
        for location in (
            f"http://127.0.0.1:{second.port}/stats.json", f"//localhost:{second.port}/", f"https://127.0.0.1:{second.port}/",
            "file:///etc/passwd", f"http://u:s3cret@127.0.0.1:{second.port}/",
        ):  # fmt: skip
            for status in (301, 302, 303, 307, 308):
                with replying(f"{status} Elsewhere\r\nLocation: {location}") as first:
                    with pytest.raises(Failure, match="redirected to") as refusal:
                        fetch(make_request(f"http://me:secret@127.0.0.1:{first.port}/"), PATIENCE)
                    assert "s3cret" not in str(refusal.value)
        with replying(f"302 Elsewhere\r\nLocation: http://127.0.0.1:{second.port}/") as first:
            text = failure(f"http://me:secret@127.0.0.1:{first.port}/", "-H", "X-Api-Key: secret")
            assert f"redirected to http://127.0.0.1:{second.port}/" in text
    assert not there


def test_tls_is_not_left(certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trusted = tmp_path / "ca.pem"
    trusted.write_text("".join(map(ssl.DER_cert_to_PEM_cert, certificates.client.get_ca_certs(binary_form=True))))
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    there: list[dict[str, str]] = []

    def script(sock: socket.socket) -> None:
        read_request(sock)
        sock.sendall(f"HTTP/1.1 302 No\r\nLocation: http://localhost:{second.port}/\r\n\r\n".encode())

    with (
        replying("200 OK", b"{}", there) as second,
        Scripted(script, certificates.server) as first,
        pytest.raises(Failure, match="redirected to"),
    ):
        fetch(make_request(f"https://me:secret@localhost:{first.port}/"), PATIENCE)
    assert not there


def test_a_redirection_within_the_same_place_is_followed(server: StatsServer) -> None:
    figures = json.dumps(server.stats()).encode()
    seen: list[dict[str, str]] = []

    def script(sock: socket.socket) -> None:
        seen.append(read_request(sock))
        if len(seen) % 2:
            sock.sendall(b"HTTP/1.1 308 There\r\nLocation: /there?x\r\nConnection: close\r\n\r\n" + b"x" * 999)
        else:
            sock.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + figures)

    with Scripted(script) as first:
        assert run(f"http://me:secret@127.0.0.1:{first.port}/", "-H", "X-Mine: 1").returncode == 0
    assert [request[""] for request in seen] == ["GET /stats.json HTTP/1.1", "GET /there?x HTTP/1.1"]
    assert seen[0]["authorization"] == seen[1]["authorization"]
    assert seen[1]["x-mine"] == "1"
    with replying("302 Round\r\nLocation: /round") as round_and_round:
        assert "redirected over 5 times" in failure(f"http://127.0.0.1:{round_and_round.port}/")
        assert round_and_round.connections == 5


@pytest.mark.parametrize("head", ["200 OK", "302 Elsewhere\r\nLocation: /stats.json", "404 Not Found"])
def test_an_endless_answer_is_not_read_to_its_end(head: str) -> None:
    sent = 0

    def script(sock: socket.socket) -> None:
        nonlocal sent
        read_request(sock)
        sock.sendall(f"HTTP/1.1 {head}\r\n\r\n".encode())
        while sent < 64 << 20:
            sock.sendall(b" " * 65536)
            sent += 65536

    with Scripted(script) as server, pytest.raises(Failure):
        fetch(make_request(f"http://127.0.0.1:{server.port}/"), PATIENCE)
    assert sent < 64 << 20


def test_a_drip_of_bytes_does_not_stretch_the_timeout() -> None:
    def script(sock: socket.socket) -> None:
        read_request(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        sock.settimeout(0.02)
        while True:
            sock.sendall(b" ")
            try:
                assert sock.recv(1) == b""
            except TimeoutError:
                continue
            return

    with Scripted(script) as server, pytest.raises(Failure, match=r"not whole in 0\.2 seconds"):
        fetch(make_request(f"http://127.0.0.1:{server.port}/"), 0.2)


def test_answers_that_are_none_are_failures() -> None:
    figures: dict[str, Any] = {"connections": {}, "workers": {}}
    for head, body in (
        ("200 OK", b"[" * 100_000),
        ("200 OK", b'{"a":' * 900 + b"1" + b"}" * 900),
        ("200 OK", b"9" * 5000),
        ("200 OK", json.dumps(figures).encode()),
        ("200 OK", json.dumps(figures | {"uptime": "x"}).encode()),
        ("200 OK", b"\xff\xfe"),
        ("200 OK\r\nTransfer-Encoding: chunked", b"x\r\n"),
        ("404 No\r\nTransfer-Encoding: chunked", b"x\r\n"),
        ("99999 No", b""),
        ("302 Found\r\nLocation: http://[", b""),
        ("\x1b[31m", b""),
    ):
        with replying(head, body) as server:
            assert "\x1b" not in failure(f"http://127.0.0.1:{server.port}/")


def test_no_password_is_in_a_failure() -> None:
    for url in (
        "http://u:s3cret@",
        "ftp://u:s3cret@h/",
        "http://u:s3/cret@h/",
        "http://u:s3cret@[",
        "http://u:s3cret@h:x/",
    ):
        assert "s3" not in failure(url)
    assert "s3" not in failure("http://u:s3cret@127.0.0.1:1/")


# --- watching ---------------------------------------------------------------------------------------------------------


def test_watching_lines_of_json(server: StatsServer) -> None:
    process = subprocess.Popen(
        command(f"{server.host}/stats", "--watch", "--json", "--interval", "0.1"),
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    first, second = json.loads(process.stdout.readline()), json.loads(process.stdout.readline())
    assert second["time"] > first["time"]
    process.send_signal(signal.SIGINT)
    process.stdout.close()
    assert process.wait(PATIENCE) == 0


def test_watching_in_a_terminal(server: StatsServer) -> None:
    """It has a screen of its own, is drawn again and again, and leaves the terminal as it was."""
    parent, child = pty.openpty()
    process = subprocess.Popen(
        command(f"http://{server.host}/stats", "--watch", "--interval", "0.1"),
        stdin=child, stdout=child, stderr=child, cwd=ROOT, env={**os.environ, "TERM": "xterm", "COLUMNS": "80"},
    )  # fmt: skip
    os.close(child)
    shown = ""
    deadline = time.monotonic() + PATIENCE

    def read() -> bool:
        nonlocal shown
        try:
            data = os.read(parent, 65536)
        except OSError:  # so ends a terminal
            return False
        shown += data.decode(errors="replace")
        return bool(data) and time.monotonic() < deadline

    while shown.count("\x1b[H\x1b[J") < 3:
        assert read(), shown
    process.send_signal(signal.SIGINT)
    while read():
        pass
    os.close(parent)
    assert process.wait(PATIENCE) == 0
    assert shown.startswith("\x1b[?1049h\x1b[?25l")
    assert shown.rstrip().endswith("\x1b[?25h\x1b[?1049l")
    assert "in the last 0 s" in shown
    assert "Traceback" not in shown


def test_addresses() -> None:
    assert make_request("localhost:9000/stats").full_url == "http://localhost:9000/stats/stats.json"
    assert make_request("https://[::1]/a/").full_url == "https://[::1]/a/stats.json"
    request = make_request("http://u:p@h/s")
    assert (request.full_url, request.get_header("Authorization")) == ("http://h/s/stats.json", "Basic dTpw")
    with pytest.raises(Failure):
        make_request("file:///etc/passwd")


def test_rates_and_alarms(server: StatsServer) -> None:
    before: dict[str, Any] = server.stats()
    after: dict[str, Any] = json.loads(json.dumps(before))
    after["time"] += 2.0
    after["received"]["messages"]["text"] += 100
    after["workers"] |= {"busy": after["workers"]["limit"], "waiting": 3}
    after["limits"]["inbox"] = 7
    after["compression"] |= {"sent_before": 400, "sent_after": 100}
    text = render(after, before, 100, True)
    assert re.search(r"Received +\d+ +50\.0 ", text)
    assert "\x1b[31m" in text
    assert "inbox 7" in text
    assert "4.0 : 1" in text

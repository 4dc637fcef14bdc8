"""``ws4py stats``: the figures of a server in a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.serving import PATIENCE, ROOT
from tests.test_stats_endpoint import StatsServer, serving_stats, validate
from ws4py.statscli import Failure, make_request, render


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

"""The figures in CherryPy's own statistics: ``logging.statistics``, and the page that shows it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from tests.helpers import EchoRecorder, Stage, until
from tests.server.test_stats_endpoint import StatsServer, serving_stats
from tests.serving import Peer, Response, eventually
from ws4py.server.cpstats import NAMESPACE, WebSocketStatistics

pytest.importorskip("cherrypy", reason="the page is CherryPy's")


@pytest.fixture(scope="module", params=["graft", "native"])
def server(request: pytest.FixtureRequest) -> Iterator[StatsServer]:
    with serving_stats(request.param) as server:
        yield server


def figures(server: StatsServer) -> dict[str, Any]:
    found: dict[str, Any] = server.ask("/cpstats/data")[NAMESPACE]
    return found


def press(server: StatsServer, button: str) -> Response:
    """Do what a button of the page does."""
    body = f"namespace={NAMESPACE.replace(' ', '+')}".encode()
    with server.connect() as peer:
        peer.sock.sendall(
            peer.request(
                f"/cpstats/{button}",
                "POST",
                Content_Type="application/x-www-form-urlencoded",
                Content_Length=str(len(body)),
            )
            + body
        )
        return peer.read_response()


def echo(peer: Peer, times: int) -> None:
    for _ in range(times):
        peer.echo("hello")


def test_the_page_shows_the_figures(server: StatsServer) -> None:
    before = figures(server)
    with server.open("/ws") as peer:
        echo(peer, 3)
        now = figures(server)
        assert now["Enabled"] is True
        assert now["Connections Open"] == before["Connections Open"] + 1
        assert now["Messages Received"] == before["Messages Received"] + 3
        assert now["Messages Sent"] == before["Messages Sent"] + 3
        assert now["Bytes Received"] == before["Bytes Received"] + 3 * (6 + 5)
        (row,) = now["Busiest Connections"].values()
        assert row["Address"] == "127.0.0.1"
        assert (row["Path"], row["Messages Received"]) == ("/ws", 3)
        page = server.get("/cpstats/")
        assert page.status == 200
        text = page.body.decode()
        assert f"<h1>{NAMESPACE}</h1>" in text
        assert f'<input type="hidden" name="namespace" value="{NAMESPACE}" />' in text
        assert "Busiest Connections" in text
        peer.finish(4002)
    eventually(lambda: figures(server)["Closed by Code"].get("4xxx"), "the close is counted")
    assert figures(server)["Closed by Code"]["4xxx"] == {"Count": 1}


SCRIPT = "<script>alert(document.domain)</script>"
CROOKED = "%3Cscript%3Ealert(1)%3Cbr%3E%0a%1b[2J%E2%80%AE\"'%26"


def test_a_client_writes_no_page(server: StatsServer) -> None:
    """Neither by its path, nor by a word that CherryPy takes for its address."""
    for word in (SCRIPT, f"{SCRIPT}, 10.0.0.1", "fe80::1%<script>", "x" * 5000):
        with server.open(f"/proxied/{CROOKED}", X_Forwarded_For=word) as peer:
            peer.echo("it is open")
            page = server.get("/cpstats/").body.decode()
            assert "/proxied/&lt;script&gt;alert(1)" in page
            assert "<script>alert" not in page
            assert "%<script>" not in page
            assert not set(page) & {"\x1b", "\u202e"}
            (row,) = server.ask("/stats/connections.json")
            assert row["address"] == ("fe80::1" if word.startswith("fe80") else "127.0.0.1")
            assert row["path"] == "/proxied/<script>alert(1)<br>??[2J?\"'&"
            (row,) = server.ask("/stats/dashboard.json")["slowest"]
            assert row["path"].isprintable()
            peer.finish()
        eventually(lambda: not server.ask("/stats/connections.json"), "the connection is gone")
    with server.open("/proxied/x", X_Forwarded_For="192.0.2.7:4711, 10.0.0.1") as peer:
        peer.echo("it is open")
        assert [row["address"] for row in server.ask("/stats/connections.json")] == ["192.0.2.7"]
        peer.finish()


def test_pause_and_resume(server: StatsServer) -> None:
    with server.open("/ws") as peer:
        echo(peer, 2)
        assert press(server, "pause").status in (200, 302, 303)
        held = figures(server)
        assert held["Enabled"] is False
        assert held["Connections Open"] == 1
        echo(peer, 5)
        assert figures(server) == held
        text = server.get("/cpstats/").body.decode()
        resume = text.index('action="resume"', text.index(f"<h1>{NAMESPACE}</h1>"))
        assert "disabled" not in text[resume : text.index("</form>", resume)]
        # Only what is shown is held: the manager has counted on.
        assert server.stats()["received"]["messages"]["text"] == held["Messages Received"] + 5
        press(server, "resume")
        shown = figures(server)
        assert shown["Enabled"] is True
        assert shown["Messages Received"] == held["Messages Received"] + 5
        peer.finish()


def test_all_of_it_is_json_and_no_figure_is_missing(server: StatsServer) -> None:
    now = figures(server)
    assert None not in now.values()
    assert isinstance(now["Uptime"], float)
    assert json.dumps(now)


def test_a_word_for_an_address_evades_no_limit() -> None:
    """Whoever writes what is no address is counted by its socket."""
    with serving_stats("graft", max_connections_per_ip=1) as server, server.connect() as peer:
        assert peer.upgrade("/proxied", X_Forwarded_For=SCRIPT).status == 101
        peer.echo("it is open")
        for number in range(3):
            with server.connect() as other:
                assert other.upgrade("/proxied", X_Forwarded_For=f"me{number}, 10.0.0.1").status == 429


# --- without a server -------------------------------------------------------------------------------------------------


@pytest.fixture
def statistics() -> Iterator[dict[str, Any]]:
    """What is in ``logging.statistics``, which is restored."""
    module: Any = logging
    before = getattr(module, "statistics", None)
    module.statistics = {}
    yield module.statistics
    if before is None:
        del module.statistics
    else:
        module.statistics = before


def test_a_plugin_publishes_and_withdraws(statistics: dict[str, Any]) -> None:
    from cherrypy.process.wspbus import Bus

    from ws4py.server.cherrypyserver import WebSocketPlugin

    plugin, other = WebSocketPlugin(Bus()), WebSocketPlugin(Bus())
    assert statistics == {}
    plugin.start()
    assert statistics[NAMESPACE]["State"](None) == "running"
    other.start()
    newer = statistics[NAMESPACE]
    plugin.stop()
    assert statistics[NAMESPACE] is newer
    other.stop()
    assert statistics == {}


def test_a_program_without_statistics_gets_them(stage: Stage, statistics: dict[str, Any]) -> None:
    module: Any = logging
    del module.statistics
    mine = WebSocketStatistics(stage.manager())
    mine.publish()
    assert module.statistics[NAMESPACE] is mine
    mine.withdraw()
    assert module.statistics == {}
    module.statistics = statistics


def test_one_page_is_one_snapshot(stage: Stage) -> None:
    manager = stage.manager()
    mine = WebSocketStatistics(manager)
    _, peer = stage.connect(manager, EchoRecorder)
    peer.send(peer.text("one"))
    peer.receive_message()
    until(lambda: mine["Uptime"](mine) and mine["Messages Received"](mine) == 1)
    peer.send(peer.text("two"))
    peer.receive_message()
    assert mine["Messages Received"](mine) == 1  # of the same page
    mine["Uptime"](mine)
    assert mine["Messages Received"](mine) == 2  # of the next one
    mine["Enabled"] = False
    peer.send(peer.text("three"))
    peer.receive_message()
    mine["Uptime"](mine)
    assert mine["Messages Received"](mine) == 2
    mine["Enabled"] = True
    mine["Uptime"](mine)
    assert mine["Messages Received"](mine) == 3


def test_a_path_is_no_html(stage: Stage) -> None:
    manager = stage.manager()
    stage.connect(manager, EchoRecorder, environ={"PATH_INFO": "/<script>&"})
    (row,) = WebSocketStatistics(manager)["Busiest Connections"](None).values()
    assert row["Path"] == "/&lt;script&gt;&amp;"

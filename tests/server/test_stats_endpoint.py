"""The statistics over HTTP, on every server: as JSON, for Prometheus, as a page, and over a websocket."""

from __future__ import annotations

import base64
import contextlib
import json
import math
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import serving
from tests.helpers import EchoRecorder, Stage, until, wait_for
from tests.helpers import Peer as FramePeer
from tests.serving import Peer, Server, eventually, free_port
from ws4py.manager import WebSocketManager
from ws4py.manager.ranking import SORT_KEYS, take_connections
from ws4py.manager.snapshot import LIMITS
from ws4py.server.stats import StatsApplication, StatsCollector, basic_auth, mount

SCHEMA = Path(__file__).parents[2] / "docs" / "stats.schema.json"
PASSWORD = "Basic " + base64.b64encode(b"admin:s:cret").decode()
HOSTS = ["graft", "handler", "native", "cheroot", "gevent", "gevent-patched"]


class StatsServer(Server):
    """A server with the statistics mounted."""

    def __init__(self, host: str, port: int | None = None, **options: Any) -> None:
        pytest.importorskip("gevent" if host.startswith("gevent") else "cherrypy", reason=f"{host} is not installed")
        port = port or free_port()
        super().__init__(
            program=["-m", "tests.stats_app", host, str(port), json.dumps(options)], port=port, status=None
        )

    def stats(self) -> dict[str, Any]:
        figures: dict[str, Any] = self.ask("/stats/stats.json")
        return figures


@contextlib.contextmanager
def serving_stats(host: str, **options: Any) -> Iterator[StatsServer]:
    """Have a server with the statistics mounted."""
    server = StatsServer(host, **options)
    with server:
        yield server


@pytest.fixture(scope="module", params=HOSTS)
def server(request: pytest.FixtureRequest) -> Iterator[StatsServer]:
    with serving_stats(request.param) as server:
        yield server


@pytest.fixture(scope="module")
def one_server() -> Iterator[StatsServer]:
    with serving_stats("graft") as server:
        yield server


def validate(figures: Any, definition: str | None = None) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="the JSON is validated with the package jsonschema")
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    if definition is not None:
        schema = {"$ref": f"#/$defs/{definition}", "$defs": schema["$defs"]}
    jsonschema.Draft202012Validator(schema).validate(figures)


def leave(peer: Peer) -> None:
    """Close a websocket on which messages still come."""
    peer.sock.sendall(serving.close_frame())
    while peer.receive().opcode != serving.CLOSE:
        pass


def difference(before: Any, after: Any) -> Any:
    """Return by how much each number has grown; without those that have not."""
    if isinstance(after, dict):
        changes = {name: difference((before or {}).get(name), value) for name, value in after.items()}
        return {name: change for name, change in changes.items() if change}
    return after - (before or 0) if isinstance(after, (int, float)) else None


# --- on every server --------------------------------------------------------------------------------------------------


def test_the_figures_agree_with_what_a_client_did(server: StatsServer) -> None:
    before = server.stats()
    validate(before)
    with server.open("/ws") as peer:
        for text in ("one", "two two"):
            peer.echo(text)
        peer.echo(b"\x00" * 200)
        peer.send(b"p", serving.PING)
        assert peer.receive().opcode == serving.PONG
        during = server.stats()
        peer.finish(4001)

    def ended() -> bool:
        return bool(server.stats()["connections"]["closed"].get("4xxx"))

    eventually(ended, "the connection is counted as closed")
    after = server.stats()
    validate(after)
    grown = difference(before, after)
    assert difference(before, during)["connections"] == {"open": 1, "opened": 1}
    assert grown["connections"] == {"opened": 1, "closed": {"4xxx": 1}}
    assert grown["received"] == {
        "messages": {"text": 2, "binary": 1, "ping": 1, "close": 1},
        "payload_bytes": {"text": 10, "binary": 200},
        "bytes": (6 + 3) + (6 + 7) + (8 + 200) + (6 + 1) + (6 + 2),
    }
    assert grown["sent"] == {
        "messages": {"text": 2, "binary": 1, "pong": 1, "close": 1},
        "payload_bytes": {"text": 10, "binary": 200},
        "bytes": (2 + 3) + (2 + 7) + (4 + 200) + (2 + 1) + (2 + 2),
    }
    assert grown["workers"]["messages"] == 3
    assert after["workers"]["errors"] == 0


def test_refusals(server: StatsServer) -> None:
    before = server.stats()
    changes: list[tuple[dict[str, Any], int]] = [
        ({"Sec_WebSocket_Version": "99"}, 426),
        ({"Origin": "http://evil.example"}, 403),
    ]
    for change, status in changes:
        with server.connect() as peer:
            assert peer.upgrade("/ws", **change).status == status
    assert difference(before, server.stats())["connections"] == {"refused": {"426": 1, "403": 1}}


def test_single_connections(server: StatsServer) -> None:
    with server.open("/ws") as quiet, server.open("/ws") as busy:
        for _ in range(3):
            busy.echo("x")
        rows = server.ask("/stats/connections.json?top=1&by=messages")
        validate(rows, "connections")
        assert [(row["path"], row["messages_received"], row["messages_sent"]) for row in rows] == [("/ws", 3, 3)]
        assert rows[0]["address"] == "127.0.0.1"
        assert len(server.ask("/stats/connections.json")) >= 2
        quiet.finish()


def test_prometheus(server: StatsServer) -> None:
    pytest.importorskip("prometheus_client", reason="the text is made by the package prometheus_client")
    with server.open("/ws") as peer:
        peer.echo("one")
        samples = parse(server)
        peer.finish()
    stats = server.stats()
    assert samples["ws4py_connections_open"] == 1
    assert samples['ws4py_messages_total{direction="received",kind="text"}'] == stats["received"]["messages"]["text"]
    assert samples["ws4py_handled_messages_total"] == stats["workers"]["messages"]


def test_the_page_and_its_files(server: StatsServer) -> None:
    for path, content_type in (
        ("/stats/", "text/html"),
        ("/stats/dashboard.css", "text/css"),
        ("/stats/dashboard.js", "text/javascript"),
        ("/stats/charts.js", "text/javascript"),
    ):
        with server.connect() as peer:
            response = peer.get(path)
            assert response.status == 200
            assert (response.get("content-type") or "").startswith(content_type)
            assert "default-src 'none'" in (response.get("content-security-policy") or "")
            assert response.get("x-content-type-options") == "nosniff"
            assert (
                response.body
                == (Path(__file__).parents[2] / "ws4py/server/dashboard" / (path[7:] or "index.html")).read_bytes()
            )
        with server.connect() as peer:
            peer.sock.sendall(peer.request(path, If_None_Match=response.get("etag")))
            assert peer.read_response(body=False).status == 304
    with server.connect() as peer:
        response = peer.get("/stats")
        assert response.status in (301, 302, 303)
        assert (response.get("location") or "").endswith("stats/")


def test_the_feed(server: StatsServer) -> None:
    with server.open("/stats/feed") as peer:
        first = json.loads(peer.message())
        validate(first["stats"])
        validate(first["slowest"], "connections")
        peer.send(json.dumps({"busiest": "age", "slowest": "nonsense", "more": 1}))
        peer.send("no json")
        peer.send("[[]]")
        figures = first
        while figures["stats"]["received"]["messages"]["text"] < first["stats"]["received"]["messages"]["text"] + 3:
            figures = json.loads(peer.message())
        assert figures["busiest"]
        assert figures["stats"]["time"] > first["stats"]["time"]
        leave(peer)
    assert list(server.ask("/stats/limits.json")) == list(LIMITS)
    polled = server.ask("/stats/dashboard.json?slowest=inbox&busiest=bytes")
    assert set(polled) == {"stats", "interval", "slowest", "busiest"}


def test_there_may_be_so_many_viewers(server: StatsServer) -> None:
    """A further one gets a 503, and asks without a websocket."""
    with server.open("/few/feed") as first, server.open("/few/feed") as second:
        assert json.loads(first.message())["stats"]
        assert json.loads(second.message())["stats"]
        with server.connect() as third:
            assert third.upgrade("/few/feed").status == 503
        assert server.ask("/few/dashboard.json")["stats"]["connections"]["open"] == 2
        leave(first)

    def room() -> bool:
        with server.connect() as peer:
            return peer.upgrade("/few/feed").status == 101

    eventually(room, "there is room again")


def test_who_may_see_it(server: StatsServer) -> None:
    for path in ("/", "/stats.json", "/connections.json", "/metrics", "/dashboard.json", "/dashboard.js", "/nothing"):
        with server.connect() as peer:
            response = peer.get(f"/protected{path}")
            assert response.status == 401
            assert (response.get("www-authenticate") or "").startswith("Basic realm=")
        with server.connect() as peer:
            assert peer.get(f"/protected{path}", Authorization="Basic YWRtaW46YWRtaW4=").status == 401
        assert server.get(f"/forbidden{path}").status == 403
    with server.connect() as peer:
        assert peer.get("/protected/stats.json", Authorization=PASSWORD).status == 200
    for path in ("/protected/feed", "/forbidden/feed"):
        with server.connect() as peer:
            assert peer.upgrade(path).status in (401, 403)
    with server.connect() as peer:
        assert peer.upgrade("/protected/feed", Authorization=PASSWORD).status == 101
        assert json.loads(peer.message())["stats"]
        leave(peer)
    with server.connect() as peer:
        assert peer.upgrade("/stats/feed", Origin="http://evil.example").status == 403


def test_by_which_names_they_may_be_asked(server: StatsServer) -> None:
    """A page whose name has come to mean this machine asks by that name."""
    rebound = f"rebound.example:{server.port}"
    for path in ("/", "/stats.json", "/connections.json", "/metrics", "/dashboard.json", "/dashboard.js"):
        for host, status in ((rebound, 403), (f"localhost:{server.port}", 200)):
            with server.connect() as peer:
                assert peer.get(f"/local{path}", Host=host).status == status
    with server.connect() as peer:
        assert peer.upgrade("/local/feed", Host=rebound, Origin=f"http://{rebound}").status == 403
    with server.connect() as peer:
        assert peer.upgrade("/local/feed", Origin=f"http://{server.host}").status == 101
        assert json.loads(peer.message())["stats"]
        leave(peer)


def test_a_server_may_keep_its_clients_addresses_to_itself(server: StatsServer) -> None:
    assert server.get("/private/connections.json").status == 404
    assert set(server.ask("/private/dashboard.json")) == {"stats", "interval"}


def test_wrong_requests(server: StatsServer) -> None:
    for path, status in (
        ("/stats/nothing", 404),
        ("/stats/feed", 426),
        ("/stats/connections.json?top=-1", 400),
        ("/stats/connections.json?top=1001", 400),
        ("/stats/connections.json?top=x", 400),
        ("/stats/connections.json?by=beauty", 400),
        ("/stats/dashboard.json?slowest=beauty", 400),
    ):
        response = server.get(path)
        assert response.status in ((400, 426) if status == 426 else (status,)), (path, response)
    with server.connect() as peer:
        peer.sock.sendall(peer.request("/stats/stats.json", "POST", Content_Length="0"))
        response = peer.read_response()
        assert (response.status, response.get("allow")) == (405, "GET, HEAD")
    with server.connect() as peer:
        peer.sock.sendall(peer.request("/stats/stats.json", "HEAD"))
        assert peer.read_response(body=False).status == 200


def test_the_rest_of_the_application_is_untouched(server: StatsServer) -> None:
    assert server.get("/").body == b"hi"


# --- the application alone --------------------------------------------------------------------------------------------


def ask(application: Any, path: str, **environ: Any) -> tuple[str, dict[str, str], bytes]:
    """Call a WSGI application."""
    started: list[Any] = []
    body = application(
        {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": path, **environ}, lambda *args: started.extend(args)
    )
    return started[0], dict(started[1]), b"".join(body)


def test_without_a_manager() -> None:
    status, _, body = ask(StatsApplication(), "/stats.json")
    assert status.startswith("503")
    assert b"No manager" in body


def test_without_prometheus_client(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "prometheus_client"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    status, _, body = ask(StatsApplication(stage.manager()), "/metrics")
    assert status.startswith("501")
    assert b"ws4py[stats]" in body


def test_to_import_it_imports_no_extra() -> None:
    extras = ["prometheus_client", "cherrypy", "gevent"]
    program = f"import sys, ws4py.server.stats; print([name for name in {extras} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_arguments() -> None:
    with pytest.raises(ValueError, match="interval"):
        StatsApplication(interval=0)


@pytest.mark.parametrize(
    ("header", "allowed"),
    [
        (PASSWORD, True),
        (PASSWORD.replace("Basic", "basic "), True),
        ("", False),
        ("Basic", False),
        ("Basic \N{LATIN SMALL LETTER E WITH ACUTE}", False),
        ("Bearer " + PASSWORD[6:], False),
        (PASSWORD + "x", False),
    ],
)
def test_basic_auth(header: str, allowed: bool) -> None:
    assert basic_auth("admin", "s:cret")({"HTTP_AUTHORIZATION": header}) is allowed
    assert not basic_auth("admin", "s:cret")({})


def test_mount() -> None:
    def echo(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        return [f"{environ['SCRIPT_NAME']}|{environ['PATH_INFO']}".encode()]

    application = mount(lambda environ, start_response: [b"other"], echo, "stats/")
    for path, seen in (
        ("/stats", b"/app/stats|"),
        ("/stats/", b"/app/stats|/"),
        ("/stats/a/b", b"/app/stats|/a/b"),
        ("/statsx", b"other"),
        ("/", b"other"),
    ):
        assert b"".join(application({"SCRIPT_NAME": "/app", "PATH_INFO": path}, lambda *_: None)) == seen


# --- Prometheus -------------------------------------------------------------------------------------------------------


def parse(server: StatsServer, **headers: str) -> dict[str, float]:
    """Return the samples of the exposition by their names and labels."""
    from prometheus_client.parser import text_string_to_metric_families

    with server.connect() as peer:
        response = peer.get("/stats/metrics", **headers)
    assert response.status == 200
    assert (response.get("content-type") or "").replace(" ", "").startswith("text/plain;version=")
    samples = {}
    families: Any = text_string_to_metric_families(response.body.decode())
    for family in families:
        assert family.name.startswith("ws4py_")
        assert family.documentation
        assert family.type in ("counter", "gauge", "histogram")
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            name = f"{sample.name}{{{labels}}}" if labels else sample.name
            assert name not in samples
            samples[name] = sample.value
    return samples


def test_every_limit_and_the_common_codes_are_there_from_the_beginning(one_server: StatsServer) -> None:
    pytest.importorskip("prometheus_client", reason="the text is made by the package prometheus_client")
    samples = parse(one_server)
    for limit in LIMITS:
        assert f'ws4py_limit_actions_total{{limit="{limit}"}}' in samples
    for code in (1000, 1001, 1006, 1011, "3xxx", "4xxx"):
        assert f'ws4py_connections_closed_total{{code="{code}"}}' in samples


def test_clients_make_no_series(one_server: StatsServer) -> None:
    """Whatever codes they close with, and whatever they are refused for."""
    pytest.importorskip("prometheus_client", reason="the text is made by the package prometheus_client")
    before = parse(one_server)
    for code in range(3000, 5000, 50):
        with one_server.open("/ws") as peer:
            peer.finish(code)
    for status in (471, 472, 499):
        with one_server.connect() as peer:
            assert peer.upgrade(f"/ws?status={status}").status == status
    label = 'ws4py_connections_closed_total{{code="{}"}}'
    eventually(lambda: parse(one_server)[label.format("4xxx")] - before[label.format("4xxx")] == 20, "all are counted")
    after = parse(one_server)
    assert after[label.format("3xxx")] - before[label.format("3xxx")] == 20
    assert set(after) - set(before) <= {'ws4py_handshakes_refused_total{status="4xx"}'}


def test_histograms_are_cumulative(one_server: StatsServer) -> None:
    pytest.importorskip("prometheus_client", reason="the text is made by the package prometheus_client")
    with one_server.open("/ws") as peer:
        peer.echo("x")
        samples = parse(one_server)
    for name in ("queue_wait", "handler", "loop_lag", "ping_round_trip"):
        buckets = [value for key, value in samples.items() if key.startswith(f"ws4py_{name}_seconds_bucket")]
        assert buckets == sorted(buckets)
        assert buckets[-1] == samples[f"ws4py_{name}_seconds_count"]
        assert math.isfinite(samples[f"ws4py_{name}_seconds_sum"])


def test_openmetrics(one_server: StatsServer) -> None:
    pytest.importorskip("prometheus_client", reason="the text is made by the package prometheus_client")
    parser: Any = pytest.importorskip("prometheus_client.openmetrics.parser")
    with one_server.connect() as peer:
        response = peer.get("/stats/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert (response.get("content-type") or "").startswith("application/openmetrics-text")
    assert list(parser.text_string_to_metric_families(response.body.decode()))


def test_a_registry_of_ones_own(stage: Stage) -> None:
    prometheus_client = pytest.importorskip("prometheus_client", reason="the registry is prometheus_client's")
    manager = stage.manager()
    registry = prometheus_client.CollectorRegistry()
    registry.register(StatsCollector(manager))
    _, peer = stage.connect(manager, EchoRecorder)
    peer.send(peer.text("x"))
    peer.receive_message()
    assert registry.get_sample_value("ws4py_connections_open") == 1
    assert registry.get_sample_value("ws4py_messages_total", {"direction": "sent", "kind": "text"}) == 1
    assert registry.get_sample_value("ws4py_limit_actions_total", {"limit": "inbox"}) == 0


def test_a_real_prometheus(one_server: StatsServer, tmp_path: Path) -> None:
    """It scrapes the endpoint, with a password, and answers queries about it."""
    prometheus = shutil.which("prometheus")
    if prometheus is None:
        pytest.skip("there is no prometheus: apt-get install prometheus")
    pytest.importorskip("prometheus_client", reason="the text is made by the package prometheus_client")
    port = free_port()
    (tmp_path / "prometheus.yml").write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
                "scrape_configs": [
                    {
                        "job_name": "ws4py",
                        "metrics_path": "/protected/metrics",
                        "basic_auth": {"username": "admin", "password": "s:cret"},
                        "static_configs": [{"targets": [one_server.host]}],
                    }
                ],
            }
        )
    )
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                prometheus,
                f"--config.file={tmp_path / 'prometheus.yml'}",
                f"--storage.tsdb.path={tmp_path / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    address = ("127.0.0.1", port)

    def query(expression: str) -> list[Any]:
        import urllib.parse

        sock = socket.create_connection(address, serving.PATIENCE)
        with Peer(sock, f"127.0.0.1:{port}") as peer:
            body = peer.get(f"/api/v1/query?query={urllib.parse.quote(expression)}", Connection="close").body
        answer = json.loads(body)
        assert answer["status"] == "success", answer
        result: list[Any] = answer["data"]["result"]
        return result

    def scraped() -> bool:
        assert process.poll() is None, (tmp_path / "log").read_text()
        try:
            return [item["value"][1] for item in query("ws4py_connections_open")] == ["2"]
        except (ConnectionError, json.JSONDecodeError):  # it is starting
            return False

    try:
        with one_server.open("/ws") as first, one_server.open("/ws") as second:
            first.echo("x")
            eventually(scraped, "Prometheus has scraped the figures")
            second.echo("y")
        (up,) = query('up{job="ws4py"}')
        assert up["value"][1] == "1"
        (text,) = query('ws4py_messages_total{direction="received",kind="text"}')
        assert float(text["value"][1]) >= 1
        assert query("histogram_quantile(0.99, sum by (le) (ws4py_handler_seconds_bucket))")
    finally:
        process.terminate()
        process.wait(serving.PATIENCE)


# --- many viewers -----------------------------------------------------------------------------------------------------


def test_viewers_come_and_go(one_server: StatsServer) -> None:
    """The thread that feeds them ends with the last one, and comes back with the next."""
    for _ in range(2):
        peers = [one_server.open("/stats/feed") for _ in range(3)]
        for peer in peers:
            for _ in range(2):
                json.loads(peer.message())
        for peer in peers:
            leave(peer)
            peer.close()
    eventually(lambda: one_server.stats()["connections"]["open"] == 0, "all viewers are gone")


def test_a_viewer_that_does_not_read_is_left_behind(stage: Stage) -> None:
    manager = stage.manager()
    application = StatsApplication(manager, interval=0.01)
    made: list[Any] = []

    def make(sock: Any) -> Any:
        made.append(application.viewer(manager)(sock))
        return made[-1]

    viewer: Any = make
    _, peer = stage.connect(manager, viewer, small=True)
    assert json.loads(peer.receive_message())["stats"]
    traffic = made[0]._connection.traffic
    pushed = "x" * (1 << 17)
    made[0].send(pushed)
    before = traffic.messages_sent
    with stage_of_seconds(manager, 20) as ticks:
        assert ticks
    assert traffic.messages_sent <= before + 2
    while peer.receive_message() != pushed.encode():
        pass
    peer.close()


def view(stage: Stage, application: StatsApplication, manager: WebSocketManager) -> FramePeer:
    """Return the peer of a dashboard's websocket."""
    viewer: Any = application.viewer(manager)
    return stage.connect(manager, viewer)[1]


def test_what_a_viewer_asks_for_waits_for_its_turn(stage: Stage) -> None:
    """However many wishes come, figures are made at most once a second for them."""
    manager = stage.manager()
    application = StatsApplication(manager, interval=600)
    counted = stage_of_seconds(manager, 0)
    with counted:
        began = time.monotonic()
        peer = view(stage, application, manager)
        json.loads(peer.receive_message())
        for _ in range(200):
            peer.send(peer.text('{"busiest": "nonsense"}'))
        peer.send(peer.text('{"busiest": "age", "slowest": "idle"}'))
        until(lambda: manager.stats().workers.messages == 201)
        looks = counted.asked
        figures = json.loads(peer.receive_message())
        while figures["busiest"][0]["messages_received"] < 201:  # one who asked within the first second
            figures = json.loads(peer.receive_message())
        made = counted.asked - looks + 1
        assert made <= 1 + time.monotonic() - began
        peer.say_goodbye()


def test_viewers_share_what_is_looked_up(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many dashboards as there are, the connections are looked through once for each of their orders."""
    manager = stage.manager()
    for _ in range(3):
        wait_for(stage.connect(manager, EchoRecorder)[0].was_opened)
    until(lambda: manager.stats().inbox.messages == 0)
    application = StatsApplication(manager)
    asked: list[Any] = []

    def counted(source: Any, top: int | None, keys: Any) -> Any:
        asked.append(keys)
        return take_connections(source, top, keys)

    monkeypatch.setattr("ws4py.manager.adding.take_connections", counted)
    choices = [(slowest, busiest) for slowest in SORT_KEYS for busiest in SORT_KEYS]
    shown = application.dashboards(manager, choices)
    assert [len(keys) for keys in asked] == [len(SORT_KEYS)]
    assert len(shown) == len(choices)
    for (slowest, busiest), figures in zip(choices, shown, strict=True):
        for name, key in (("slowest", slowest), ("busiest", busiest)):
            rows = manager.connection_stats(10, key)
            assert [row["id"] for row in figures[name]] == [row.id for row in rows]


def test_a_crowd_of_viewers_that_finds_room_at_once(stage: Stage) -> None:
    manager = stage.manager()
    application = StatsApplication(manager, max_viewers=1)
    assert json.loads(view(stage, application, manager).receive_message())["stats"]
    code, reason = view(stage, application, manager).receive_close()
    assert (code, reason) == (1013, "As many dashboards as may have a websocket are open")


@pytest.mark.parametrize("number", [-1, 1.5, True, "1", None])
def test_how_many_viewers_is_a_number(number: Any) -> None:
    with pytest.raises(ValueError, match="max_viewers must be a whole number"):
        StatsApplication(max_viewers=number)


class stage_of_seconds:  # noqa: N801 - it reads as a phrase
    """Waits until a manager was asked for its figures so many times."""

    def __init__(self, manager: Any, times: int) -> None:
        self._manager = manager
        self._times = times
        self._asked = 0

    @property
    def asked(self) -> int:
        return self._asked

    def __enter__(self) -> bool:
        stats = self._manager.stats

        def counted() -> Any:
            self._asked += 1
            return stats()

        self._manager.stats = counted
        eventually(lambda: self._asked >= self._times, "the feed has asked for the figures again and again")
        return True

    def __exit__(self, *_: object) -> None:
        del self._manager.stats

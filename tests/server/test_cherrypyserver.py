"""The tool and the plugin of CherryPy: handshakes, page handlers, configuration, errors."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import socket
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("cherrypy", reason="these are tests of ws4py under CherryPy")
client = pytest.importorskip("websockets.sync.client", reason="one of the peers is the package websockets")

from tests.serving import PATIENCE, PING, ROOT, TEXT, Response, Server, frame, free_port  # noqa: E402

KINDS = ("wsgi", "native")
HANDSHAKES_OWN = ("upgrade", "connection", "sec-websocket-accept", "sec-websocket-protocol", "sec-websocket-extensions")

tags = (f"t{number}" for number in itertools.count())


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server whose log is to stay without a traceback."""
    with Server({"server": request.param}) as server:
        yield server
        assert server.state(websockets=0)["entries"] == 0


@pytest.fixture(scope="module", params=KINDS)
def complaining(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server with pages whose authors have made mistakes."""
    with Server({"server": request.param}, quiet=False) as server:
        yield server
        assert server.state(websockets=0)["entries"] == 0


@pytest.fixture
def tag() -> str:
    """What the events of a test's websockets are kept under."""
    return next(tags)


def needs_redirects_inside(server: Server) -> None:
    """Skip the calling test where CherryPy itself can't redirect inside."""
    if server.get("/to_index").status != 200:
        pytest.skip("CherryPy's native server loses the headers of a request that is redirected inside")


def check_refusal(response: Response, status: int) -> None:
    assert response.status == status, response
    for name in HANDSHAKES_OWN:
        assert response.get(name) is None


# --- handshakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "changes"),
    [
        (426, {"Upgrade": None}),
        (426, {"Upgrade": "h2c"}),
        (426, {"Connection": None}),
        (426, {"Connection": "keep-alive"}),
        (426, {"Sec_WebSocket_Version": None}),
        (426, {"Sec_WebSocket_Version": "7"}),
        (426, {"Sec_WebSocket_Version": "thirteen"}),
        (400, {"Sec_WebSocket_Key": None}),
        (400, {"Sec_WebSocket_Key": "c2hvcnQ="}),
        (400, {"Sec_WebSocket_Key": "not base64 at all !!!!!="}),
        (400, {"Sec_WebSocket_Protocol": "two words"}),
        (403, {"Origin": "http://elsewhere.example"}),
        (403, {"Origin": "null"}),
        (403, {"Origin": "http://127.0.0.1:1"}),
        (403, {"Origin": "http://["}),
    ],
)
def test_a_bad_handshake_is_refused(server: Server, tag: str, status: int, changes: dict[str, Any]) -> None:
    before = server.state()["refused"].get(str(status), 0)
    with server.connect() as peer:
        response = peer.upgrade(f"/echo?tag={tag}", **changes)
        assert response.status == status
        assert response.body
        assert response.get("sec-websocket-accept") is None
        if status == 426:
            assert response.get("sec-websocket-version") == "13, 8"
            assert response.get("upgrade") == "websocket"
        else:
            check_refusal(response, status)
        assert peer.get("/").body == b"hello"
    assert server.events(tag) == []
    assert server.state()["refused"][str(status)] == before + 1


@pytest.mark.parametrize("method", ["POST", "PUT", "HEAD", "DELETE", "OPTIONS"])
def test_another_method_is_refused(server: Server, method: str) -> None:
    with server.connect() as peer:
        peer.sock.sendall(peer.handshake("/echo", method, Content_Length="0"))
        response = peer.read_response(body=method != "HEAD")
        assert response.status == 405
        assert response.get("allow") == "GET"


def test_http_1_0_is_refused(server: Server) -> None:
    with server.connect() as peer:
        peer.sock.sendall(peer.handshake("/echo").replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert peer.read_response().status == 400


def test_a_plain_request_for_a_websockets_page(server: Server) -> None:
    response = server.get("/echo")
    assert response.status == 426
    assert response.get("sec-websocket-version") == "13, 8"


@pytest.mark.parametrize(
    "changes",
    [
        {"Upgrade": "WebSocket"},
        {"Connection": "keep-alive, Upgrade"},
        {"Connection": "UPGRADE"},
        {"Sec_WebSocket_Version": "8"},
        {"Origin": "http://{host}"},
        {"Origin": "https://{host}"},
        {"Sec_WebSocket_Protocol": "whatever"},
        {"Sec_WebSocket_Extensions": "permessage-deflate; client_max_window_bits, x-unknown"},
    ],
)
def test_an_unusual_handshake_is_accepted(server: Server, changes: dict[str, Any]) -> None:
    with server.connect() as peer:
        response = peer.upgrade("/echo", **{name: value.format(host=server.host) for name, value in changes.items()})
        assert response.status == 101
        assert response.get("sec-websocket-protocol") is None
        assert response.get("sec-websocket-extensions") is None
        peer.echo("accepted")
        peer.finish()


def test_no_garbage_is_an_error_of_the_servers(server: Server) -> None:
    chance = random.Random(6455)
    codes = (*range(1, 10), *range(0x20, 0x7F), *range(0x80, 0x100))
    alphabet = [chr(code) for code in codes] + list(",;=\"'\\ \t%:/[]<>" * 4)
    names = [
        "Upgrade",
        "Connection",
        "Sec_WebSocket_Version",
        "Sec_WebSocket_Key",
        "Sec_WebSocket_Protocol",
        "Sec_WebSocket_Extensions",
        "Origin",
        "Sec_WebSocket_Origin",
        "Host",
        "X_Bearer",
    ]
    statuses = set()
    for number in range(300):
        value = "".join(chance.choices(alphabet, k=chance.choice((0, 1, 3, 20, 200)))).replace("=?", "")
        path = chance.choice(("/echo", "/protocols", "/origins", "/guarded", "/version", "/cookie"))
        with server.connect() as peer:
            changes: dict[str, Any] = {chance.choice(names): value}
            response = peer.upgrade(path, **changes)
            statuses.add(response.status)
            assert response.status == 101 or 400 <= response.status < 500, (number, value, response)
    assert {101, 400, 403, 426} <= statuses


def test_garbage_behind_the_handshake_closes_only_its_websocket(server: Server, tag: str) -> None:
    chance = random.Random(6455)
    with server.open(f"/echo?tag={tag}") as bystander:
        for number in range(60):
            with server.connect() as peer:
                peer.sock.sendall(peer.handshake("/echo") + chance.randbytes(chance.choice((1, 10, 300, 20_000))))
                if number % 2:
                    peer.sock.shutdown(1)
                    peer.read_to_the_end()
        bystander.echo("undisturbed")
        assert server.get("/").body == b"hello"
        bystander.finish()


def test_a_body_in_the_handshake_is_not_taken_for_frames(server: Server) -> None:
    with server.connect() as peer:
        assert peer.upgrade("/echo", after=b"a body", Content_Length="6").status == 101
        peer.echo("a frame")
        peer.finish()
    with server.open("/echo", after=b"1\r\nx\r\n0\r\n\r\n", Transfer_Encoding="chunked") as peer:
        assert peer.receive().code == 1002
        assert peer.read_to_the_end() == b""


def test_the_limits_of_the_plugin() -> None:
    options = {"plugin": {"max_connections": 3, "max_connections_per_ip": 2, "drain_timeout": 7.0}}
    with Server(options) as server, contextlib.ExitStack() as stack:
        peers = [stack.enter_context(server.open("/echo")) for _ in range(2)]
        for peer in peers:
            peer.echo("welcome")
        with server.connect() as third:
            response = third.upgrade("/echo")
            check_refusal(response, 429)
            assert response.get("retry-after") == "7"
            peers[0].finish()
            server.state(websockets=1)
            assert third.upgrade("/echo").status == 101  # there is room again, and the connection is as good as new
            third.echo("welcome")
            third.finish()
        peers[1].finish()


def test_the_limit_of_the_whole_plugin() -> None:
    with Server({"plugin": {"max_connections": 2}}) as server, contextlib.ExitStack() as stack:
        peers = [stack.enter_context(server.open("/echo")) for _ in range(2)]
        for peer in peers:
            peer.echo("welcome")
        with server.connect() as third:
            response = third.upgrade("/echo")
            check_refusal(response, 503)
            assert int(response.get("retry-after") or 0) >= 1
        assert server.get("/").body == b"hello"
        assert server.state()["limits"] == {"max_connections": 1}
        for peer in peers:
            peer.finish()


# --- page handlers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 503])
def test_a_page_that_refuses(server: Server, tag: str, status: int) -> None:
    with server.connect() as peer:
        response = peer.upgrade(f"/refuse?status={status}&tag={tag}", after=b"")
        check_refusal(response, status)
        assert b"refused by the page" in response.body
        assert peer.get("/").body == b"hello"
    assert server.events(tag) == []
    assert server.state(websockets=0)["entries"] == 0


def test_a_page_that_redirects(server: Server, tag: str) -> None:
    with server.connect() as peer:
        response = peer.upgrade(f"/redirect?tag={tag}")
        check_refusal(response, 303)
        assert response.get("location") == f"http://{server.host}/"
        assert peer.get("/").body == b"hello"
    assert server.events(tag) == []


def test_a_page_that_redirects_inside(server: Server, tag: str) -> None:
    needs_redirects_inside(server)
    with server.connect() as peer:
        response = peer.upgrade(f"/internal?tag={tag}")
        check_refusal(response, 200)
        assert response.body == b"hello"
    assert server.events(tag) == []


def test_a_page_that_redirects_to_a_websocket(server: Server) -> None:
    needs_redirects_inside(server)
    with server.connect() as peer:
        assert peer.upgrade("/to_echo").status == 101
        peer.echo("arrived")
        peer.finish()
    assert server.events("internal", 2)[-1] == ["closed", 1000, ""]


def test_a_page_that_answers_after_all(server: Server, tag: str) -> None:
    with server.connect() as peer:
        response = peer.upgrade(f"/ordinary?tag={tag}")
        check_refusal(response, 200)
        assert response.body == b"no websocket today"
        assert response.get("content-type") is not None
        assert peer.get("/").body == b"hello"
    assert server.events(tag) == []


def test_what_a_page_returns_is_not_sent(server: Server) -> None:
    with server.open("/body") as peer:
        peer.echo("nothing but this")
        peer.finish()


def test_a_page_sets_attributes(server: Server) -> None:
    with server.open("/attributes?text=by+the+page") as peer:
        assert peer.message() == "by the page"
        peer.finish()


def test_what_opened_sends_comes_behind_the_response(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        for number in range(50):
            peer = stack.enter_context(server.open(f"/attributes?text=hello+{number}"))
            assert peer.message() == f"hello {number}"
            peer.finish()


def test_cookies_and_headers_of_the_page(server: Server) -> None:
    with server.connect() as peer:
        response = peer.upgrade("/cookie")
        assert response.get("set-cookie") == "flavour=vanilla"
        assert response.get("x-own") == "kept"
        peer.echo("still one")
        peer.finish()


def test_sessions(server: Server) -> None:
    cookie = None
    for visits in range(1, 4):
        with server.connect() as peer:
            response = peer.upgrade("/session", Cookie=cookie)
            assert peer.message() == str(visits)
            cookie = (response.get("set-cookie") or "").partition(";")[0]
            assert cookie.startswith("session_id=")
            peer.finish()


def test_authentication_comes_first(server: Server, tag: str) -> None:
    with server.connect() as peer:
        response = peer.upgrade(f"/basic?tag={tag}")
        check_refusal(response, 401)
        assert response.get("www-authenticate")
        assert peer.upgrade(f"/basic?tag={tag}", Authorization="Basic YW5uOndyb25n").status == 401
        assert server.events(tag) == []
        assert peer.upgrade(f"/basic?tag={tag}", Authorization="Basic YW5uOnNlY3JldA==").status == 101
        peer.echo("authorized")
        peer.finish()


def test_among_many_other_tools(server: Server) -> None:
    for _ in range(2):
        with server.connect() as peer:
            response = peer.upgrade("/dressed", Accept_Encoding="gzip")
            assert response.status == 101
            for name in ("content-type", "content-length", "content-encoding", "transfer-encoding"):
                assert response.get(name) is None
            peer.echo("as bare as ever" * 100)
            peer.finish()


@pytest.mark.parametrize(("path", "status"), [("/fail", 500), ("/late_error", 500), ("/late_refusal", 403)])
def test_a_page_that_fails(complaining: Server, tag: str, path: str, status: int) -> None:
    with complaining.connect() as peer:
        check_refusal(peer.upgrade(f"{path}?tag={tag}"), status)
        assert peer.get("/").body == b"hello"
        assert peer.upgrade("/echo").status == 101
        peer.echo("another one works")
        peer.finish()
    assert complaining.events(tag) == []
    assert complaining.state(websockets=0)["entries"] == 0


def test_a_handler_that_raises(complaining: Server, tag: str) -> None:
    with complaining.open(f"/raiser?tag={tag}") as peer:
        peer.send("anything")
        assert peer.receive().code == 1011
        peer.finish_after_close(1011)
    assert complaining.events(tag, 2)[1][:2] == ["closed", 1011]
    assert "a handler's own fault" in complaining.log()


# --- configuration ----------------------------------------------------------------------------------------------------


def test_the_decorator(server: Server, tag: str) -> None:
    with server.open(f"/decorated?tag={tag}") as peer:
        peer.echo("decorated")
        peer.finish()
    assert len(server.events(tag, 2)) == 2


def test_another_name_of_the_tool(server: Server) -> None:
    with server.open("/another") as peer:
        peer.echo("by another name")
        peer.finish()


@pytest.mark.parametrize(
    ("offered", "chosen"), [(None, None), ("superchat, chat", "superchat"), ("none,chat", "chat"), ("Chat", None)]
)
def test_subprotocols(server: Server, tag: str, offered: str | None, chosen: str | None) -> None:
    with server.connect() as peer:
        response = peer.upgrade(f"/protocols?tag={tag}", Sec_WebSocket_Protocol=offered)
        assert response.get("sec-websocket-protocol") == chosen
        peer.finish()
    assert server.events(tag, 1)[0] == ["opened", [chosen] if chosen else None, []]


def test_extensions(server: Server, tag: str) -> None:
    with server.connect() as peer:
        response = peer.upgrade(f"/extensions?tag={tag}", Sec_WebSocket_Extensions="x-other, x-known")
        assert response.get("sec-websocket-extensions") == "x-known"
        peer.finish()
    assert server.events(tag, 1)[0] == ["opened", None, ["x-known"]]


def test_versions(server: Server) -> None:
    with server.connect() as peer:
        response = peer.upgrade("/version", Sec_WebSocket_Version="8")
        assert response.status == 426
        assert response.get("sec-websocket-version") == "13"
        assert peer.upgrade("/version").status == 101
        peer.finish()


def test_the_heartbeat(server: Server) -> None:
    with server.open("/heartbeat") as peer:
        for _ in range(3):
            ping = peer.receive()
            assert ping.opcode == PING
            peer.send(ping.payload, 10)
        peer.sock.sendall(frame(b"\x03\xe8", 8))
        while (answer := peer.receive()).opcode == PING:
            pass
        assert answer.code == 1000


def test_origins(server: Server) -> None:
    with server.connect() as peer:
        check_refusal(peer.upgrade("/origins", Origin=f"http://{server.host}"), 403)
        check_refusal(peer.upgrade("/origins", Origin="https://page.example.evil.example"), 403)
        assert peer.upgrade("/origins", Origin="https://Page.example").status == 101
        peer.finish()
    with server.open("/any_origin", Origin="http://elsewhere.example") as peer:
        peer.echo("welcome")
        peer.finish()
    with server.open("/origins") as peer:  # not from a page
        peer.finish()


def test_the_size_of_messages_is_limited_by_page(server: Server, tag: str) -> None:
    with server.open(f"/limited?tag={tag}") as peer:
        peer.echo(b"x" * 1000)
        peer.sock.sendall(frame(b"x" * 1001)[:14])  # the head is enough
        assert peer.receive().code == 1009
        peer.read_to_the_end()
    with server.open("/echo") as peer:
        peer.echo(b"x" * 1001)
        peer.finish()


def test_hosts(server: Server) -> None:
    with server.connect() as peer:
        rebound = f"rebound.example:{server.port}"
        check_refusal(peer.upgrade("/hosts", Host=rebound, Origin=f"http://{rebound}"), 403)
        check_refusal(peer.upgrade("/hosts", Host=rebound), 403)
        assert peer.upgrade("/hosts", Origin=f"http://{server.host}").status == 101
        peer.finish()


def test_the_scheme_that_a_proxy_tells(server: Server) -> None:
    for path, scheme, forwarded, status in (
        ("/echo", "http", None, 101),
        ("/echo", "https", None, 101),
        ("/echo", "http", "https", 403),
        ("/echo", "https", "https", 101),
        ("/proxied", "http", None, 403),
        ("/proxied", "https", None, 101),
    ):
        with server.connect() as peer:
            response = peer.upgrade(path, Origin=f"{scheme}://{server.host}", X_Forwarded_Proto=forwarded)
            assert response.status == status
            if status == 101:
                peer.finish()


def test_what_is_kept_of_a_request(server: Server) -> None:
    """All of it, but the longest texts of one that has too much."""

    def kept(path: str) -> dict[str, int]:
        with server.open(path, Cookie="c" * 4000, X_Filler="x" * 60_000, X_Other="y" * 30_000, X_Short="z") as peer:
            peer.send("what")
            sizes: dict[str, int] = json.loads(peer.message())
            peer.finish()
        return sizes

    sizes = kept("/request?a=b")
    assert (sizes["HTTP_COOKIE"], sizes["HTTP_X_SHORT"], sizes["QUERY_STRING"]) == (4000, 1, 3)
    assert {"HTTP_HOST", "PATH_INFO", "REMOTE_ADDR"} <= set(sizes)
    assert not {"HTTP_X_FILLER", "HTTP_X_OTHER"} & set(sizes)
    assert kept("/no_environ?a=b") == {}
    assert kept("/little_environ?a=b") == {"HTTP_HOST": len(server.host), "QUERY_STRING": 3}


def test_fragments_are_limited_by_page(server: Server) -> None:
    with server.open("/fragmented") as peer:
        peer.sock.sendall(frame(b"1", TEXT, fin=False) + frame(b"2", 0, fin=False) + frame(b"3", 0))
        assert peer.message() == "123"
        peer.sock.sendall(frame(b"1", TEXT, fin=False) + frame(b"2", 0, fin=False) * 3)
        assert peer.receive().code == 1009


def test_the_rate_of_messages_is_limited_by_page(server: Server) -> None:
    with server.open("/rated") as peer:
        peer.sock.sendall(frame("fast") * 30)
        while (received := peer.receive()).opcode == TEXT:
            pass
        assert received.code == 1008


def test_a_tool_that_overrides_upgrade(server: Server, tag: str) -> None:
    with server.connect() as peer:
        response = peer.upgrade(f"/guarded?tag={tag}")
        check_refusal(response, 403)
        assert b"You may not" in response.body
        response = peer.upgrade(f"/guarded?tag={tag}", X_Bearer="own", Sec_WebSocket_Protocol="other, own")
        assert response.status == 101
        assert response.get("sec-websocket-protocol") == "own"
        peer.echo("guarded")
        peer.finish()
    assert server.events(tag, 2)[0] == ["opened", ["own"], []]


def test_the_channel_that_hands_websockets_over(server: Server, tag: str) -> None:
    assert server.get(f"/hand_over?tag={tag}").body == b"by the bus"
    assert server.events(tag, 2)[1][:2] == ["closed", 1006]


# --- mistakes in programs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/not_websocket", ("TypeError", "handler_cls must make a WebSocket", "not_a_websocket")),
        ("/broken", ("LookupError", "the handler can't be made")),
        ("/bad_limit", ("ValueError", "max_message_size must be")),
        ("/unknown_limit", ("TypeError", "max_mesage_size")),
        ("/manager_limit", ("TypeError", "max_connections", "WebSocketPlugin")),
    ],
)
def test_mistakes_are_told(complaining: Server, tag: str, path: str, words: tuple[str, ...]) -> None:
    with complaining.connect() as peer:
        check_refusal(peer.upgrade(f"{path}?tag={tag}"), 500)
        assert peer.get("/").body == b"hello"
        assert peer.upgrade("/echo").status == 101
        peer.echo("nothing is stuck")
        peer.finish()
    log = complaining.log()
    assert [word for word in words if word not in log] == []
    assert complaining.events(tag) == []


def test_without_the_plugin() -> None:
    with Server({"with_plugin": False}, quiet=False) as server, server.connect() as peer:
        response = peer.upgrade("/echo")
        check_refusal(response, 500)
        assert b"WebSocketPlugin(cherrypy.engine).subscribe()" in response.body
        assert peer.get("/").body == b"hello"
        assert "WebSocketPlugin(cherrypy.engine).subscribe()" in server.log()


@pytest.mark.parametrize("options", [{"max_connections": 0}, {"drain_timeout": -1}, {"nonsense": 1}, {"workers": -1}])
def test_limits_of_the_plugin_that_are_out_of_range(options: dict[str, int]) -> None:
    server = Server({"plugin": options}, status=1)
    try:
        assert server.wait() == 1
        assert next(iter(options)) in server.log().splitlines()[-1]
    finally:
        server.kill()


# --- programs as people write them ------------------------------------------------------------------------------------


def talk(server: Server) -> None:
    """Open a websocket of the minimal program, and talk."""
    assert server.get("/").body == b"some HTML with a websocket javascript connection"
    with client.connect(server.url("/ws"), open_timeout=PATIENCE) as peer:
        for message in ("one", b"two", "three" * 100_000):
            peer.send(message)
            assert peer.recv(PATIENCE) == message


MINIMAL = ROOT / "tests" / "programs" / "minimal.txt"


def test_the_minimal_program() -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", 9000))
        except OSError:
            pytest.skip("port 9000, which the program wants, is taken")
    with Server(program=[str(MINIMAL)], port=9000) as server:
        talk(server)


def test_the_minimal_program_on_another_port() -> None:
    port = free_port()
    program = MINIMAL.read_text().replace("9000", str(port))
    assert str(port) in program
    with Server(program=["-c", program], port=port) as server:
        talk(server)

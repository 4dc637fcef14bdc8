"""The chat of examples/: its rules, over a websocket, and its page, in a real browser.

The tests of the page need Chromium and its driver on the PATH and the package selenium; they skip where one is missing.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import re
import selectors
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.redis_server import RedisServer
from ws4py.broker import connect as connect_broker

pytest.importorskip("cherrypy", reason="the chat needs CherryPy")
client = pytest.importorskip("websockets.sync.client", reason="the chat's rules are tested with the package websockets")

ROOT = Path(__file__).parent.parent
START = "import sys; from examples.chat import server; server.run(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])"
PATIENCE = 20  # seconds until a wait has failed; none is expected to take a tenth of it

Event = dict[str, Any]


class Server:
    """The chat in a process of its own, on a port that stays the same when it is started again.

    :param broker: the URL of one, if there is to be one.
    """

    def __init__(self, *broker: str) -> None:
        self._broker = broker
        self.port = free_port()
        self.errors = ""
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", START, "127.0.0.1", str(self.port), *self._broker],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        line = self._first_line()
        if self.url not in line:
            self._process.kill()
            raise AssertionError(f"the chat said {line!r}, {self._process.communicate()[1]!r}")

    def _first_line(self) -> str:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            return self._process.stdout.readline() if selector.select(PATIENCE) else ""

    def stop(self) -> None:
        """Stop it as a service manager would, and keep what it wrote to stderr."""
        if self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            self.errors += self._process.communicate(timeout=PATIENCE)[1]
        except subprocess.TimeoutExpired:
            self._process.kill()
            self.errors += self._process.communicate()[1]
            raise
        assert self._process.returncode == 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"


def free_port() -> int:
    """Return a port that can be listened on again and again.

    It is none of those that the system gives to outgoing connections, as the browser's attempts to come back would
    sooner or later take it.
    """
    while True:
        port = random.randrange(20000, 30000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Peer:
    """A page reduced to its messages."""

    def __init__(self, websocket: Any) -> None:
        self.websocket = websocket

    def tell(self, **message: object) -> None:
        self.websocket.send(json.dumps(message))

    def hear(self, kind: str) -> Event:
        """Return the next event of that type; others before it are dropped."""
        deadline = time.monotonic() + PATIENCE
        while True:
            event: Event = json.loads(self.websocket.recv(timeout=deadline - time.monotonic()))
            if event["type"] == kind:
                return event

    def join(self, name: str, key: str = "key", room: str = "room/x") -> Event:
        """Be somebody, enter a room, and return who is there."""
        self.tell(type="join", name=name, key=key)
        self.name = self.hear("welcome")["name"]
        self.tell(type="subscribe", topic=room, last=50)
        self.recovery = self.hear("subscribed")
        self.tell(type="presence", topic=room)
        return self.hear("presence")

    def say(self, text: str, token: str, room: str = "room/x") -> Event:
        """Say something, and return what everybody gets."""
        self.tell(type="publish", topic=room, data=json.dumps({"id": token, "text": text}), key=token)
        return self.hear_said()

    def hear_said(self) -> Event:
        said: Event = json.loads(self.hear("message")["data"])
        return said

    def fail(self, **request: object) -> str:
        """Return the code of the error that a request gets."""
        self.tell(id="bad", **request)
        error = self.hear("error")
        assert error["id"] == "bad"
        assert error["text"]
        code: str = error["code"]
        return code


def names(presence: Event) -> list[str]:
    return [each["name"] for each in presence["present"]]


@contextlib.contextmanager
def serving(*broker: str) -> Iterator[Server]:
    server = Server(*broker)
    try:
        yield server
    finally:
        server.stop()
    assert server.errors == ""  # a quiet log: whatever the peers did, no warning and no traceback


@contextlib.contextmanager
def connecting(server: Server) -> Iterator[Callable[[], Peer]]:
    with contextlib.ExitStack() as stack:
        yield lambda: Peer(
            stack.enter_context(client.connect(f"ws://127.0.0.1:{server.port}/ws", open_timeout=PATIENCE))
        )


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def connect(server: Server) -> Iterator[Callable[[], Peer]]:
    with connecting(server) as connect:
        yield connect


@pytest.fixture(scope="module")
def shared_server() -> Iterator[Server]:
    """A server for the tests that don't mind who else is or was in the room."""
    with serving() as server:
        yield server


@pytest.fixture
def peer(shared_server: Server) -> Iterator[Peer]:
    with connecting(shared_server) as connect:
        yield connect()


# The rules


def test_conversation(connect: Callable[[], Peer]) -> None:
    first, second = connect(), connect()
    first.tell(type="join", name="first", key="key")
    welcome = {"type": "welcome", "name": "first", "limits": {"name": 24, "text": 500, "room": 24}}
    assert first.hear("welcome") == welcome
    first.tell(type="subscribe", topic="room/x")
    first.tell(type="presence", topic="room/x")
    assert names(first.hear("presence")) == ["first"]
    assert first.say("anybody there?", "1")["text"] == "anybody there?"

    assert names(second.join("  second   one ", "another key")) == ["first", "second one"]
    assert second.recovery["messages"] == 1
    assert second.name == "second one"
    assert first.hear("joined")["name"] == "second one"

    said = second.say(" yes\n", "2")
    assert (said["name"], said["text"], said["id"]) == ("second one", "yes", "2")
    assert abs(said["time"] - time.time()) < 60
    assert first.hear_said() == said

    second.websocket.close()
    assert first.hear("left")["name"] == "second one"


def test_who_is_new_gets_what_was_said(connect: Callable[[], Peer]) -> None:
    first, second = connect(), connect()
    first.join("first")
    for number in range(60):
        first.say(str(number), str(number))
    second.tell(type="join", name="second", key="key")
    second.tell(type="subscribe", topic="room/x", last=50)
    assert [second.hear_said()["text"] for _ in range(50)] == [str(number) for number in range(10, 60)]


def test_rooms_hear_nothing_of_each_other(connect: Callable[[], Peer]) -> None:
    first, second = connect(), connect()
    first.join("first", room="room/a")
    assert names(second.join("second", room="room/b")) == ["second"]
    first.say("in a", "1", "room/a")
    assert second.say("in b", "2", "room/b")["text"] == "in b"
    assert first.say("again", "3", "room/a")["text"] == "again"


def test_who_comes_back_gets_what_was_said_meanwhile(connect: Callable[[], Peer]) -> None:
    first, second = connect(), connect()
    first.join("first")
    position = first.recovery["position"]
    first.websocket.close()
    second.join("second")
    second.say("a", "1")
    second.say("b", "2")
    again = connect()
    again.tell(type="join", name="first", key="key")
    again.tell(type="subscribe", topic="room/x", since=position)
    recovery = again.hear("subscribed")
    assert (recovery["recovered"], recovery["messages"]) == (True, 2)
    assert [again.hear_said()["text"] for _ in range(2)] == ["a", "b"]


@pytest.mark.parametrize("data", ["", "x", "[]", "null", "[" * 5000, "{", '{"type": "dance"}', b"{}"])
def test_bad_message_is_refused_and_the_connection_stays(peer: Peer, data: str | bytes) -> None:
    peer.websocket.send(data)
    assert peer.hear("error")["code"] == "bad-request"
    peer.join(f"still here {random.random():.9f}")


def test_message_of_too_many_bytes(peer: Peer) -> None:
    assert not peer.websocket.send(json.dumps({"type": "join", "name": "x" * 9000, "key": "1"}))
    assert peer.hear("error")["code"] == "too-big"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("", "bad-name"),
        (" \t\n", "bad-name"),
        ("x\x00", "bad-name"),
        ("\u202eevil", "bad-name"),
        ("x" * 25, "too-long"),
        (None, "bad-message"),
        (1, "bad-message"),
        ("\ud83d", "bad-message"),
    ],
)
def test_bad_name(peer: Peer, name: object, code: str) -> None:
    assert peer.fail(type="join", name=name, key="1") == code
    peer.tell(type="join", name="\N{SNOWMAN}" * 24, key="a key of the snowmen's")
    assert peer.hear("welcome")["name"] == "\N{SNOWMAN}" * 24


@pytest.mark.parametrize("key", ["", "x" * 65, None, 1])
def test_bad_key(peer: Peer, key: object) -> None:
    assert peer.fail(type="join", name="somebody", key=key) == "bad-message"


def test_name_taken(connect: Callable[[], Peer]) -> None:
    first, second = connect(), connect()
    first.join("Name")
    assert second.fail(type="join", name="nAME", key="another") == "name-taken"
    assert names(second.join("another")) == ["Name", "another"]
    first.websocket.close()
    second.hear("left")
    assert names(connect().join("nAME", "another")) == ["another", "nAME"]


def test_who_has_the_key_is_the_same_person(connect: Callable[[], Peer]) -> None:
    """A page comes back although the server still believes in its old connection: the others see nobody come or go."""
    other, old, new = connect(), connect(), connect()
    other.join("other")
    old.join("page", "secret")
    assert other.hear("joined")["name"] == "page"
    assert new.fail(type="join", name="page", key="guess") == "name-taken"
    assert names(new.join("page", "secret")) == ["other", "page"]
    old.websocket.close()
    new.say("here again", "1")
    assert json.loads(other.websocket.recv(timeout=PATIENCE))["type"] == "message"


def test_who_has_not_joined_may_nothing(peer: Peer) -> None:
    for request in ({"type": "subscribe"}, {"type": "presence"}, {"type": "publish", "data": "x"}):
        assert peer.fail(topic="room/x", **request) == "forbidden"
    peer.join("peer")
    assert peer.fail(type="join", name="again", key="1") == "already-joined"
    for topic in ("other", "room/", "room/" + "x" * 25):
        assert peer.fail(type="subscribe", topic=topic) == "forbidden"


def test_bad_texts(peer: Peer) -> None:
    peer.join("texts")
    for text, code in [("", "empty"), (" \n ", "empty"), ("x" * 501, "too-long"), ("\ud83d", "bad-message")]:
        assert peer.fail(type="publish", topic="room/x", data=json.dumps({"id": "2", "text": text})) == code
    for data in ("x", "[]", "{}", json.dumps({"id": "", "text": "x"}), json.dumps({"id": "x" * 65, "text": "x"})):
        assert peer.fail(type="publish", topic="room/x", data=data) == "bad-message"
    assert peer.say("\N{GRINNING FACE}" * 500, "3")["text"] == "\N{GRINNING FACE}" * 500


def test_html_is_text(peer: Peer) -> None:
    assert "<b>&amp;</b>" in names(peer.join("<b>&amp;</b>", room="room/html"))
    text = "<script>alert(1)</script> &lt;"
    assert peer.say(text, "1", "room/html")["text"] == text


def test_message_sent_again_is_said_once(connect: Callable[[], Peer]) -> None:
    peer = connect()
    peer.join("peer")
    peer.say("once", "1")
    peer.tell(type="publish", topic="room/x", data=json.dumps({"id": "1", "text": "once"}), key="1")
    assert peer.say("twice", "2")["text"] == "twice"
    late = connect()
    late.tell(type="join", name="late", key="1")
    late.tell(type="subscribe", topic="room/x", last=50)
    assert late.hear("subscribed")["messages"] == 2


@pytest.mark.parametrize("how", ["end", "reset"])
def test_peer_that_vanishes_leaves(connect: Callable[[], Peer], how: str) -> None:
    first, second = connect(), connect()
    first.join("first")
    second.join("second")
    sock = second.websocket.socket
    if how == "reset":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.shutdown(socket.SHUT_RD)
        sock.close()
    else:
        sock.shutdown(socket.SHUT_RDWR)
    assert first.hear("left")["name"] == "second"
    assert names(connect().join("second")) == ["first", "second"]


def test_stopping_server_says_so_and_nobody_seems_to_leave(server: Server, connect: Callable[[], Peer]) -> None:
    first, second = connect(), connect()
    first.join("first")
    second.join("second")
    first.say("wait for it", "1")
    server.stop()
    with pytest.raises(Exception, match="1001"):
        first.hear("left")


# The HTTP side


def test_page_and_its_headers(shared_server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", shared_server.port, timeout=PATIENCE)
    for path, content_type in [
        ("/", "text/html;charset=utf-8"),
        ("/style.css", "text/css;charset=utf-8"),
        ("/chat.js", "text/javascript;charset=utf-8"),
        ("/pubsub.js", "text/javascript;charset=utf-8"),
    ]:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        assert (response.status, response.headers["Content-Type"]) == (200, content_type)
        assert b"http://" not in body.replace(b"http://www.w3.org/2000/svg", b"")
        assert b"https://" not in body
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        assert "unsafe" not in response.headers["Content-Security-Policy"]
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Cache-Control"] == "no-cache"
        connection.request("GET", path, headers={"If-Modified-Since": response.headers["Last-Modified"]})
        again = connection.getresponse()
        assert (again.status, again.read()) == (304, b"")
    connection.request("GET", "/server.py")
    assert connection.getresponse().status == 404
    connection.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "no.such.host.invalid"])
def test_address_that_cannot_be_had(shared_server: Server, host: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", START, host, str(shared_server.port)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (result.returncode, result.stdout) == (1, "")
    assert re.fullmatch(rf"The chat can't listen on {re.escape(host)} port {shared_server.port}: .+\n", result.stderr)


# The page


class Page:
    """The chat in a window of the browser."""

    def __init__(self, chromium: Any, server: Server) -> None:
        chromium.switch_to.new_window("window")
        self._chromium = chromium
        self._window = chromium.current_window_handle
        chromium.get(server.url)
        chromium.execute_script("localStorage.clear()")
        chromium.get(server.url)

    @property
    def chromium(self) -> Any:
        self._chromium.switch_to.window(self._window)
        return self._chromium

    def until(self, condition: Callable[[], object], what: str) -> None:
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        wait = WebDriverWait(self.chromium, PATIENCE, 0.05, [StaleElementReferenceException])
        wait.until(lambda _: condition(), f"waiting for {what}")

    def find(self, selector: str) -> Any:
        return self.chromium.find_element("css selector", selector)

    def texts(self, selector: str) -> list[str]:
        return [element.text for element in self.chromium.find_elements("css selector", selector)]

    def join(self, name: str) -> None:
        field = self.find("#name")
        field.clear()
        field.send_keys(name + "\n")
        self.until(lambda: self.find("#text").is_displayed(), "the room")

    def say(self, text: str) -> None:
        self.find("#text").send_keys(text + "\n")

    def hears(self, text: str) -> None:
        """Wait until ``text`` was said."""
        self.until(lambda: text in self.texts("#log .words"), f"{text!r}")

    def sees(self, selector: str, text: str) -> None:
        self.until(lambda: text in self.find(selector).text, f"{text!r} in {selector}")

    def people(self, *names: str) -> None:
        self.until(lambda: self.texts("#people-list bdi") == list(names), f"{names} in the list")


@pytest.fixture
def open_page(windows: Any, server: Server) -> Callable[[], Page]:
    return lambda: Page(windows, server)


def test_two_pages_talk(open_page: Callable[[], Page]) -> None:
    first, second = open_page(), open_page()
    first.join("first")
    first.people("first")
    first.sees("#silence", "You are the only one here.")
    second.join("second")
    first.sees("#log", "second joined")
    first.people("first", "second")
    second.people("second", "first")

    first.say("Is somebody there?")
    second.hears("Is somebody there?")
    second.say("Yes, I am.")
    first.hears("Yes, I am.")
    assert first.texts("#log .mine .words") == ["Is somebody there?"]
    assert first.texts("#log .message:not(.mine) .author") == ["second"]
    assert re.search(r"\d+:\d\d", first.find("#log .message time").text)

    second.find("#leave").click()
    first.sees("#log", "second left")
    first.people("first")
    assert second.find("#name").get_attribute("value") == "second"

    errors = [entry for entry in first.chromium.get_log("browser") if entry["level"] == "SEVERE"]
    assert errors == []  # nothing that the content security policy had to stop, no exception


def test_pages_survive_a_restart_of_the_server(open_page: Callable[[], Page], server: Server) -> None:
    first, second = open_page(), open_page()
    first.join("first")
    second.join("second")
    first.say("before")
    second.hears("before")

    server.stop()
    for page in first, second:
        page.sees("#link", "Not connected")
        page.sees("#outage", "Disconnected.")
    first.say("said while the server was away")
    first.sees("#outbox .state", "Waits for the connection")
    second.find("#text").send_keys("half a sen")

    server.start()
    for page in first, second:
        page.sees("#link", "Connected")
    first.people("first", "second")
    second.people("second", "first")
    second.hears("said while the server was away")
    first.hears("said while the server was away")
    first.until(lambda: first.texts("#outbox li") == [], "an empty outbox")
    second.say("tence")
    first.hears("half a sentence")
    assert first.texts("#log .words") == ["before", "said while the server was away", "half a sentence"]
    assert not first.find("#outage").is_displayed()


def test_what_is_said_while_the_server_is_away_is_in_the_broker(windows: Any, own_redis: RedisServer) -> None:
    """Two pages miss nothing over a restart, though somebody else talks meanwhile, by another process."""
    history = {"room/*": (200, 24 * 3600.0)}
    with serving(own_redis.url) as server, connect_broker(own_redis.url, history=history) as publisher:
        first, second = Page(windows, server), Page(windows, server)
        first.join("first")
        second.join("second")
        first.say("before")
        second.hears("before")
        server.stop()
        for page in first, second:
            page.sees("#link", "Not connected")
        said = [f"said elsewhere {number}" for number in range(20)]
        for number, text in enumerate(said):
            event = {"id": f"elsewhere {number}", "name": "third", "text": text, "time": time.time()}
            publisher.publish("room/lobby", json.dumps(event))
        second.say("said here")
        server.start()
        for page in first, second:
            page.hears("said here")
            assert page.texts("#log .words") == ["before", *said, "said here"]
        second.people("second", "first")


def test_rooms_have_their_own_talk(open_page: Callable[[], Page]) -> None:
    first, second = open_page(), open_page()
    first.join("first")
    second.find("#room-field").send_keys("tea")
    second.join("second")
    second.sees("#room-name", "tea")
    first.sees("#room-name", "lobby")
    first.say("in the lobby")
    first.hears("in the lobby")
    second.say("in the tea room")
    second.hears("in the tea room")
    second.people("second")
    assert second.texts("#log .words") == ["in the tea room"]
    second.chromium.execute_script("location.hash = ''")
    second.hears("in the lobby")
    second.people("second", "first")
    assert second.texts("#log .words") == ["in the lobby"]
    first.people("first", "second")
    second.chromium.execute_script("location.hash = 'tea'")
    second.hears("in the tea room")
    first.people("first")


def test_page_shows_html_as_text(open_page: Callable[[], Page]) -> None:
    first, second = open_page(), open_page()
    first.join("<i>first</i>")
    second.join("second")
    text = "<img src=x onerror=alert(1)> <b>bold</b> &amp;"
    first.say(text)
    second.hears(text)
    assert second.texts("#log .author") == ["<i>first</i>"]
    second.people("second", "<i>first</i>")
    assert second.texts("#room i, #room b, #room img") == []


def test_name_and_text_that_cannot_be(open_page: Callable[[], Page]) -> None:
    first, second = open_page(), open_page()
    first.find("#name").send_keys("x" * 25 + "\n")
    first.sees("#join-status", "A name can have 24 characters; this one has 25.")
    first.join("first")
    second.find("#name").send_keys("FIRST\n")
    second.sees("#join-status", "Somebody is called first already.")
    second.join("second")

    first.say("x" * 501)
    first.sees("#text-count", "1 too many")
    assert len(first.find("#text").get_attribute("value")) == 501  # still there, to be shortened
    first.find("#text").send_keys("\b\n")
    second.hears("x" * 500)
    first.sees("#text-count", "")


def test_reloaded_page_is_back_with_its_name_and_history(open_page: Callable[[], Page]) -> None:
    page = open_page()
    page.join("page")
    page.say("before")
    page.hears("before")
    page.chromium.refresh()
    page.hears("before")
    page.people("page")
    assert page.texts("#log .mine .words") == ["before"]
    page.find("#leave").click()
    page.chromium.refresh()  # who left is asked first, with the name filled in
    assert page.find("#name").is_displayed()
    assert page.find("#name").get_attribute("value") == "page"


def test_hidden_page_counts_in_its_title(open_page: Callable[[], Page]) -> None:
    first, second = open_page(), open_page()
    first.join("first")
    second.join("second")
    hide = "Object.defineProperty(document, 'hidden', {value: arguments[0], configurable: true});"
    hide += "document.dispatchEvent(new Event('visibilitychange'))"
    first.chromium.execute_script(hide, True)
    second.say("one")
    second.say("two")
    first.until(lambda: first.chromium.title == "(2) Chat", "the count in the title")
    first.chromium.execute_script(hide, False)
    assert first.chromium.title == "Chat"


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 800)])
def test_page_fits_the_screen(open_page: Callable[[], Page], width: int, height: int) -> None:
    page = open_page()
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    page.chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    page.join("page")
    page.say("long" * 100)
    page.hears("long" * 100)
    overflow = "const root = document.documentElement;"
    overflow += "return [root.scrollWidth - innerWidth, root.scrollHeight - innerHeight]"
    assert page.chromium.execute_script(overflow) == [0, 0]
    bottom = "return document.getElementById('say').getBoundingClientRect().bottom"
    assert page.chromium.execute_script(bottom) <= height
    assert page.find("#people-list").is_displayed() == (width > 500)
    if width < 500:
        page.find("#people-toggle").click()
        page.people("page")

"""The client for browsers, in a real one, and how it is served.

The tests in a browser need Chromium and its driver on the PATH and the package selenium; they skip where one is
missing.
"""

from __future__ import annotations

import http.client
import socket
from collections.abc import Callable
from typing import Any

import pytest

from tests.helpers import PATIENCE, until
from tests.pubsub.site import Site, publish_by
from ws4py.broker import MemoryBroker
from ws4py.pubsub import CLIENT, serve_client


class Page:
    def __init__(self, chromium: Any, site: Site) -> None:
        chromium.switch_to.new_window("tab")
        self._chromium = chromium
        self._window = chromium.current_window_handle
        chromium.get(f"http://127.0.0.1:{site.port}/page")
        self.until("window.open_")

    def run(self, script: str, *arguments: Any) -> Any:
        self._chromium.switch_to.window(self._window)
        return self._chromium.execute_script(script, *arguments)

    def get(self, expression: str) -> Any:
        return self.run(f"return {expression}")

    def until(self, expression: str) -> None:
        until(lambda: self.get(f"!!({expression})"))

    def open(self, options: str = "{}") -> None:
        self.run(f"open_({options})")
        self.until("pubsub.state === 'open'")

    def follow(self, topic: str, options: str = "{}") -> None:
        self.run(f"follow('{topic}', {options})")
        self.until(f"{topic}.subscribed.length")


@pytest.fixture
def open_page(windows: Any, site: Site) -> Callable[[], Page]:
    return lambda: Page(windows, site)


# --- in the browser ---------------------------------------------------------------------------------------------------


def test_two_pages_talk_and_see_each_other(open_page: Callable[[], Page]) -> None:
    one, two = open_page(), open_page()
    for each in (one, two):
        each.open()
        each.follow("room", "{onpresence: (present) => { room.present = [...present.keys()].sort(); }}")
    one.run("say('room', 'hello')")
    two.run("say('room', 'é \U0001f600')")
    for each in (one, two):
        each.until("room.messages.length === 2")
        each.until("room.present?.length === 2")
        assert sorted(each.get("room.messages")) == ["hello", "é \U0001f600"]
        assert each.get("room.offsets") == [1, 2]
    assert one.get("sent") == ["hello"]
    two.run("pubsub.close()")
    one.until("room.present.length === 1")
    assert two.get("states") == [["connecting", None], ["open", None], ["closed", 1000]]


def test_over_a_restart_of_the_server_nothing_is_lost(open_page: Callable[[], Page], site: Site) -> None:
    """Nor does anything come twice, on two pages."""
    one, two = open_page(), open_page()
    for each in (one, two):
        each.open()
        each.follow("room")
    one.run("say('room', 'before')")
    two.until("room.messages.length === 1")
    broker = site.broker
    site.stop()
    for each in (one, two):
        each.until("pubsub.state === 'waiting'")
    one.run("say('room', 'said meanwhile')")
    for number in range(20):
        publish_by(broker, f"published {number}")
    site.start()
    for each in (one, two):
        each.until("room.messages.length === 22")
        assert each.get("room.messages") == [
            "before",
            *(f"published {number}" for number in range(20)),
            "said meanwhile",
        ]
        assert each.get("room.offsets") == list(range(1, 23))
        assert [each["recovered"] for each in each.get("room.subscribed")] == [False, True]
    assert one.get("sent") == ["before", "said meanwhile"]


def test_what_can_not_be_had_is_said(open_page: Callable[[], Page], site: Site) -> None:
    page = open_page()
    page.open()
    page.follow("room")
    for number in range(5):
        site.manager.publish("room", str(number))
    page.until("room.messages.length === 5")
    site.stop()
    site.broker = MemoryBroker()  # it has forgotten all
    site.start()
    page.until("room.subscribed.length === 2")
    assert page.get("room.subscribed[1].recovered") is False
    site.manager.publish("room", "again")
    page.until("room.messages.length === 6")
    assert page.get("room.offsets") == [1, 2, 3, 4, 5, 1]


def test_a_page_begins_with_the_last_messages(open_page: Callable[[], Page], site: Site) -> None:
    for number in range(10):
        site.manager.publish("room", str(number))
    page = open_page()
    page.open()
    page.follow("room", "{last: 3}")
    page.until("room.messages.length === 3")
    assert page.get("room.messages") == ["7", "8", "9"]
    site.stop()
    site.start()
    page.until("room.subscribed.length === 2")
    assert page.get("room.subscribed.map((each) => [each.recovered, each.messages])") == [[False, 3], [True, 0]]


def test_binary_messages_and_topics_without_a_history(open_page: Callable[[], Page], site: Site) -> None:
    page = open_page()
    page.open()
    page.follow("plain", "{onmessage: (data, offset) => plain.messages.push([...data, offset ?? null])}")
    site.manager.publish("plain", b"\x00\xff", binary=True)
    page.until("plain.messages.length === 1")
    assert page.get("plain.messages") == [[0, 255, None]]
    assert page.get("plain.subscription.position") is None


def test_what_is_refused_is_told(open_page: Callable[[], Page], site: Site) -> None:
    page = open_page()
    page.open()
    page.run("follow('private'); say('private', 'x'); follow('room')")
    page.until("private.errors.length && sent.length && room.subscribed.length")
    assert page.get("private.errors") == ["forbidden"]
    assert page.get("sent") == ["x forbidden"]
    assert page.get("room.errors") == []
    (websocket,) = list(site.manager)
    websocket.revoke("room")
    page.until("room.errors.length")
    page.follow("room")  # it may try again
    assert page.get("states") == [["connecting", None], ["open", None]]


def test_who_unsubscribes_and_subscribes_again_begins_anew(open_page: Callable[[], Page], site: Site) -> None:
    page = open_page()
    page.open()
    page.follow("room")
    site.manager.publish("room", "a")
    page.until("room.messages.length === 1")
    page.run(
        "room.subscription.unsubscribe(); follow('room', {last: 1}); room.subscription.unsubscribe(); follow('room')"
    )
    page.until("room.subscribed.length")
    site.manager.publish("room", "b")
    page.until("room.messages.length")
    assert page.get("room.messages") == ["b"]
    assert page.get("room.errors") == []
    page.run("room.subscription.unsubscribe()")
    site.manager.publish("room", "c")
    page.run("say('room', 'd')")
    page.until("sent.length")
    assert page.get("room.messages") == ["b"]


def test_codes_of_the_application_end_it(open_page: Callable[[], Page], site: Site) -> None:
    page = open_page()
    page.open()
    (websocket,) = list(site.manager)
    websocket.close(4001, "You are elsewhere")
    page.until("pubsub.state === 'closed'")
    page.run("say('room', 'x')")
    page.until("sent.length")
    assert page.get("sent") == ["x closed"]
    assert page.get("states.at(-1)") == ["closed", 4001]


def test_a_server_that_is_silent_is_given_up(open_page: Callable[[], Page], site: Site) -> None:
    """One asks whether it is there. It is, until it answers no more."""
    page = open_page()
    page.run("open_({quiet: 50, patience: 300})")
    page.until("pubsub.state === 'open'")
    page.follow("room")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and says nothing
        url = f"ws://127.0.0.1:{silent.getsockname()[1]}"
        page.run(f"window.WebSocket = class extends WebSocket {{ constructor() {{ super('{url}'); }} }}")
        (websocket,) = list(site.manager)
        websocket.terminate()
        page.until("states.filter(([state, code]) => state === 'waiting' && code === 1006).length >= 3")


def test_a_server_that_skips_a_message_is_left(open_page: Callable[[], Page], site: Site) -> None:
    """It can't happen; and if it does, the page resumes. What comes twice is passed over."""
    page = open_page()
    page.open()
    page.follow("room")
    site.manager.publish("room", "a")
    (websocket,) = list(site.manager)
    websocket.send_json({"type": "message", "topic": "room", "offset": 1, "data": "again"})
    site.manager.publish("room", "b")
    page.until("room.messages.length >= 2")
    assert page.get("room.subscribed.length") == 1
    websocket.send_json({"type": "message", "topic": "room", "offset": 4, "data": "d"})
    page.until("room.subscribed.length === 2")
    assert page.get("room.subscribed[1].recovered") is True
    site.manager.publish("room", "c")
    page.until("room.messages.length >= 3")
    assert page.get("room.messages") == ["a", "b", "c"]


def test_a_page_may_speak_of_other_things(open_page: Callable[[], Page]) -> None:
    page = open_page()
    page.open("{greeting: () => ({type: 'hello'})}")
    assert page.get("pubsub.send({type: 'dance'}) && pubsub.send({type: 'sing'})") is True
    page.until("others.length === 3")
    assert page.get("others.map((each) => each.of ?? each.code)") == ["hello", "dance", "bad-request"]
    page.run("pubsub.close()")
    assert page.get("pubsub.send({type: 'dance'})") is False


# --- how it is served -------------------------------------------------------------------------------------------------


def test_the_file_is_served_and_kept(site: Site) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=PATIENCE)

    def ask(method: str = "GET", **headers: str) -> http.client.HTTPResponse:
        connection.request(method, "/pubsub.js", headers=headers)
        return connection.getresponse()

    response = ask()
    assert (response.status, response.getheader("Content-Type")) == (200, "text/javascript; charset=utf-8")
    assert response.read() == CLIENT.read_bytes()
    tag = response.getheader("ETag")
    assert tag is not None
    connection.close()
    again = ask(**{"If-None-Match": tag})
    assert (again.status, again.read()) == (304, b"")
    connection.close()
    head = ask("HEAD")
    assert (head.status, head.read()) == (200, b"")
    connection.close()


def test_other_methods_are_refused() -> None:
    answers: list[Any] = []
    body = serve_client({"REQUEST_METHOD": "POST"}, lambda status, headers: answers.append(status))
    assert b"".join(body) == b""
    assert answers == ["405 Method Not Allowed"]

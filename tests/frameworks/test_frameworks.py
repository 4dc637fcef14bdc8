"""The examples with Flask, Django and Bottle: who has logged in by the framework is known to the websocket."""

from __future__ import annotations

from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.helpers import until
from tests.hosting import Hosted
from tests.serving import PATIENCE, ROOT

FRAMEWORKS = ["flask", "django", "bottle"]


@pytest.fixture(scope="module", params=FRAMEWORKS)
def server(request: pytest.FixtureRequest):  # type: ignore[no-untyped-def]
    """An example on cheroot."""
    pytest.importorskip(request.param)
    with Hosted("", ["-W", "error", str(ROOT / "examples" / f"{request.param}_app.py"), "PORT"], status=None) as server:
        yield server


def log_in(server: Hosted, user: str) -> str:
    """Return the cookie of a session."""
    response = server.get(f"/login/{user}")
    assert response.status in (200, 302)
    cookie = response.get("set-cookie")
    assert cookie is not None
    return cookie.partition(";")[0]


def test_page(server: Hosted) -> None:
    response = server.get("/")
    assert response.status == 200
    assert b"new WebSocket(" in response.body


def test_somebody(server: Hosted) -> None:
    for user in ("ada", "grace"):
        with connect(server.url("/ws"), additional_headers={"Cookie": log_in(server, user)}) as client:
            assert client.recv(timeout=PATIENCE) == f"Hello {user}"
            client.send("good morning")
            assert client.recv(timeout=PATIENCE) == f"{user} says: good morning"
        assert client.close_code == 1000


def test_nobody(server: Hosted) -> None:
    with pytest.raises(InvalidStatus) as caught:
        connect(server.url("/ws"))
    assert caught.value.response.status_code == 401


def test_a_forged_session(server: Hosted) -> None:
    name, _, value = log_in(server, "ada").partition("=")
    with pytest.raises(InvalidStatus) as caught:
        connect(server.url("/ws"), additional_headers={"Cookie": f"{name}={value[:-6]}forged"})
    assert caught.value.response.status_code == 401


def test_pages_of_a_browser(server: Hosted, chromium: Any) -> None:
    """Who has not logged in is not let in; who has is greeted; and so is who has logged in as another."""

    def see(text: str) -> None:
        until(lambda: text in chromium.find_element("css selector", "pre").text)

    chromium.delete_all_cookies()
    chromium.get(f"http://{server.host}/")
    see("closed 1006")
    for user in ("ada", "grace"):
        chromium.get(f"http://{server.host}/login/{user}")
        chromium.get(f"http://{server.host}/")
        see(f"Hello {user}")
        see(f"{user} says: Is anybody there?")


def test_no_handshake(server: Hosted) -> None:
    assert server.get("/ws").status == 426

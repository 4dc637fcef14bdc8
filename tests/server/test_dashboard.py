"""The dashboard, in a real browser.

These tests need Chromium and its driver on the PATH and the package selenium; they skip where one is missing.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import start_chromium
from tests.server.test_stats_endpoint import StatsServer, serving_stats
from tests.serving import Server, eventually

webdriver = pytest.importorskip("selenium.webdriver", reason="the browser is driven by the package selenium")

FOLDER = Path(__file__).parents[2] / "ws4py" / "server" / "dashboard"
CROWD = 200


@pytest.fixture(scope="module")
def server() -> Iterator[StatsServer]:
    with serving_stats("graft") as server:
        yield server


class Page:
    """A browser that shows the dashboard."""

    def __init__(self, server: Server, width: int = 1440, dark: bool = False, reduced: bool = False) -> None:
        self.driver = start_chromium()
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if reduced else "no-preference"},
        ]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.resize(width)
        self.url = f"http://{server.host}/stats/"

    def resize(self, width: int) -> None:
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
        )

    def open(self, query: str = "", samples: int = 3) -> None:
        self.driver.get(self.url + query)
        self.wait_for_samples(samples)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(f"return {script}", *arguments)

    def samples(self) -> int:
        return int(self.run("document.body.dataset.samples || 0"))

    def wait_for_samples(self, number: int) -> None:
        eventually(lambda: self.samples() >= number, f"{number} samples are shown")

    def text(self, selector: str) -> str:
        return str(self.run("document.querySelector(arguments[0]).innerText", selector))

    def tile(self, title: str) -> str:
        found = self.run(
            "[...document.querySelectorAll('#tiles > div')].find((e) => e.innerText.startsWith(arguments[0]))"
            ".innerText",
            title,
        )
        return str(found).replace("\n", " ")

    def rows(self, grid: str) -> list[tuple[int, float]]:
        """Return for each row of a grid how many are in it, and how many pixels of it are empty."""
        found = self.run(
            """((grid) => {
            const box = grid.getBoundingClientRect(), gap = parseFloat(getComputedStyle(grid).columnGap);
            const rows = new Map();
            for (const node of grid.children) {
              const {top, width, height} = node.getBoundingClientRect();
              if (getComputedStyle(node).position !== 'absolute' && height)
                rows.set(top, [...(rows.get(top) || []), width]);
            }
            return [...rows.values()].map((row) =>
              [row.length, box.width - row.reduce((a, b) => a + b, 0) - gap * (row.length - 1)]);
            })(document.querySelector(arguments[0]))""",
            grid,
        )
        return [(number, empty) for number, empty in found]

    def complaints(self) -> list[Any]:
        return list(self.driver.get_log("browser"))

    def press(self, *keys: str) -> None:
        self.driver.switch_to.active_element.send_keys(*keys)


@pytest.fixture
def browse(server: StatsServer) -> Iterator[Any]:
    pages: list[Page] = []

    def browse(**options: Any) -> Page:
        pages.append(Page(server, **options))
        return pages[-1]

    yield browse
    for page in pages:
        page.driver.quit()


@contextlib.contextmanager
def crowd(server: Server, number: int) -> Iterator[list[Any]]:
    """Have so many connections that say nothing."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(server.open("/ws")) for _ in range(number)]


def test_it_shows_what_the_server_does(server: StatsServer, browse: Any) -> None:
    page = browse()
    with crowd(server, CROWD) as peers:
        page.open()
        assert page.text("#link").strip() == "Live"
        eventually(
            lambda: str(CROWD) in page.tile("Connections") or str(CROWD + 1) in page.tile("Connections"),
            "all are counted",
        )
        for _ in range(30):
            for peer in peers[:10]:
                peer.echo("hello")
        eventually(
            lambda: page.tile("Queue wait, 99 %").split("%")[1].split()[0] != "\N{EN DASH}", "percentiles are shown"
        )
        first = eventually(
            lambda: page.text("#busiest tbody tr") if "30" in page.text("#busiest tbody tr") else None,
            "the busy ones are first",
        )
        assert re.search(r"#\d+\s+127\.0\.0\.1\s+/ws", first)
        assert len(page.run("document.querySelectorAll('#slowest tbody tr')")) == 10
        for peer in peers[:7]:
            peer.finish(4005)
        eventually(
            lambda: "4xxx" in page.text("#closed") and "7" in page.text("#closed"), "the closes are shown by code"
        )
        peers[7].send("x" * (1 << 20 | 1))
        eventually(lambda: "closed: message too big" in page.text("#limits"), "the limit that acted is explained")
        assert page.complaints() == []


def test_the_order_of_the_tables_can_be_chosen(server: StatsServer, browse: Any) -> None:
    page = browse()
    with crowd(server, 3) as peers:
        peers[2].echo("x" * 5000)
        for _ in range(3):
            peers[1].echo("x")
        page.open()
        page.run("(() => {const s = document.getElementById('busiest-by'); s.value = 'bytes_received';"
                 " s.dispatchEvent(new Event('change'))})()")  # fmt: skip
        eventually(lambda: "5 kB" in page.text("#busiest tbody tr"), "the order has changed")
        assert page.complaints() == []


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_and_can_be_read(server: StatsServer, browse: Any, width: int, dark: bool) -> None:
    page = browse(width=width, dark=dark)
    with crowd(server, 3):
        page.open()
        assert page.run("document.documentElement.scrollWidth") <= width
        for selector in ("body", "#tiles dt", "#link", "figcaption small", ".chart li b", "td", "a"):
            assert contrast(page, selector) >= 4.5, selector
        for tone in ("one", "two", "three", "edge"):
            assert contrast(page, "figure.chart", f"--{tone}") >= 3, tone
        assert page.complaints() == []


def test_every_row_is_full_at_any_width(server: StatsServer, browse: Any) -> None:
    page = browse()
    with server.open("/ws") as peer:
        peer.send("x" * (1 << 20 | 1))
        assert peer.receive().code == 1009
    page.open()
    for width in (320, 360, 414, 640, 641, 739, 740, 768, 1024, 1099, 1100, 1200, 1279, 1280, 1440, 1600, 1920):
        page.resize(width)
        assert page.run("document.documentElement.scrollWidth") <= width
        for grid in ("#tiles", "#charts", ".columns"):
            rows = page.rows(grid)
            assert rows
            assert max(abs(empty) for _, empty in rows) <= 1, (width, grid, rows)
            assert len({number for number, _ in rows}) == 1 or grid == ".columns", (width, grid, rows)
        wide = "[...document.querySelectorAll('#tiles dd')].filter((e) => e.scrollWidth > e.clientWidth)"
        assert page.run(f"{wide}.map((e) => e.innerText)") == [], width


def contrast(page: Page, selector: str, variable: str | None = None) -> float:
    """Return the contrast of a text, or of a line, with the ground behind it (WCAG 2, 1.4.3 and 1.4.11)."""
    colours = page.run(
        """(() => {
        const node = document.querySelector(arguments[0]);
        let ground = node;
        const seen = (node) => getComputedStyle(node).backgroundColor;
        while (ground && /, 0\\)$|transparent/.test(seen(ground))) ground = ground.parentElement;
        const probe = document.createElement('span');
        probe.style.color = arguments[1] ? `var(${arguments[1]})` : getComputedStyle(node).color;
        document.body.append(probe);
        const colour = getComputedStyle(probe).color;
        probe.remove();
        return [colour, getComputedStyle(ground || document.body).backgroundColor];
        })(...arguments)""".replace("(() =>", "((...arguments_) =>").replace("arguments[", "arguments_["),
        selector,
        variable,
    )
    light, dark = sorted((luminance(colour) for colour in colours), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_a_keyboard_and_a_screen_reader_are_enough(server: StatsServer, browse: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    page = browse(reduced=True)
    page.open(samples=4)
    unnamed = page.run(
        "[...document.querySelectorAll('canvas, button, select, [role=region]')].filter((e) => !("
        "e.getAttribute('aria-label') || e.getAttribute('aria-labelledby') || e.innerText"
        " || (e.labels && e.labels.length))).map((e) => e.outerHTML)"
    )
    assert unnamed == []
    ids = page.run("[...document.querySelectorAll('[aria-labelledby]')].map((e) => e.getAttribute('aria-labelledby'))")
    assert all(page.run("!!document.getElementById(arguments[0])", name) for name in ids)
    assert page.run("[...document.querySelectorAll('th')].every((e) => e.scope)")
    # All that can be used is reached by Tab, and shows that it is.
    reached = []
    for _ in range(60):
        page.press(Keys.TAB)
        name = page.run("document.activeElement.tagName.toLowerCase()")
        if name == "body":
            break
        reached.append(name)
        assert page.run("getComputedStyle(document.activeElement).outlineStyle") != "none", reached
    assert reached.count("canvas") == 8
    assert reached.count("summary") == 8
    assert {"a", "select", "button"} <= set(reached)
    # The arrow keys walk through a chart, and the picture says what is there.
    page.run("document.querySelector('canvas').focus()")
    now = page.run("document.querySelector('canvas').getAttribute('aria-label')")
    assert re.match(r"Chart: Connections, now: open \d+, from \d+ to \d+\.", now)
    page.press(Keys.HOME)
    assert ", at " in page.run("document.querySelector('canvas').getAttribute('aria-label')")
    assert page.run("!document.querySelector('.when').hidden")
    page.press(Keys.ESCAPE)
    assert page.run("document.querySelector('.when').hidden")
    # The same as a table.
    page.run("document.querySelector('summary').focus()")
    page.press(Keys.ENTER)
    eventually(lambda: len(page.run("document.querySelectorAll('figure tbody tr')")) >= 4, "the table is filled")
    assert page.run("getComputedStyle(document.getElementById('pause')).transitionDuration") == "0s"
    assert page.complaints() == []


def test_it_can_be_paused(server: StatsServer, browse: Any) -> None:
    page = browse()
    page.open()
    page.run("document.getElementById('pause').click()")
    assert page.text("#link").strip() == "Paused"
    eventually(lambda: server.stats()["connections"]["open"] == 0, "its websocket is closed")
    held = page.samples()
    page.run("document.getElementById('pause').click()")
    page.wait_for_samples(held + 2)
    assert page.text("#link").strip() == "Live"
    assert page.complaints() == []


def test_without_a_websocket_it_asks(server: StatsServer, browse: Any) -> None:
    page = browse()
    page.driver.execute_cdp_cmd(
        "Page.addScriptToEvaluateOnNewDocument",
        {"source": "window.WebSocket = class { constructor() { setTimeout(() => this.onclose(), 1); } close() {} };"},
    )
    page.open(samples=3)
    assert page.text("#link").strip() == "Asking every 1 s"
    assert page.complaints() == []


def test_it_comes_back_after_a_restart(browse: Any) -> None:
    with StatsServer("graft") as first:
        page = browse()
        page.url = f"http://{first.host}/stats/"
        page.open()
        first.terminate_and(lambda: None)
        eventually(
            lambda: page.run("document.getElementById('link').dataset.state") == "lost", "it says that it is lost"
        )
        with StatsServer("graft", port=first.port):
            back = ("live", "polling")
            eventually(lambda: page.run("document.getElementById('link').dataset.state") in back, "it is back")
            before = page.samples()
            page.wait_for_samples(before + 2)
            page.driver.get("about:blank")


def test_no_file_is_from_elsewhere() -> None:
    """The page works without a network, and with a strict policy."""
    for path in FOLDER.iterdir():
        text = path.read_text()
        urls = set(
            re.findall(r"""(?:https?:)?//[a-z][\w.-]+\.\w+""", re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE))
        )
        assert urls <= {"http://www.w3.org"}, path
        assert " style=" not in text
        assert not re.search(r"\son\w+=", text)
        assert "eval(" not in text
        assert "innerHTML" not in text


def test_it_is_part_of_the_package() -> None:
    setup = (FOLDER.parent.parent.parent / "setup.py").read_text()
    assert "server/dashboard/" in setup
    assert {path.suffix for path in FOLDER.iterdir()} == {".html", ".css", ".js"}

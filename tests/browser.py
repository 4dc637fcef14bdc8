"""Chromium for the tests, driven by the package selenium. What needs it is skipped where one of them is missing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.helpers import PATIENCE

ARGUMENTS = (
    "headless=new",
    "no-sandbox",
    "disable-gpu",
    "disable-quic",
    "no-first-run",
    "disable-background-networking",
    "disable-component-update",
    "disable-dev-shm-usage",
    "disable-sync",
    "hide-scrollbars",
)


def start_chromium() -> Any:
    """Return the driver of a browser that knows nothing yet, or skip the test."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="the browser is driven by the package selenium")
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("chromium or chromedriver is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in ARGUMENTS:
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chromium = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    chromium.set_script_timeout(PATIENCE)
    return chromium


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser, for the tests of a module."""
    chromium = start_chromium()
    try:
        yield chromium
    finally:
        chromium.quit()


@pytest.fixture
def windows(chromium: Any) -> Iterator[Any]:
    """The browser, whose windows that a test opens are closed after it."""
    first = chromium.current_window_handle
    yield chromium
    for window in chromium.window_handles:
        if window != first:
            chromium.switch_to.window(window)
            chromium.close()
    chromium.switch_to.window(first)

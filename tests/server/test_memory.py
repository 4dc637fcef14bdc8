"""What a websocket takes that says nothing, on the server of websockets only."""

from __future__ import annotations

import gc
import tracemalloc

from tests.helpers import until
from tests.server.served import Serve

WARM = 100
COUNT = 300
MOST = 2100
"""Bytes that the package has allocated for each, with the headers of a browser's request, but for its lock."""

HEADERS = {
    "Origin": "http://127.0.0.1",
    "User_Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0 Safari/537.36",
    "Accept_Encoding": "gzip, deflate, br",
    "Accept_Language": "en-US,en;q=0.9",
    "Cache_Control": "no-cache",
    "Pragma": "no-cache",
    "Cookie": "session=1",
}


def test_an_idle_websocket(serve: Serve) -> None:
    server = serve(ping_interval=None, workers=0)
    manager = server.server.manager

    def open_more(count: int) -> int:
        """Return how many bytes the package has then."""
        for _ in range(count):
            server.open("/chat", **HEADERS)
        until(lambda: manager.stats().workers.waiting == 0)
        gc.collect()
        everything = tracemalloc.take_snapshot()
        own = everything.filter_traces([tracemalloc.Filter(True, "*/ws4py/*")])
        return sum(trace.size for trace in own.traces)

    tracemalloc.start()
    try:
        before = open_more(WARM)
        each = (open_more(COUNT) - before) / COUNT
    finally:
        tracemalloc.stop()
    assert each < MOST

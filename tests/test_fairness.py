"""The work that one connection causes in a cycle is bounded, whatever its peer sends or leaves unread."""

from __future__ import annotations

import threading
from types import FrameType

from tests.helpers import Recorder, Stage, unix_pair


class Work:
    """Counts the calls of functions that threads make which are started while it is active: a manager's thread, say."""

    def __init__(self) -> None:
        self.calls = 0

    def __enter__(self) -> Work:
        threading.setprofile(self._count)
        return self

    def __exit__(self, *_: object) -> None:
        threading.setprofile(None)

    def _count(self, frame: FrameType, event: str, argument: object) -> None:
        if event in ("call", "c_call"):
            self.calls += 1


# --- what is written --------------------------------------------------------------------------------------------------


def test_many_small_messages_cost_no_more_for_being_read_in_small_pieces(stage: Stage) -> None:
    count = 60_000
    with Work() as work:
        manager = stage.manager(ping_interval=None)
        websocket, peer = stage.connect(manager, Recorder, unix_pair, small=True)
        for _ in range(count):
            websocket.send(b"12345678", binary=True)
        for _ in range(count):
            assert peer.receive_message() == b"12345678"
    assert work.calls < 5 * count

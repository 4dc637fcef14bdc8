"""A run of the checker."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from tests.checker.recording import Follower, Publisher, Report, check
from tests.helpers import until

__all__ = ["run"]


def run(
    ports: list[int], seconds: float, seed: str, disturb: Callable[[], object], followers: int = 6, publishers: int = 3
) -> Report:
    """Have clients follow and publish while they are disturbed; then leave them alone, and see what they got.

    At the end each follower must get what is published last.

    :param disturb: is called again and again; it takes its time.
    """
    following = [Follower(ports, f"{seed} follower {number}") for number in range(followers)]
    publishing = [Publisher(ports, f"{seed} publisher {number}", f"p{number}") for number in range(publishers)]
    for client in (*following, *publishing):
        client.start()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        disturb()
    for follower in following:
        follower.settled.set()
    for publisher in publishing:
        publisher.end()
    last = Publisher(ports, f"{seed} last", "last")
    last.start()
    violations: list[str] = []
    try:
        until(lambda: all((follower.last or "").startswith("last ") for follower in following), 30.0)
    except AssertionError:
        late = [number for number, follower in enumerate(following) if not (follower.last or "").startswith("last ")]
        violations.append(f"followers {late} did not get what was published last")
    for client in (last, *following):
        with contextlib.suppress(ConnectionError):
            client.end()
    report = check(following, [*publishing, last])
    return Report([*violations, *report.violations], report.counts)

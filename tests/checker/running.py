"""A run of the checker."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.checker.recording import Follower, Publisher, Report, check, present
from tests.helpers import until

__all__ = ["run"]


def run(
    ports: list[int],
    seconds: float,
    seed: str,
    disturb: Callable[[], object],
    followers: int = 6,
    publishers: int = 3,
    bound: float = 15.0,
) -> Report:
    """Have clients follow and publish while they are disturbed; then leave them alone, and see what they got.

    At the end each follower must get what is published last, and it must be known who is present.

    :param disturb: is called again and again; it takes its time.
    :param bound: so many seconds after the last disturbance all is right again.
    """
    following = [Follower(ports, f"{seed} follower {number}", f"f{number}") for number in range(followers)]
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

    def become(condition: Callable[[], bool], what: Callable[[], str]) -> None:
        try:
            until(condition, bound)
        except AssertionError:
            violations.append(what())

    def late() -> list[str]:
        return [follower.name for follower in following if not (follower.last or "").startswith("last ")]

    names = {follower.name for follower in following}
    become(lambda: not late(), lambda: f"{late()} did not get what was published last")
    become(lambda: present(ports) == names, lambda: f"present are {present(ports)}, not {names}")
    for client in (last, *following):
        client.end()
    become(lambda: present(ports) == set(), lambda: f"{present(ports)} are present though nobody is there")
    report = check(following, [*publishing, last])
    return Report([*violations, *report.violations], report.counts)

"""The scenarios, as classes of users for locust: ``locust -f loadtest/locustfile.py EchoUser --host http://...``.

The server is :mod:`loadtest.server`, or any that has its paths.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
import uuid
from pathlib import Path
from typing import Any

# locust knows the file by its path only.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import gevent
import locust.stats
from locust import FastHttpUser, constant, events, task
from locust.runners import WorkerRunner

from loadtest import report
from loadtest.tally import Tally, tally_of
from loadtest.users import AnswerError, WebSocketUser


def _interval(user: WebSocketUser) -> float:
    """Wait between two messages of a user as long as the command line says."""
    interval: float = user.environment.parsed_options.message_interval
    return interval


class EchoUser(WebSocketUser):
    """Sends a message, and waits for its echo."""

    path = "/echo"
    wait_time = _interval

    def on_start(self) -> None:
        """Connect."""
        super().on_start()
        self._numbers = itertools.count()

    @task
    def echo(self) -> None:
        """Ask for an echo, and compare it."""
        payload = f"{next(self._numbers)} ".ljust(self.environment.parsed_options.message_size, "x")
        begin = time.perf_counter()
        answer = self.ask(payload)
        if answer is not None and answer != payload:
            self.report("round trip", begin, error=AnswerError("another message was echoed"))


class BlockingUser(EchoUser):
    """Sends messages to a handler that sleeps for 10 ms before it answers."""

    path = "/blocking"


class IdleUser(WebSocketUser):
    """Keeps a websocket open, answers Pings, and hears broadcasts."""

    path = "/crowd"

    @task
    def stay(self) -> None:
        """Do nothing, and connect again when the websocket is lost."""
        if self.connected:
            gevent.sleep(1.0 if self.environment.runner.state == "running" else 0.2)
        else:
            self.on_start()


class AnnouncerUser(WebSocketUser):
    """Has a broadcast sent to everybody, itself included, again and again. There is one."""

    path = "/crowd"
    fixed_count = 1

    def on_start(self) -> None:
        """Connect."""
        super().on_start()
        self._name = uuid.uuid4().hex[:8]
        self._numbers = itertools.count(1)

    def wait_time(self) -> float:
        """Wait between two broadcasts as long as the command line says."""
        interval: float = self.environment.parsed_options.broadcast_interval
        return interval

    @task
    def announce(self) -> None:
        """Have one sent, and wait until the server has said to how many."""
        at, number = time.time(), f"{self._name}-{next(self._numbers)}"
        text = "x" * self.environment.parsed_options.message_size
        answer = self.ask(json.dumps({"news": number, "at": at, "text": text}), "broadcast")
        if answer is not None:
            self._tally.sent(number, at, json.loads(answer)["reached"])


class ChatUser(AnnouncerUser):
    """Says something to everybody, now and then."""

    fixed_count = 0
    wait_time = _interval


class PageUser(FastHttpUser):
    """Fetches a page, by HTTP, from the server that holds the websockets. There are five."""

    fixed_count = 5
    wait_time = constant(0.2)

    @task
    def page(self) -> None:
        """Fetch it."""
        self.client.get("/page", name="/page")


class ChurnUser(WebSocketUser):
    """Connects, talks a little, and leaves; again and again."""

    path = "/echo"
    wait_time = _interval

    def on_start(self) -> None:
        """Come without a websocket."""

    @task
    def visit(self) -> None:
        """Connect, have two messages echoed, leave."""
        if self.connect():
            self.ask("hello")
            self.ask("good-bye")
            self.disconnect()


# --- what locust is told ----------------------------------------------------------------------------------------------


def _bucket(milliseconds: float) -> float:
    """Keep tenths of a millisecond below ten; locust would round them away."""
    return round(milliseconds, 1) if milliseconds < 10 else _locusts_bucket(milliseconds)


_locusts_bucket = locust.stats.bucket_response_time
locust.stats.bucket_response_time = _bucket  # type: ignore[assignment]


@events.init_command_line_parser.add_listener
def add_options(parser: Any) -> None:
    """Add the scenarios' options to those of locust; its page shows them, too."""
    parser.add_argument("--message-size", type=int, default=32, help="bytes of each message; 32")
    parser.add_argument("--message-interval", type=float, default=1.0, help="seconds between a user's messages; 1")
    parser.add_argument("--broadcast-interval", type=float, default=5.0, help="seconds between broadcasts; 5")
    parser.add_argument(
        "--duration",
        type=float,
        default=0.0,
        help="seconds of a run; unlike --run-time it lets all users leave, and be counted, before it ends locust",
        include_in_web_ui=False,
    )
    parser.add_argument(
        "--broadcast-grace", type=float, default=3.0, help="seconds before the end in which none is judged; 3"
    )
    parser.add_argument("--compress", action="store_true", help="offer permessage-deflate")
    parser.add_argument(
        "--verify", default="", metavar="FILE", help="the certificates to trust for TLS; 'no' trusts all"
    )
    parser.add_argument(
        "--summary", default="", metavar="FILE", help="where the report is written, as JSON", include_in_web_ui=False
    )


@events.init.add_listener
def prepare(environment: Any, **_: Any) -> None:
    """Connect the tally with locust."""
    others: dict[str, Tally] = {}

    def on_start(environment: Any, **_: Any) -> None:
        environment.websocket_tally = Tally(grace=environment.parsed_options.broadcast_grace)
        others.clear()
        duration = environment.parsed_options.duration
        if duration and not isinstance(environment.runner, WorkerRunner):
            gevent.spawn_later(duration, finish)

    def finish() -> None:
        environment.runner.stop()
        environment.runner.quit()

    def on_stopping(environment: Any, **_: Any) -> None:
        tally_of(environment).stopping()

    def on_stop(environment: Any, **_: Any) -> None:
        # Locust's worker reports what came last only when its master tells it to quit, which may be too late.
        runner = environment.runner
        if isinstance(runner, WorkerRunner):
            data: dict[str, Any] = {}
            environment.events.report_to_master.fire(client_id=runner.client_id, data=data)
            runner.send_message("stats", data)

    def on_report_to_master(client_id: str, data: dict[str, Any]) -> None:
        data["websocket_tally"] = tally_of(environment).as_dict()

    def on_worker_report(client_id: str, data: dict[str, Any]) -> None:
        if "websocket_tally" in data:
            others[client_id] = Tally.from_dict(data["websocket_tally"])

    def on_quitting(environment: Any, **_: Any) -> None:
        file = environment.parsed_options.summary
        if file and not isinstance(environment.runner, WorkerRunner):
            report.write(Path(file), environment, [*others.values(), tally_of(environment)])

    environment.events.test_start.add_listener(on_start)
    environment.events.test_stopping.add_listener(on_stopping)
    environment.events.test_stop.add_listener(on_stop)
    environment.events.report_to_master.add_listener(on_report_to_master)
    environment.events.worker_report.add_listener(on_worker_report)
    environment.events.quitting.add_listener(on_quitting)

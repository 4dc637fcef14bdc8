"""An echo client for the Autobahn test suite: ``echo_client.py threaded|gevent URL NAME``."""

from __future__ import annotations

import sys
from typing import Any

from ws4py.messaging import Message

LIMITS: dict[str, Any] = {"max_message_size": 32 * 1024 * 1024, "max_fragments": 100_000, "proxy": None}


def play(base: type[Any], url: str, name: str) -> None:
    """Ask how many cases there are, play each, and have the reports written."""

    class Counting(base):
        count = 0

        def received_message(self, message: Message) -> None:
            self.count = int(str(message))

    class Echo(base):
        def received_message(self, message: Message) -> None:
            self.send(message.data, message.is_binary)

    def run(client: Any) -> Any:
        client.connect()
        client.run_forever()
        return client

    count = run(Counting(f"{url}/getCaseCount", **LIMITS)).count
    for case in range(1, count + 1):
        run(Echo(f"{url}/runCase?case={case}&agent={name}", **LIMITS))
    run(Echo(f"{url}/updateReports?agent={name}", **LIMITS))


def main() -> None:
    kind, url, name = sys.argv[1:]
    if kind == "gevent":
        from gevent import monkey

        monkey.patch_all()
        from ws4py.client.geventclient import WebSocketClient as GreenletClient

        play(GreenletClient, url, name)
    else:
        from ws4py.client.threadedclient import WebSocketClient

        play(WebSocketClient, url, name)


if __name__ == "__main__":
    main()

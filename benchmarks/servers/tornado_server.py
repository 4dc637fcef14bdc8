"""tornado; what blocks runs on a pool of threads. (uvloop makes it no faster: tornado reads by itself.)"""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import tornado.web
import tornado.websocket
from common import BLOCKING, DEFLATE, NEWS, PAGE, PING, PORT, THREADS, tls_context

members = set()


class Page(tornado.web.RequestHandler):
    """The page."""

    def get(self):
        self.write(PAGE)


class Echo(tornado.websocket.WebSocketHandler):
    """Echoes."""

    def check_origin(self, origin):
        return True

    def get_compression_options(self):
        return {} if DEFLATE else None

    def on_message(self, message):
        self.write_message(message, isinstance(message, bytes))


class Slow(Echo):
    """Echoes after code that blocks."""

    async def on_message(self, message):
        await asyncio.to_thread(time.sleep, BLOCKING)
        self.write_message(message, isinstance(message, bytes))


class Fan(Echo):
    """Sends news to all for each message."""

    def open(self):
        members.add(self)

    def on_close(self):
        members.discard(self)

    def on_message(self, message):
        for member in list(members):
            member.write_message(NEWS)


async def main():
    """Serve."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
    handlers = [("/", Page), ("/ws", Echo), ("/slow", Slow), ("/fan", Fan)]
    app = tornado.web.Application(handlers, websocket_ping_interval=PING, log_function=lambda handler: None)
    server = tornado.httpserver.HTTPServer(app, ssl_options=tls_context())
    server.bind(PORT, "127.0.0.1", backlog=4096)
    server.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())

"""picows, with uvloop; what blocks runs on a pool of threads. It has no compression, and serves no pages."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import picows
import uvloop
from common import BLOCKING, NEWS, PING, PORT, THREADS, tls_context

members = set()
tasks = set()


class Echo(picows.WSListener):
    """Echoes."""

    def on_ws_connected(self, transport):
        self.transport = transport

    def on_ws_frame(self, transport, frame):
        if frame.msg_type in (picows.WSMsgType.TEXT, picows.WSMsgType.BINARY):
            transport.send(frame.msg_type, frame.get_payload_as_memoryview())
        elif frame.msg_type == picows.WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()


class Slow(Echo):
    """Echoes after code that blocks."""

    def on_ws_frame(self, transport, frame):
        if frame.msg_type not in (picows.WSMsgType.TEXT, picows.WSMsgType.BINARY):
            super().on_ws_frame(transport, frame)
            return
        task = asyncio.create_task(self.answer(frame.msg_type, frame.get_payload_as_bytes()))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def answer(self, kind, payload):
        """Block on a thread, then echo."""
        await asyncio.to_thread(time.sleep, BLOCKING)
        self.transport.send(kind, payload)


class Fan(Echo):
    """Sends news to all for each message."""

    def on_ws_connected(self, transport):
        members.add(transport)

    def on_ws_disconnected(self, transport):
        members.discard(transport)

    def on_ws_frame(self, transport, frame):
        if frame.msg_type != picows.WSMsgType.TEXT:
            super().on_ws_frame(transport, frame)
            return
        news = NEWS.encode()
        for member in members:
            member.send(picows.WSMsgType.TEXT, news)


LISTENERS = {b"/slow": Slow, b"/fan": Fan}


def make_listener(request):
    """Return what listens to a connection."""
    return LISTENERS.get(request.path, Echo)()


async def main():
    """Serve."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
    options = {"enable_auto_ping": True, "auto_ping_idle_timeout": PING} if PING else {}
    server = await picows.ws_create_server(make_listener, "127.0.0.1", PORT, ssl=tls_context(), backlog=4096, **options)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())

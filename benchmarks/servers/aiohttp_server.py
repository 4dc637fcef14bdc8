"""aiohttp, with uvloop; what blocks runs on a pool of threads."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import uvloop
from aiohttp import WSMsgType, web
from common import BLOCKING, DEFLATE, NEWS, PAGE, PING, PORT, THREADS, tls_context

members = set()


async def page(request):
    """Serve the page."""
    return web.Response(body=PAGE, content_type="text/html")


async def websocket(request):
    """Serve a websocket."""
    path = request.path
    ws = web.WebSocketResponse(compress=DEFLATE, heartbeat=PING or None)
    await ws.prepare(request)
    if path == "/fan":
        members.add(ws)
    try:
        async for message in ws:
            if path == "/fan":
                for member in list(members):
                    await member.send_str(NEWS)
                continue
            if path == "/slow":
                await asyncio.to_thread(time.sleep, BLOCKING)
            if message.type == WSMsgType.TEXT:
                await ws.send_str(message.data)
            elif message.type == WSMsgType.BINARY:
                await ws.send_bytes(message.data)
    finally:
        members.discard(ws)
    return ws


async def main():
    """Serve."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
    app = web.Application()
    app.router.add_get("/", page)
    for path in ("/ws", "/slow", "/fan"):
        app.router.add_get(path, websocket)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", PORT, ssl_context=tls_context(), backlog=4096).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())

"""websockets on asyncio, with uvloop; what blocks runs on a pool of threads."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import uvloop
from common import BLOCKING, DEFLATE, NEWS, PING, PORT, THREADS, tls_context
from websockets.asyncio.server import broadcast, serve

members = set()


async def handler(websocket):
    """Serve a connection."""
    path = websocket.request.path
    if path == "/fan":
        members.add(websocket)
    try:
        async for message in websocket:
            if path == "/fan":
                broadcast(members, NEWS)
                continue
            if path == "/slow":
                await asyncio.to_thread(time.sleep, BLOCKING)
            await websocket.send(message)
    finally:
        members.discard(websocket)


async def main():
    """Serve."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
    options = {} if PING is None else {"ping_interval": PING or None}
    compression = "deflate" if DEFLATE else None
    async with serve(
        handler, "127.0.0.1", PORT, compression=compression, ssl=tls_context(), backlog=4096, **options
    ) as server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())

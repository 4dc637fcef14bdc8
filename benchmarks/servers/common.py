"""What the servers share: ``SERVER PORT [OPTION=VALUE ...]``, and what they are asked to do.

Options: ``ping`` is the seconds between Pings, 0 for none, and without it what the library does by itself; ``tls`` is a
folder with ``certificate.pem`` and ``key.pem``; ``deflate=1`` turns compression on; ``compute=1`` has a
thread beside compute in Python; ``interval`` is that for which it may keep others waiting (``sys.setswitchinterval``);
``workers`` and ``max_workers`` are for ws4py.

Paths: ``/ws`` echoes, ``/slow`` echoes after :data:`BLOCKING` seconds that block, ``/fan`` sends :data:`NEWS` to all on
it for each message, and ``/`` is a page.
"""

import sys
import threading
from pathlib import Path

PAGE = b"<!doctype html><title>benchmark</title>" + b"<p>It is served by the process of the websockets.</p>" * 18
NEWS = "x" * 128
BLOCKING = 0.010
THREADS = 32
"""For blocking code on an event loop: as many as ws4py has workers."""

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 9000
OPTIONS = dict(option.split("=", 1) for option in sys.argv[2:])
PING = float(OPTIONS["ping"]) if "ping" in OPTIONS else None
TLS = Path(OPTIONS["tls"]) if "tls" in OPTIONS else None
CERTIFICATE = str(TLS / "certificate.pem") if TLS else None
KEY = str(TLS / "key.pem") if TLS else None
DEFLATE = OPTIONS.get("deflate") == "1"


def compute():
    """Do what a page does that is being rendered, without end."""
    total = 0
    while True:
        for number in range(1000):
            total += number * number % 7


if "interval" in OPTIONS:
    sys.setswitchinterval(float(OPTIONS["interval"]))
if OPTIONS.get("compute") == "1":
    threading.Thread(target=compute, daemon=True).start()


def tls_context():
    """Return the context for TLS, None without."""
    if TLS is None:
        return None
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE, KEY)
    return context

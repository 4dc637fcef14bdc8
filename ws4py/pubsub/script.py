"""The client for browsers: a file, and a WSGI application that answers with it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, Final

__all__ = ["CLIENT", "serve_client"]

CLIENT: Final = Path(__file__).parent / "pubsub.js"
"""The client for browsers: a module of JavaScript without dependencies. Serve it as ``text/javascript``."""


@cache
def _script() -> tuple[bytes, str]:
    """Return the client, and its entity tag."""
    body = CLIENT.read_bytes()
    return body, f'"{hashlib.sha256(body).hexdigest()[:20]}"'


def serve_client(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Answer a GET or a HEAD with the client, whatever the path is: a WSGI application, to be mounted anywhere.

    A browser keeps it, and asks each time whether it has changed.
    """
    method = environ.get("REQUEST_METHOD", "GET")
    if method not in ("GET", "HEAD"):
        start_response("405 Method Not Allowed", [("Allow", "GET, HEAD"), ("Content-Length", "0")])
        return [b""]
    body, tag = _script()
    headers = [("ETag", tag), ("Cache-Control", "no-cache"), ("X-Content-Type-Options", "nosniff")]
    if tag in environ.get("HTTP_IF_NONE_MATCH", ""):
        start_response("304 Not Modified", headers)
        return [b""]
    headers += [("Content-Type", "text/javascript; charset=utf-8"), ("Content-Length", str(len(body)))]
    start_response("200 OK", headers)
    return [body if method == "GET" else b""]

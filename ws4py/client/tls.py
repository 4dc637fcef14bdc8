"""TLS as a client wants it: verified, unless it is told not to."""

from __future__ import annotations

import functools
import logging
import ssl
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["make_context"]

logger = logging.getLogger("ws4py")

OPTIONS: Final = frozenset(
    {
        "ca_certs",
        "ca_data",
        "cert_reqs",
        "certfile",
        "check_hostname",
        "ciphers",
        "keyfile",
        "password",
        "server_hostname",
    }
)


def make_context(options: Mapping[str, Any]) -> ssl.SSLContext:
    """Return the context for a client's ``ssl_options``.

    Certificates and host names are verified, against ``ca_certs`` (a path) or ``ca_data`` (PEM text) or else what the
    system trusts. ``cert_reqs=ssl.CERT_NONE`` turns that off, with a warning in the log; ``check_hostname=False`` only
    the host's part. ``certfile``, ``keyfile`` and ``password`` are the client's own certificate; ``ciphers`` is
    OpenSSL's list. Other options are left out, with a warning.

    :raises OSError: for a file that can't be read, or has no certificate.
    """
    unknown = set(options) - OPTIONS
    if unknown:
        logger.warning("There are no ssl_options named %s: they have no effect", ", ".join(sorted(unknown)))
    verify = options.get("cert_reqs", ssl.CERT_REQUIRED) != ssl.CERT_NONE
    if not set(options) - {"cert_reqs", "server_hostname"} - unknown:
        context = _plain_context(verify, ssl.SSLContext)
    else:
        context = _new_context(verify, options)
    if not verify:
        logger.warning("TLS certificates are not verified: anybody on the way can read and change what is sent")
    return context


@functools.lru_cache(maxsize=4)
def _plain_context(verify: bool, kind: type[ssl.SSLContext]) -> ssl.SSLContext:
    """Keep one context for all: to load what the system trusts takes long. The ``kind`` changes when gevent patches."""
    return _new_context(verify, {})


def _new_context(verify: bool, options: Mapping[str, Any]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=options.get("ca_certs"), cadata=options.get("ca_data"))
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif not options.get("check_hostname", True):
        context.check_hostname = False
    if options.get("certfile"):
        context.load_cert_chain(options["certfile"], options.get("keyfile"), options.get("password"))
    if options.get("ciphers"):
        context.set_ciphers(options["ciphers"])
    return context

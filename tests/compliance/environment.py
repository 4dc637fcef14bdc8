"""The environment of its own in which the Autobahn test suite runs: where it is, and whether it is complete."""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
"""The folder that holds ``tests``."""

SUITE = CHECKOUT / "tests" / "compliance" / "suite"
"""The folder of what runs inside the environment."""

REQUIREMENTS = SUITE / "requirements.txt"
REQUIREMENTS_SUITE = SUITE / "requirements-suite.txt"
PORT = SUITE / "port.py"
WSTEST = SUITE / "wstest.py"

ENVIRONMENT = Path(os.environ.get("WS4PY_AUTOBAHN") or CHECKOUT / ".cache" / "autobahn").absolute()
"""The folder of the environment: ``.cache/autobahn`` of the checkout, or what ``WS4PY_AUTOBAHN`` says."""

PYTHON = ENVIRONMENT / "bin" / "python"

SETUP = "python -m tests.compliance.setup"
"""The command that makes it."""

_STAMP = ENVIRONMENT / "complete"


def _fingerprint() -> str:
    """Return a digest of what the environment is made from: another one means that it is out of date."""
    digest = hashlib.sha256(platform.machine().encode())
    for path in (REQUIREMENTS_SUITE, REQUIREMENTS, PORT):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def is_complete() -> bool:
    """Tell whether the environment was made to its end, from the files as they are now, and can still start."""
    try:
        return _STAMP.read_text(encoding="ascii") == _fingerprint() and PYTHON.exists()
    except OSError:
        return False


def mark_complete() -> None:
    """Leave the mark that :func:`is_complete` looks for."""
    _STAMP.write_text(_fingerprint(), encoding="ascii")

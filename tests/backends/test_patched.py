"""Processes that are patched, so that their threads are greenlets, and a plain manager in them."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from tests.serving import PATIENCE, ROOT


def run(program: str, *arguments: str) -> str:
    """Return what a program of ``tests/programs`` says, which ends well."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    path = str(ROOT / "tests" / "programs" / program)
    done = subprocess.run(
        [sys.executable, path, *arguments],
        check=False,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("options", ["{}", '{"workers": 1}', '{"workers": 0}', '{"dispatch": "pool"}'])
@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_a_plain_manager(library: str, options: str) -> None:
    """It gives way to the other greenlets, busy or idle; what blocks is the caller's own affair, as on threads."""
    check(library, options)


@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_a_plain_manager_with_many_descriptors(library: str) -> None:
    """There is no epoll there; but select() alone would be at its end with 1024 of them."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    try:
        check(library, "{}", "1100")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def check(library: str, *arguments: str) -> None:
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    assert json.loads(run("patched.py", library, *arguments)) == {
        "others run while nothing comes": True,
        "idle": True,
        "broadcast": 3,
        "goodbye": [1001, 1001],
        "state": "stopped",
        "ends": 3,
    }


def test_native_threads_beside_a_manager_of_greenlets() -> None:
    """The locks that they share with the hub, which can't wait for one of gevent's, are not gevent's."""
    pytest.importorskip("gevent")
    assert run("gevent_threadpool.py") == "{503: 1} 0\n"

"""The fuzz targets: on the corpus, without atheris, and for a fixed small number of executions with it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuzz import codec, framing, harness, heads, stream
from tests.serving import ROOT

TARGETS: dict[str, tuple[Callable[[bytes], None], int]] = {
    "stream": (stream.check, 5000),
    "codec": (codec.check, 500),
    "heads": (heads.check, 20000),
}
if framing.compiled is not None:
    TARGETS["framing"] = (framing.check, 10000)

"""The targets, and how often each is executed here."""

CORPUS = [path for name in TARGETS for path in sorted((harness.CORPUS / name).iterdir())]


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_the_corpus(path: Path) -> None:
    TARGETS[path.parent.name][0](path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_is_found(name: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed: it has wheels for CPython 3.11 and later on Linux, x86-64")
    arguments = [f"-runs={TARGETS[name][1]}", "-seed=1", "-max_len=256", f"-artifact_prefix={tmp_path}{os.sep}"]
    done = subprocess.run(
        [sys.executable, "-m", f"tests.fuzz.{name}", *arguments, str(tmp_path), str(harness.CORPUS / name)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert f"Done {TARGETS[name][1]} runs" in done.stderr

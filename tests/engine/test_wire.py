"""The C of the compiled engine by itself, in a program that the compiler's sanitizers watch: ``wire_stress.c``."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parents[1] / "ws4py"
SOURCES = [
    HERE / "wire_stress.c",
    *(PACKAGE / "engine" / "c" / f"{name}.c" for name in ("core", "cycle", "outbox", "parse")),
    *(PACKAGE / "native" / f"{name}.c" for name in ("masking", "parsing", "utf8")),
]
OPTIONS = ["-g", "-O1", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fno-sanitize-recover=all"]

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="it uses epoll"),
    pytest.mark.timeout(180),
]


@pytest.mark.parametrize("sanitizers", ["thread", "address,undefined"])
def test_nothing_is_lost_and_no_thread_meets_another(tmp_path: Path, sanitizers: str) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    program = tmp_path / "program"
    command = [
        compiler,
        *OPTIONS,
        f"-fsanitize={sanitizers}",
        *map(str, SOURCES),
        "-o",
        str(program),
        "-lpthread",
        "-lm",
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if "sanitize" in done.stderr or "cannot find lib" in done.stderr:
        pytest.skip(f"the compiler has no such sanitizers: {done.stderr}")
    assert done.returncode == 0, done.stderr
    # without random addresses, which an older ThreadSanitizer has no shadow for
    run = ["setarch", platform.machine(), "-R"] if shutil.which("setarch") else []
    for seed in ("1", "2"):
        done = subprocess.run([*run, str(program), seed], check=False, capture_output=True, text=True, timeout=80)
        assert (done.returncode, done.stdout) == (0, "all came\n"), done.stderr

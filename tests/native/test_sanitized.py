"""The C files by themselves, in a program that the compiler's sanitizers watch: ``sanitized.c``."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
NATIVE = HERE.parents[1] / "ws4py" / "native"
SOURCES = [NATIVE / f"{name}.c" for name in ("masking", "parsing", "utf8")]
OPTIONS = ["-g", "-O1", "-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-fno-sanitize-recover=all"]
ROUNDS = 20000


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, compiled with whatever sanitizers there are."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    path = tmp_path_factory.mktemp("sanitized") / "program"
    command = [compiler, *OPTIONS, f"-I{NATIVE}", str(HERE / "sanitized.c"), *map(str, SOURCES), "-o", str(path)]
    done = subprocess.run([*command, "-fsanitize=address,undefined"], check=False, capture_output=True, text=True)
    if "sanitize" in done.stderr or "libasan" in done.stderr:
        pytest.skip(f"the compiler has no sanitizers: {done.stderr}")
    assert done.returncode == 0, done.stderr
    return path


@pytest.mark.parametrize("seed", [1, 2])
def test_no_byte_is_touched_that_is_not_there_and_cuts_change_nothing(program: Path, seed: int) -> None:
    command = [str(program), str(seed), str(ROUNDS)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{ROUNDS} rounds\n", "")

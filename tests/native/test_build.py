"""How the package is built and installed, with a compiler and without one, and what is said about it then."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.helpers import Stage
from ws4py import native

PROJECT = Path(__file__).resolve().parents[2]
PARTS = ["setup.py", "pyproject.toml", "MANIFEST.in", "README.rst", "CHANGELOG.rst", "CONTRIBUTING.rst", "LICENSE"]
FOLDERS = ["ws4py", "examples"]
BUILD_TIME = 300  # seconds

pytest.importorskip("build", reason="packages are built with the package build")
pytest.importorskip("Cython", reason="what is compiled is written in Cython")
pytestmark = [
    pytest.mark.timeout(2 * BUILD_TIME),
    pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler"),
]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the package is built from, without what was built before."""
    path = tmp_path_factory.mktemp("checkout")
    for name in PARTS:
        shutil.copy2(PROJECT / name, path)
    built = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd", "framing.c", "_wire.c")
    for name in FOLDERS:
        shutil.copytree(PROJECT / name, path / name, ignore=built)
    return path


def run(*command: str, cwd: Path, status: int = 0, **environment: str) -> str:
    """Run Python in a folder; return what it writes."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env={**{name: value for name, value in os.environ.items() if name != "WS4PY_ENGINE"}, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BUILD_TIME,
        check=False,
    )
    assert done.returncode == status, done.stdout
    return done.stdout


def build(kind: str, source: Path, target: Path, *options: str, **environment: str) -> Path:
    """Build a wheel or an sdist, with what is installed here; return it."""
    options = ("--no-isolation", "--outdir", str(target), *options)
    run("-m", "build", f"--{kind}", *options, ".", cwd=source, status=0, **environment)
    (made,) = target.iterdir()
    return made


def installed(wheel: Path, target: Path) -> Path:
    """Install a wheel into a folder of its own; return that."""
    run("-m", "pip", "install", "--no-deps", "--no-index", "--target", str(target), str(wheel), cwd=target.parent)
    return target


def ask(folder: Path, expression: str, status: int = 0, **environment: str) -> str:
    """Return the value of an expression in an interpreter that has the package that is installed in ``folder``."""
    script = f"import ws4py, ws4py.native as native, ws4py.framing as framing; print({expression})"
    return run("-c", script, cwd=folder.parent, status=status, PYTHONPATH=str(folder), **environment).rstrip("\n")


@pytest.fixture(scope="module")
def sdist(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(build("sdist", checkout, folder / "made")) as archive:
        archive.extractall(folder, filter="data")
    (unpacked,) = folder.glob("ws4py-*")
    return unpacked


@pytest.fixture(scope="module")
def compiled(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel with the compiled parts, which is made from the sdist."""
    return build("wheel", sdist, tmp_path_factory.mktemp("wheel") / "made", WS4PY_ENGINE="compiled")


@pytest.fixture(scope="module")
def without_compiler(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a wheel is installed that was made on a machine that has no compiler."""
    folder = tmp_path_factory.mktemp("without")
    return installed(build("wheel", checkout, folder / "made", CC="no-such-compiler"), folder / "installed")


def test_an_sdist_has_the_sources_of_what_is_compiled(sdist: Path) -> None:
    sources = {path.name for path in (PROJECT / "ws4py" / "native").iterdir() if path.suffix in (".pyx", ".h", ".pyi")}
    assert sources
    assert {path.name for path in (sdist / "ws4py" / "native").iterdir()} >= sources | {"masking.c"}


def test_a_wheel_has_the_compiled_parts_and_their_types_but_no_sources(compiled: Path) -> None:
    names = [name for name in zipfile.ZipFile(compiled).namelist() if name.startswith("ws4py/native/")]
    assert any(name.startswith("ws4py/native/framing.") and name.endswith((".so", ".pyd")) for name in names)
    assert "ws4py/native/framing.pyi" in names
    assert not [name for name in names if name.endswith((".c", ".h", ".pyx"))]
    assert not compiled.name.endswith("-py3-none-any.whl")


def test_what_is_installed_with_a_compiler_runs_compiled(compiled: Path, tmp_path: Path) -> None:
    folder = installed(compiled, tmp_path / "installed")
    assert ask(folder, "(native.build().framing, native.build().reason)") == "('compiled', '')"
    assert ask(folder, "framing.apply_mask is native.load(native.FRAMING).apply_mask") == "True"


def test_what_was_compiled_can_run_pure(compiled: Path, tmp_path: Path) -> None:
    folder = installed(compiled, tmp_path / "installed")
    assert ask(folder, "native.build()", WS4PY_ENGINE="pure").startswith("pure engine: WS4PY_ENGINE=pure")


def test_without_a_compiler_it_is_installed_and_says_so(without_compiler: Path) -> None:
    said = ask(without_compiler, "native.build()")
    assert said.startswith("pure engine: it was installed without compiled parts")
    assert ask(without_compiler, "framing.apply_mask.__module__") == "ws4py.pureframing"


def test_without_a_compiler_what_is_demanded_is_missing(without_compiler: Path) -> None:
    said = ask(without_compiler, "ws4py.WebSocket", status=1, WS4PY_ENGINE="compiled")
    assert (
        "ImportError: WS4PY_ENGINE=compiled demands what is not there: it was installed without compiled parts" in said
    )


def test_without_a_compiler_what_is_demanded_can_not_be_built(checkout: Path, tmp_path: Path) -> None:
    command = ["-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), "."]
    run(*command, cwd=checkout, status=1, CC="no-such-compiler", WS4PY_ENGINE="compiled")
    assert not list(tmp_path.iterdir())


def test_without_cython_the_sdist_is_installed(sdist: Path, tmp_path: Path) -> None:
    """Whether it is compiled depends on what the sdist was made with; that it runs does not."""
    blocked = tmp_path / "blocked" / "Cython"
    blocked.mkdir(parents=True)
    (blocked / "__init__.py").write_text("raise ImportError('there is no Cython here')\n")
    source = tmp_path / "source"
    shutil.copytree(sdist, source)
    command = [
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--skip-dependency-check",
        "--outdir",
        str(tmp_path / "made"),
    ]
    run(*command, ".", cwd=source, PYTHONPATH=str(blocked.parent))
    (wheel,) = (tmp_path / "made").iterdir()
    folder = installed(wheel, tmp_path / "installed")
    assert ask(folder, "ws4py.WebSocket.__name__") == "WebSocket"


def test_a_pure_wheel_is_for_every_machine(checkout: Path, tmp_path: Path) -> None:
    wheel = build("wheel", checkout, tmp_path / "made", WS4PY_ENGINE="pure")
    assert wheel.name.endswith("-py3-none-any.whl")
    folder = installed(wheel, tmp_path / "installed")
    assert "pure engine" in ask(folder, "native.build()")


def test_an_editable_install_has_the_compiled_parts(checkout: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(checkout, source)
    command = [
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        str(tmp_path / "there"),
        "-e",
        ".",
    ]
    run(*command, cwd=source, WS4PY_ENGINE="compiled")
    assert ask(source, "native.build().framing") == "compiled"


@pytest.mark.parametrize("word", ["fast", "PURE"])
def test_another_word_is_refused(checkout: Path, word: str) -> None:
    said = run("-c", "import ws4py.framing", cwd=checkout, status=1, WS4PY_ENGINE=word)
    assert f"ImportError: WS4PY_ENGINE must be one of pure, compiled, not '{word}'" in said
    assert "must be pure or compiled" in run("setup.py", "--name", cwd=checkout, status=1, WS4PY_ENGINE=word)


def test_the_command_says_what_runs(without_compiler: Path) -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(without_compiler)!r}); from ws4py.cli import main; main(['--version'])"
    )
    said = run("-I", "-c", script, cwd=without_compiler.parent)
    assert said.endswith("(pure engine: it was installed without compiled parts; interpreter with its lock)\n")


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (native.Build("pure", "compiled", "", True), "pure engine, compiled framing; interpreter with its lock"),
        (native.Build("pure", "pure", "why", False), "pure engine: why; interpreter without a lock"),
        (native.Build("compiled", "compiled", "", False), "compiled engine; interpreter without a lock"),
    ],
    ids=str,
)
def test_what_runs_is_said_in_a_line(build: native.Build, text: str) -> None:
    assert str(build) == text


def test_a_manager_says_what_runs(caplog: pytest.LogCaptureFixture, stage: Stage) -> None:
    with caplog.at_level(logging.INFO, "ws4py"):
        manager = stage.manager()
    assert [record.getMessage() for record in caplog.records] == [f"{manager.name} has started: {native.build()}"]
    assert manager.stats().build == native.build()


def test_what_is_compiled_imports_the_exceptions_alone() -> None:
    """The linter of imports sees no Cython."""
    source = (PROJECT / "ws4py" / "native" / "framing.pyx").read_text(encoding="utf-8")
    imports = re.findall(r"^(?:from|import) (\S+)(?: import\b|$)", source, re.MULTILINE)
    assert imports == ["ws4py.exc"]


def test_types_are_those_of_the_compiled_module() -> None:
    if native.load(native.FRAMING) is None:
        pytest.skip(native.build().reason)
    run("-m", "mypy.stubtest", "--mypy-config-file", "pyproject.toml", native.FRAMING, cwd=PROJECT)

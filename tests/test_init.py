"""The package itself: its names, its two helpers, and what importing it imports."""

from __future__ import annotations

import ast
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import ws4py
from ws4py import configure_logger, format_addresses

PACKAGE = Path(ws4py.__file__).parent
BELOW_THE_IO_LINE = ["exc", "extensions", "extensions.header", "framing", "messaging", "streaming", "handshake"]
INPUT_AND_OUTPUT = {
    "asyncio",
    "gevent",
    "select",
    "selectors",
    "socket",
    "ssl",
    "threading",
    "time",
    "_thread",
    "_socket",
}
EXTRAS = {"cheroot", "cherrypy", "gevent", "locust", "prometheus_client", "redis", "tornado"}


# --- names ----------------------------------------------------------------------------------------------------------


def test_the_names_that_are_exported() -> None:
    assert sorted(ws4py.__all__) == ["WS_KEY", "WS_VERSION", "configure_logger", "format_addresses"]
    assert all(hasattr(ws4py, name) for name in ws4py.__all__)


def test_the_constants() -> None:
    assert ws4py.WS_KEY == b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    assert ws4py.WS_VERSION == (8, 13)
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.?(dev|a|b|rc)\d+)?", ws4py.__version__)


def test_the_package_says_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").exists()


# --- imports --------------------------------------------------------------------------------------------------------


def imported_by(module: str) -> list[str]:
    """Return every module of sys.modules after ``module`` was imported in a new interpreter."""
    script = f"import sys, {module}\nprint(*sys.modules, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r})\n{script}"],
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    )
    return done.stdout.split()


def import_statements(module: str) -> Iterator[str]:
    """Yield the name of each module that the source of ``module`` imports, wherever in it that is."""
    path = PACKAGE.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the package"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_importing_the_package_imports_no_extra_and_nothing_else_of_it() -> None:
    modules = imported_by("ws4py")
    assert not EXTRAS & {name.partition(".")[0] for name in modules}
    assert [name for name in modules if name.startswith("ws4py")] == ["ws4py"]


def test_importing_the_protocol_imports_no_extra_and_only_the_protocol() -> None:
    modules = imported_by("ws4py.streaming, ws4py.handshake")
    assert not EXTRAS & {name.partition(".")[0] for name in modules}
    ours = {name for name in modules if name.startswith("ws4py.")}
    assert ours == {f"ws4py.{name}" for name in BELOW_THE_IO_LINE}


@pytest.mark.parametrize("module", BELOW_THE_IO_LINE)
def test_below_the_io_line_nothing_reads_waits_or_takes_the_time(module: str) -> None:
    assert not INPUT_AND_OUTPUT & {name.partition(".")[0] for name in import_statements(module)}


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("exc", set()),
        ("framing", {"exc"}),
        ("messaging", {"exc", "framing"}),
        ("extensions", set()),
        ("extensions.header", {"extensions"}),
        ("extensions.permessage_deflate", {"exc", "extensions", "framing"}),
        ("handshake", {"exc", "extensions"}),
        ("streaming", {"exc", "extensions", "framing", "messaging"}),
    ],
)
def test_imports_point_only_downward(module: str, allowed: set[str]) -> None:
    ours = {name.split(".")[1] for name in import_statements(module) if name.startswith("ws4py.")}
    assert {name for name in ours if (PACKAGE / f"{name}.py").exists() or (PACKAGE / name).is_dir()} == allowed


# --- configure_logger -----------------------------------------------------------------------------------------------


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """The package's logger without handlers; afterwards it is as it was."""
    logger = logging.getLogger("ws4py")
    handlers, level = logger.handlers[:], logger.level
    logger.handlers.clear()
    yield logger
    for handler in logger.handlers:
        handler.close()
    logger.handlers[:] = handlers
    logger.setLevel(level)


def test_configure_logger_returns_the_logger_of_the_package(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    assert configure_logger() is logger
    assert logger.level == logging.INFO
    (handler,) = logger.handlers
    assert isinstance(handler, logging.StreamHandler)
    assert handler.level == logging.INFO
    logger.debug("too low")
    logger.info("hello %s", "there")
    assert re.fullmatch(r"\[[-0-9 :,]+\] INFO hello there\n", capsys.readouterr().out)


def test_configure_logger_writes_to_a_file(logger: logging.Logger, tmp_path: Path) -> None:
    path = tmp_path / "ws4py.log"
    configure_logger(stdout=False, filepath=str(path), level=logging.DEBUG)
    (handler,) = logger.handlers
    assert isinstance(handler, RotatingFileHandler)
    assert (handler.maxBytes, handler.backupCount) == (10 * 1024 * 1024, 3)
    logger.debug("low")
    assert path.read_text().endswith("DEBUG low\n")


def test_configure_logger_can_write_to_both_and_to_none(logger: logging.Logger, tmp_path: Path) -> None:
    configure_logger(True, str(tmp_path / "log"))
    assert len(logger.handlers) == 2
    for handler in logger.handlers:
        handler.close()
    logger.handlers.clear()
    assert configure_logger(stdout=False).handlers == []


# --- format_addresses -----------------------------------------------------------------------------------------------


def websocket_between(local: object, peer: object) -> Any:
    """Return what format_addresses() looks at of a websocket."""
    return SimpleNamespace(local_address=local, peer_address=peer)


@pytest.mark.parametrize(
    ("local", "peer", "text"),
    [
        (("127.0.0.1", 9000), ("10.0.0.1", 1234), "[Local => 127.0.0.1:9000 | Remote => 10.0.0.1:1234]"),
        (("::1", 9000, 0, 0), ("fe80::1", 1234, 0, 2), "[Local => ::1:9000 | Remote => fe80::1:1234]"),
        ("/run/ws.sock", "", "[Bound to '/run/ws.sock']"),
        ("/run/ws.sock", None, "[Bound to '/run/ws.sock']"),
    ],
)
def test_format_addresses(local: object, peer: object, text: str) -> None:
    assert format_addresses(websocket_between(local, peer)) == text


@pytest.mark.parametrize("local", [("127.0.0.1", 9000), ("::1", 9000, 0, 0), None])
def test_format_addresses_of_a_websocket_whose_peer_is_gone(local: object) -> None:
    """A log line raises nothing."""
    assert format_addresses(websocket_between(local, None)).startswith("[Bound to ")

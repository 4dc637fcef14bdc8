"""The package itself: its names, its two helpers, and what importing it imports."""

from __future__ import annotations

import ast
import importlib.util
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
from ws4py.native import FRAMING, load

PACKAGE = Path(ws4py.__file__).parent
BELOW_THE_IO_LINE = [
    "closing",
    "computed",
    "exc",
    "extensions",
    "extensions.header",
    "framing",
    "handshake",
    "messaging",
    "native",
    "pureframing",
    "streaming",
    "utf8validator",
]
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
NEEDING_EXTRAS = {"GreenletManager": "gevent", "WebSocketPlugin": "cherrypy", "WebSocketTool": "cherrypy"}
EXTRAS = {"cheroot", "cherrypy", "gevent", "locust", "prometheus_client", "redis", "tornado"}


# --- names ----------------------------------------------------------------------------------------------------------


def named_for_type_checkers() -> dict[str, str]:
    """Return the names that the package imports for type checkers only, and from where."""
    block = next(node for node in ast.parse(Path(ws4py.__file__).read_text("utf-8")).body if isinstance(node, ast.If))
    statements = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: node.module or "" for node in statements for alias in node.names}


def in_an_interpreter(script: str) -> str:
    """Run a script in a new interpreter that has this package; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r})\n{script}"],
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    )
    return done.stdout


def test_the_names_that_0_6_had_and_those_that_programs_need_most() -> None:
    assert {"WS_KEY", "WS_VERSION", "configure_logger", "format_addresses"} < set(ws4py.__all__)
    assert {"WebSocket", "EchoWebSocket", "WebSocketManager", "ConnectionClosed", "HandshakeError"} < set(ws4py.__all__)
    assert {"TextMessage", "BinaryMessage", "CloseCode", "State", "WebSocketClient"} < set(ws4py.__all__)


def test_type_checkers_are_told_of_the_same_names_as_programs() -> None:
    assert {*ws4py.__all__, *NEEDING_EXTRAS} == set(named_for_type_checkers())


@pytest.mark.parametrize(("name", "module"), named_for_type_checkers().items())
def test_a_name_is_that_of_its_module(name: str, module: str) -> None:
    if name in NEEDING_EXTRAS:
        pytest.importorskip(NEEDING_EXTRAS[name])
    assert getattr(ws4py, name) is getattr(importlib.import_module(module), name)


def test_each_name_is_in_dir_before_it_was_asked_for() -> None:
    names = set(in_an_interpreter("import ws4py; print(*dir(ws4py))").split())
    assert {*ws4py.__all__, "__version__", "__all__"} < names
    assert {name for name, extra in NEEDING_EXTRAS.items() if importlib.util.find_spec(extra)} < names


def test_a_star_import_has_all_names_and_needs_no_extra() -> None:
    script = f"""if True:
        class Absent:
            def find_spec(self, name, *_):
                if name.partition(".")[0] in {EXTRAS}:
                    raise ModuleNotFoundError("No module named " + name, name=name)
        sys.meta_path.insert(0, Absent())
        from ws4py import *
        print(*globals())
    """
    assert set(ws4py.__all__) < set(in_an_interpreter(script).split())


@pytest.mark.parametrize("name", ["GreenletManager", "WebSocketPlugin", "WebSocketTool"])
def test_a_name_whose_extra_is_missing_says_which_it_needs(name: str) -> None:
    extra = NEEDING_EXTRAS[name]
    script = f"""if True:
        sys.modules[{extra!r}] = None
        try:
            from ws4py import {name}
        except ImportError as error:
            print(error)
        import ws4py
        try:
            ws4py.{name}
        except ImportError as error:
            print(error.name)
        print({name!r} in dir(ws4py), "WebSocket" in dir(ws4py))
    """
    said = f"ws4py.{name} needs {extra}: pip install 'ws4py[{extra}]'"
    assert in_an_interpreter(script).splitlines() == [said, extra, "False True"]


def test_a_name_that_there_is_not() -> None:
    with pytest.raises(AttributeError, match="module 'ws4py' has no attribute 'Nonsense'"):
        ws4py.Nonsense  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'Nonsense' from 'ws4py'"):
        exec("from ws4py import Nonsense")


def test_modules_can_be_imported_from_it() -> None:
    assert in_an_interpreter("from ws4py import messaging; print(messaging.__name__)") == "ws4py.messaging\n"


def test_the_constants() -> None:
    assert ws4py.WS_KEY == b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    assert ws4py.WS_VERSION == (8, 13)
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.?(dev|a|b|rc)\d+)?", ws4py.__version__)


def test_the_package_says_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").exists()


# --- imports --------------------------------------------------------------------------------------------------------


def imported_by(module: str) -> list[str]:
    """Return every module of sys.modules after ``module`` was imported in a new interpreter."""
    return in_an_interpreter(f"import sys, {module}\nprint(*sys.modules)").split()


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
    assert not {"logging", "socket", "threading", "json"} & set(modules) - set(imported_by("typing, importlib"))


def test_importing_the_protocol_imports_no_extra_and_only_the_protocol() -> None:
    modules = imported_by("ws4py.streaming, ws4py.handshake")
    assert not EXTRAS & {name.partition(".")[0] for name in modules}
    ours = {name for name in modules if name.startswith("ws4py.")}
    replaced = {FRAMING, "ws4py.utf8validator"} if load(FRAMING) else set()
    assert ours == {f"ws4py.{name}" for name in BELOW_THE_IO_LINE} ^ replaced


@pytest.mark.parametrize("module", BELOW_THE_IO_LINE)
def test_below_the_io_line_nothing_reads_waits_or_takes_the_time(module: str) -> None:
    assert not INPUT_AND_OUTPUT & {name.partition(".")[0] for name in import_statements(module)}


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("exc", set()),
        ("closing", {"messaging"}),
        ("framing", {"exc", "native", "pureframing", "utf8validator"}),
        ("native", set()),
        ("pureframing", {"exc"}),
        ("messaging", {"computed", "exc", "framing"}),
        ("extensions", set()),
        ("extensions.header", {"extensions"}),
        ("extensions.permessage_deflate", {"exc", "extensions", "framing"}),
        ("handshake", {"exc", "extensions"}),
        ("streaming", {"closing", "exc", "extensions", "framing", "messaging"}),
        ("utf8validator", set()),
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

"""Whose connection a log record is about."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import EchoRecorder, Recorder, Script, Stage, quiet, tcp_pair, until, wait_for
from tests.serving import Server, eventually, free_port
from ws4py.logs import ATTRIBUTES, ConnectionFilter
from ws4py.websocket import WebSocket

ENVIRON = {"SCRIPT_NAME": "/app", "PATH_INFO": "/ws"}


def fail(*_: Any) -> None:
    raise RuntimeError("as it should")


def facts(record: logging.LogRecord) -> tuple[Any, ...]:
    return tuple(getattr(record, name) for name in ATTRIBUTES)


def test_an_error_in_a_handler_says_whose(stage: Stage) -> None:
    manager = stage.manager()
    stage.connect(manager, Recorder)
    websocket, peer = stage.connect(manager, Script.of(message=fail), tcp_pair, environ=ENVIRON)
    with quiet() as records:
        peer.send(peer.text("x"))
        assert peer.receive_close()[0] == 1011
        peer.send(peer.goodbye(1011))
        websocket.end()
    (record,) = [record for record in records if record.levelno >= logging.ERROR]
    assert facts(record) == (2, "127.0.0.1", "/app/ws")
    assert record.exc_info
    assert manager.stats().connections.opened == 2


def test_an_error_in_closed_says_whose_although_all_is_gone(stage: Stage) -> None:
    manager = stage.manager()
    websocket, peer = stage.connect(manager, Script.of(closed=fail), tcp_pair, environ=ENVIRON)
    with quiet() as records:
        peer.say_goodbye()
        websocket.end()
        until(lambda: [record for record in records if record.levelno >= logging.ERROR])
    (record,) = [record for record in records if record.levelno >= logging.ERROR]
    assert facts(record) == (1, "127.0.0.1", "/app/ws")


def test_a_websocket_that_runs_by_itself(stage: Stage) -> None:
    websocket, peer = stage.connect(None, Script.of(message=fail), tcp_pair, environ=ENVIRON)
    peer.send(peer.text("x"), peer.goodbye())
    with quiet() as records:
        websocket.run()
    (record,) = [record for record in records if record.levelno >= logging.ERROR]
    assert facts(record)[0] is None
    assert facts(record)[2] == "/app/ws"


def test_records_about_nobody_have_the_attributes_too(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("ws4py")
    with caplog.at_level(logging.INFO, "ws4py"):
        logger.info("nothing")
        logger.info("%(a)s", {"a": 1})
        logger.info("one's own: %s", "x", extra={"path": "/given"})
    assert [facts(record) for record in caplog.records] == [(None, None, None)] * 2 + [(None, None, "/given")]
    formatter = logging.Formatter("%(connection_id)s %(address)s %(path)s %(message)s")
    assert formatter.format(caplog.records[0]) == "None None None nothing"


def test_a_websocket_that_is_half_made() -> None:
    record = logging.LogRecord("ws4py", logging.INFO, "", 0, "%r", (WebSocket.__new__(WebSocket),), None)
    assert ConnectionFilter(WebSocket).filter(record)
    assert facts(record) == (None, None, None)


def test_a_client_writes_no_line_of_the_log(stage: Stage) -> None:
    """Its path is text of one line, which moves no cursor, turns no writing, and ends."""
    crooked = {"PATH_INFO": "/ws\nINFO all is well\r\x1b[2J\x7f" + "\x9b2J\u2028\u202e".encode().decode("latin-1")}
    manager = stage.manager()
    shown = []
    for given in (manager, None):
        for environ in (crooked, {"PATH_INFO": "/" + "x" * 70_000}):
            websocket, peer = stage.connect(given, Script.of(message=fail), tcp_pair, environ=environ)
            with quiet() as records:
                peer.send(peer.text("x"), peer.goodbye())
                if given is None:
                    websocket.run()
                else:
                    websocket.end()
            (record,) = [record for record in records if record.levelno >= logging.ERROR]
            shown.append(facts(record)[2])
    assert shown == ["/ws?INFO all is well??[2J??2J??", "/" + "x" * 255] * 2


def test_what_goes_well_is_not_logged(stage: Stage) -> None:
    """Nor is it above DEBUG what only a peer has done wrong: of 10,000 peers there is always one."""
    manager = stage.manager(max_message_size=100)
    with quiet() as records:
        logging.getLogger("ws4py").setLevel(logging.DEBUG)
        try:
            websocket, peer = stage.connect(manager, EchoRecorder)
            peer.send(peer.text("x"))
            peer.receive_message()
            peer.say_goodbye()
            websocket.end()
            assert [record for record in records if record.levelno > logging.DEBUG] == []
            assert not records
            for wrong in ("reset", "protocol", "size"):
                websocket, peer = stage.connect(manager, EchoRecorder, tcp_pair)
                wait_for(websocket.was_opened)
                if wrong == "reset":
                    peer.reset()
                else:
                    peer.send(b"\xff\xff" if wrong == "protocol" else peer.text("x" * 101))
                    peer.receive_rest_until_close()
                    peer.close()
                websocket.end()
        finally:
            logging.getLogger("ws4py").setLevel(logging.NOTSET)
    assert {record.levelno for record in records} == {logging.DEBUG}


def test_the_example_writes_json() -> None:
    pytest.importorskip("cherrypy", reason="the example is of CherryPy")
    port = free_port()
    server = Server(program=[str(Path("examples", "json_logs.py")), str(port)], port=port, quiet=False, status=None)
    try:
        eventually(lambda: server.process.poll() is not None or answers(server), "the example serves")
        with server.open("/ws") as peer:
            peer.echo("fine")
            peer.send("oops")
            assert peer.receive().code == 1011
        server.wait_for_line("this is what an error")
        lines = [json.loads(line) for line in server.log().splitlines()]
    finally:
        server.kill()
    start, line = [line for line in lines if line["logger"] == "ws4py"]
    assert (start["level"], "connection_id" in start) == ("INFO", False)
    assert (line["level"], line["connection_id"], line["address"], line["path"]) == ("ERROR", 1, "127.0.0.1", "/ws")
    assert "RuntimeError" in line["traceback"]


def answers(server: Server) -> bool:
    try:
        return server.get("/").status == 404
    except ConnectionError:
        return False


# --- the access log ---------------------------------------------------------------------------------------------------


def test_a_line_for_each_websocket_at_its_end(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ws4py.access")
    manager, clock = stage.timed_manager(access_log=True)
    websocket, peer = stage.connect(manager, EchoRecorder, tcp_pair, environ=ENVIRON)
    wait_for(websocket.was_opened)
    clock.advance(2.5)
    peer.send(peer.text("four"))
    assert peer.receive_text() == "four"
    peer.send(peer.goodbye(4000))
    assert peer.receive_close()[0] == 4000
    until(lambda: caplog.records)
    (record,) = caplog.records
    assert record.getMessage() == ("1 127.0.0.1 /app/ws 4000 2.500 s, received 1 messages of 18 bytes, sent 1 of 10")
    assert (record.connection_id, record.code, record.duration) == (1, 4000, 2.5)  # type: ignore[attr-defined]


def test_an_access_log_of_what_is_lost_and_unknown(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ws4py.access")
    manager = stage.manager(access_log=True)
    websocket, peer = stage.connect(manager, EchoRecorder)
    wait_for(websocket.was_opened)
    peer.close()
    until(lambda: caplog.records)
    assert caplog.records[0].getMessage().startswith("1 - - 1006 ")


def test_no_access_log_is_the_default(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ws4py.access")
    manager = stage.manager()
    websocket, peer = stage.connect(manager, EchoRecorder)
    peer.say_goodbye()
    websocket.end()
    manager.stop()
    manager.join(20)
    assert caplog.records == []

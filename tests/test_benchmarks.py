"""The benchmark: its load and the C floor against each other, and what it makes of figures."""

from __future__ import annotations

import dataclasses
import re
import select
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import bench, drawing, tables
from benchmarks.__main__ import compare
from benchmarks.bench import Bench, MeasurementError
from benchmarks.peers import HERE, PEERS
from benchmarks.results import Results
from benchmarks.rows import ONCE, all_rows
from tests.helpers import PATIENCE

HEADERS = [Path("/usr/include") / name for name in ("openssl/ssl.h", "zlib.h")]


@pytest.fixture(scope="module")
def floor() -> Bench:
    missing = [tool for tool in ("cc", "openssl", "taskset") if shutil.which(tool) is None]
    missing += [str(path) for path in HEADERS if not path.exists()]
    if missing:
        pytest.skip(f"the load can't be built: {', '.join(missing)} is missing")
    bench.build()
    return Bench(PEERS["c"], seconds=0.2, load_cpus="0")


def test_loads(floor: Bench) -> None:
    with floor.serving() as server:
        assert server.load("echo", connections=3, window=2, size=70000)["rate"] > 0
        found = server.load("rate", connections=3, rate=200)
        assert found["messages"] == pytest.approx(40, abs=2)
        assert 0 < found["p50_us"] <= found["p99_us"] <= found["max_us"]
        assert server.load("fan", connections=5)["broadcasts"] >= 2
        with server.crowd(20, every=0.01) as crowd:
            assert crowd.grow(5)["open"] == 5
            assert crowd.grow(20)["open"] == 20
            found = crowd.end()
        assert found["lost"] == 0
        assert found["received"] >= found["expected"] - 20
        assert server.memory() > 0
        assert server.cpu_time() >= 0


def test_load_that_fails_says_why(floor: Bench) -> None:
    with floor.serving() as server, pytest.raises(MeasurementError, match="does not compress"):
        server.__class__(server.bench, server.pid, server.port, tls=False, deflate=True).load("echo")


def make_results() -> Results:
    results = Results(
        {"runs": 3, "seconds": 1.0, "server_cpus": "0", "load_cpus": "1"}, ["ws4py", "ws4py-workers0", "aiohttp", "c"]
    )
    for rate in (10.0, 30.0, 20.0):
        results.add("echo-1-1", "ws4py", {"rate": rate})
    results.add("echo-1-1", "ws4py-workers0", {"rate": 30.0})
    results.add("echo-1-1", "aiohttp", {"rate": 40.0})
    results.add("echo-10-1", "ws4py", {"rate": 50.0})
    results.add("latency", "ws4py", {"p50_us": 10.0, "p99_us": 20.0, "p999_us": 30.0})
    results.add("latency", "aiohttp", {"p50_us": 30.0, "p99_us": 10.0})
    results.fail("echo-1-1", "c", "it does\nnot listen")
    return results


def test_ratios() -> None:
    results, row = make_results(), all_rows()["echo-1-1"]
    latency = all_rows()["latency"]
    assert results.median(row, "rate", "ws4py") == 20.0
    assert results.ratio(row, "rate", "aiohttp") == 0.5
    assert results.ratio(latency, "p50_us", "aiohttp") == 3.0  # less is better
    assert results.ratio(latency, "p999_us", "aiohttp") is None
    assert results.ahead(row, "rate") == ["aiohttp, uvloop"]  # ws4py in another setting is no peer
    assert results.ahead(latency, "p50_us") == []


def test_results_are_kept(tmp_path: Path) -> None:
    results = make_results()
    results.save(tmp_path / "deep" / "results.json")
    assert vars(Results.read(tmp_path / "deep" / "results.json")) == vars(results)
    (tmp_path / "other.json").write_text('{"unknown": 1}')
    with pytest.raises(ValueError, match=r"other\.json"):
        Results.read(tmp_path / "other.json")


def test_rows_of_many_connections_run_once(tmp_path: Path) -> None:
    rows = [dataclasses.replace(all_rows()[name], measure=lambda _: {"rate": 1.0}) for name in ("echo-1-1", *ONCE)]
    results = Results({"runs": 3, "seconds": 1.0, "server_cpus": "0", "load_cpus": "1", "quick": False}, ["aiohttp"])
    compare(results, [dataclasses.replace(PEERS["aiohttp"], able=frozenset({"http", "ping"}))], rows, tmp_path / "all")
    assert not results.failures
    assert {name: len(runs["aiohttp"]) for name, runs in results.runs.items()} == dict.fromkeys(ONCE, 1) | {
        "echo-1-1": 3
    }


def test_tables() -> None:
    results = make_results()
    text, rest = tables.as_text(results), tables.as_rest(results)
    assert "*0.50*" in text
    assert "**0.50**" in rest
    assert "the C floor: it does not listen" in text
    rules = [line for line in rest.splitlines() if line.startswith("==")]
    assert len(rules) == 3
    assert len(set(rules)) == 1


def test_charts_have_rows() -> None:
    rows = all_rows()
    for chart in drawing.CHARTS:
        for name, key in chart.figures:
            assert key in rows[name].figures
    names = [figure.name for row in rows.values() for figure in row.figures.values()]
    assert len(names) == len(set(names))


def test_peers_have_servers() -> None:
    for peer in PEERS.values():
        assert not peer.script or (HERE / "servers" / peer.script).is_file()


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
@pytest.mark.skipif(not hasattr(select, "epoll"), reason="the benchmark needs epoll")
def test_brokers() -> None:
    command = [sys.executable, "-m", "benchmarks.brokers", "--runs", "1", "--seconds", "0.01"]
    done = subprocess.run(
        [*command, "--publications", "100", "--subscribers", "3"],
        check=True,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        cwd=HERE.parent,
    )
    assert len(re.findall(r"us of Redis' processor", done.stdout)) == 2
    assert len(re.findall(r"deliveries a second", done.stdout)) == 2

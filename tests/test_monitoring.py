"""The files of examples/monitoring: what they ask Prometheus for is what the exposition has."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import Stage

prometheus_client = pytest.importorskip("prometheus_client", reason="the text is made by the package prometheus_client")

from ws4py.server.stats import StatsCollector  # noqa: E402 - after it is known to be of use

FOLDER = Path(__file__).parent.parent / "examples" / "monitoring"
FROM_PROMETHEUS = {"instance", "job"}


def rules() -> list[str]:
    """Return the queries of the alert rules."""
    return re.findall(r"^\s+expr: (.+)$", (FOLDER / "alerts.yml").read_text(), re.MULTILINE)


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((FOLDER / "grafana-dashboard.json").read_text())["panels"]
    return found


def queries() -> list[str]:
    return rules() + [target["expr"] for panel in panels() for target in panel["targets"]]


@pytest.fixture
def exposed(stage: Stage) -> dict[str, list[dict[str, str]]]:
    """The labels of all samples, by the names of these."""
    from prometheus_client.parser import text_string_to_metric_families

    registry = prometheus_client.CollectorRegistry()
    registry.register(StatsCollector(stage.manager()))
    found: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(prometheus_client.generate_latest(registry).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


def test_there_are_queries() -> None:
    assert len(rules()) == (FOLDER / "alerts.yml").read_text().count("- alert:") >= 5
    assert len(queries()) > 30


def test_every_metric_and_label_is_there(exposed: dict[str, list[dict[str, str]]]) -> None:
    for query in queries():
        used = re.findall(r"\b(ws4py_\w+)(?:\{([^}]*)\})?", query)
        assert used or "up{" in query, query
        known = set(FROM_PROMETHEUS)
        for metric, selector in used:
            assert metric in exposed, f"{metric} in {query}"
            labels = exposed[metric]
            known |= {name for sample in labels for name in sample}
            for name, operator, value in re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', selector):
                if name in FROM_PROMETHEUS:
                    continue
                there = {sample.get(name) for sample in labels}
                wanted = value.split("|") if "~" in operator else [value]
                assert there >= set(wanted), f"{name}={value} in {query}"
        for names in re.findall(r"\b(?:by|ignoring|on)\s*\(([^)]*)\)", query):
            assert {name.strip() for name in names.split(",")} <= known, query


def test_every_legend_has_its_label() -> None:
    for panel in panels():
        for target in panel["targets"]:
            for name in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                assert re.search(rf"by \([^)]*\b{name}\b", target["expr"]) or name in FROM_PROMETHEUS, target


def test_the_whole_exposition_is_looked_at(exposed: dict[str, list[dict[str, str]]]) -> None:
    """But for what is a part of something else."""
    text = " ".join(queries())
    shown = {name for name in exposed if re.search(rf"\b{name}\b", text)}
    left = {name for name in exposed if name not in shown and not name.endswith(("_sum", "_count"))}
    assert left == {
        "ws4py_connections_closing",
        "ws4py_handled_messages_total",
        "ws4py_inbox_messages",
        "ws4py_inbox_messages_largest",
        "ws4py_reliefs_total",
        "ws4py_slow_callbacks_total",
        "ws4py_turns_handed_over_total",
        "ws4py_turns_in_place_total",
        "ws4py_turns_total",
        "ws4py_uptime_seconds",
    }


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        grid = panel["gridPos"]
        cells = {(grid["x"] + x, grid["y"] + y) for x in range(grid["w"]) for y in range(grid["h"])}
        assert not cells & taken, panel["title"]
        assert grid["x"] + grid["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in panels()}) == len(panels())


@pytest.mark.parametrize("what", [["rules", "alerts.yml"], ["config", "prometheus.yml"]])
def test_prometheus_accepts_the_files(what: list[str]) -> None:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("there is no promtool: apt-get install prometheus")
    subprocess.run([tool, "check", *what], cwd=FOLDER, check=True, timeout=30)


def test_prometheus_understands_the_queries(tmp_path: Path) -> None:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("there is no promtool: apt-get install prometheus")
    variables = {"$__rate_interval": "1m", "$instance": ".*"}
    recorded = []
    for number, query in enumerate(queries()):
        text = query
        for name, value in variables.items():
            text = text.replace(name, value)
        recorded.append({"record": f"query:{number}", "expr": text})
    path = tmp_path / "queries.yml"
    path.write_text(json.dumps({"groups": [{"name": "queries", "rules": recorded}]}))
    subprocess.run([tool, "check", "rules", str(path)], check=True, timeout=30, capture_output=True)

"""The table of metrics, and what is made from it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import EchoRecorder, Stage
from ws4py.cli.stats import render
from ws4py.manager.metrics import METRICS, Metric

GENERATOR = Path(__file__).parents[2] / "docs" / "generate.py"
NO_METRICS = {
    "build.engine",
    "build.framing",
    "build.gil",
    "build.reason",
    "time",
    "state",
    "connections.removed",
    "workers.size",
}


@pytest.fixture
def figures(stage: Stage) -> dict[str, Any]:
    """Those of a manager that has done a little."""
    manager = stage.manager()
    _, peer = stage.connect(manager, EchoRecorder)
    peer.send(peer.text("one"))
    peer.receive_message()
    manager.count_refusal(403)
    manager.broadcast("x")
    return manager.stats().as_dict()


def leaves(figures: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the paths of all numbers and histograms."""
    for name, value in figures.items():
        if isinstance(value, dict) and "bounds" not in value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def test_every_figure_is_in_the_table(figures: dict[str, Any]) -> None:
    paths = {path for metric in METRICS for path in metric.paths.values()}
    left = [leaf for leaf in leaves(figures) if not any(leaf == path or leaf.startswith(f"{path}.") for path in paths)]
    assert set(left) == NO_METRICS


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_each_can_be_read(metric: Metric, figures: dict[str, Any], stage: Stage) -> None:
    """From JSON and from a snapshot alike."""
    samples = dict(metric.samples(figures))
    assert all(len(labels) == len(metric.labels) for labels in samples)
    assert {value for (value,) in samples} >= set(metric.expected) if metric.expected else samples
    fresh = stage.manager().stats()
    assert set(dict(metric.samples(fresh))) == set(dict(metric.samples(fresh.as_dict())))
    assert metric.text.endswith(".")
    assert (metric.kind == "histogram") == (metric.adding == "merge")
    if metric.kind == "counter":
        assert metric.adding == "sum"


def test_names_and_titles_are_their_own() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    assert len({metric.title for metric in METRICS}) == len(METRICS)


def test_the_documentation_is_made_from_it() -> None:
    """If this fails, run ``python docs/generate.py``."""
    spec = importlib.util.spec_from_file_location("generate", GENERATOR)
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    for path, text in generate.made().items():
        assert path.read_text() == text, path


def test_the_terminal_shows_a_counter_that_has_no_place_there(figures: dict[str, Any]) -> None:
    def last(**changes: int) -> str:
        return render(figures | changes).splitlines()[-1]

    assert last().startswith("Broadcasts")
    assert last(faults=2, failures=1) == "Also            connection faults 2, manager failures 1"
    del figures["faults"]  # an older server's
    assert last(failures=1) == "Also            manager failures 1"

"""The metrics, as the package prometheus_client takes them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from ws4py.manager import WebSocketManager
from ws4py.manager.metrics import METRICS

__all__ = ["ProcessesCollector", "StatsCollector"]


class StatsCollector:
    """A collector for ``prometheus_client``: ``REGISTRY.register(StatsCollector(manager))``.

    :param manager: whose figures it collects.
    """

    def __init__(self, manager: WebSocketManager) -> None:
        self._manager = manager

    def collect(self) -> Iterator[Any]:
        """Return the metrics as they are now. Called by the registry, in any thread."""
        return _families({"": self._manager.stats().as_dict()}, ())


class ProcessesCollector:
    """A collector of the figures of several processes, which each have a label of their number.

    :param figures: the snapshots, as dictionaries, by the numbers of the processes.
    """

    def __init__(self, figures: Mapping[str, Mapping[str, Any]]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Any]:
        """Return the metrics."""
        return _families(self._figures, ("process",))


def _families(figures: Mapping[str, Mapping[str, Any]], names: tuple[str, ...]) -> Iterator[Any]:
    """Yield the metrics.

    :param names: of the labels that come before the metrics' own: of the process, if it has one.
    """
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    families: dict[str, Any] = {
        "counter": CounterMetricFamily,
        "gauge": GaugeMetricFamily,
        "histogram": HistogramMetricFamily,
    }
    for metric in METRICS:
        family = families[metric.kind](f"ws4py_{metric.name}", metric.text, labels=(*names, *metric.labels))
        for process, stats in figures.items():
            own = (process,) if names else ()
            for labels, value in metric.samples(stats):
                if metric.kind == "histogram":
                    family.add_metric((*own, *labels), buckets=_buckets(value), sum_value=value["sum"])
                else:
                    family.add_metric((*own, *labels), value)
        yield family


def _buckets(histogram: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Return the upper bounds, and how many values were not over them."""
    bounds = (*map(repr, histogram["bounds"]), "+Inf")
    return list(zip(bounds, itertools.accumulate(histogram["buckets"]), strict=True))

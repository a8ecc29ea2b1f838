"""A listener that turns what the registry tells into Prometheus metrics (extra ``metrics``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from redis_registry.errors import RegistryError

__all__ = ["PrometheusTelemetry", "ViewCollector"]

_BUCKETS_SECS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0)


class PrometheusTelemetry:
    """Makes a metric of each name it hears, on a registry of its own.

    Args:
        collector: Where to keep them; ``None``: a new one, so that two don't clash.
    """

    def __init__(self, collector: CollectorRegistry | None = None) -> None:
        self.collector = collector or CollectorRegistry()
        self._metrics: dict[str, Counter | Gauge | Histogram] = {}

    def count(self, name: str, amount: int = 1, **labels: str) -> None:
        """Add to ``redis_registry_<name>_total``."""
        metric = self._metrics.get(name)
        if metric is None:
            metric = self._metrics[name] = Counter(
                f"redis_registry_{name}", name, list(labels), registry=self.collector
            )
        if isinstance(metric, Counter):
            (metric.labels(**labels) if labels else metric).inc(amount)

    def observe(self, name: str, secs: float, **labels: str) -> None:
        """Record in ``redis_registry_<name>_seconds``."""
        metric = self._metrics.get(name)
        if metric is None:
            metric = self._metrics[name] = Histogram(
                f"redis_registry_{name}_seconds",
                name,
                list(labels),
                registry=self.collector,
                buckets=_BUCKETS_SECS,
            )
        if isinstance(metric, Histogram):
            (metric.labels(**labels) if labels else metric).observe(secs)

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Set ``redis_registry_<name>``."""
        metric = self._metrics.get(name)
        if metric is None:
            metric = self._metrics[name] = Gauge(
                f"redis_registry_{name}", name, list(labels), registry=self.collector
            )
        if isinstance(metric, Gauge):
            (metric.labels(**labels) if labels else metric).set(value)


class Followed(Protocol):
    """What is asked of a view."""

    @property
    def staleness_secs(self) -> float:
        """Since when it may be out of date, in seconds."""
        ...

    @property
    def resyncs(self) -> Mapping[str, int]:
        """How often it was read anew, by cause."""
        ...


class ViewCollector(Collector):
    """Asks views how they are when they are scraped; choosing from them costs nothing more.

    Register it once: ``telemetry.collector.register(ViewCollector({"router": view}))``.

    Args:
        views: By the name that is to be their label ``view``; may be changed later.
    """

    def __init__(self, views: Mapping[str, Followed]) -> None:
        self._views = views

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """``redis_registry_view_staleness_seconds`` and ``redis_registry_view_resyncs_total``."""
        staleness = GaugeMetricFamily(
            "redis_registry_view_staleness_seconds",
            "Since when the view may be out of date",
            labels=["view"],
        )
        resyncs = CounterMetricFamily(
            "redis_registry_view_resyncs",
            "How often the view was read anew",
            labels=["view", "cause"],
        )
        for name, view in list(self._views.items()):
            with suppress(RegistryError):  # it isn't open
                staleness.add_metric([name], view.staleness_secs)
            for cause, count in dict(view.resyncs).items():
                resyncs.add_metric([name, cause], count)
        yield staleness
        yield resyncs

"""A listener that turns what the registry tells into Prometheus metrics (extra ``metrics``)."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

__all__ = ["PrometheusTelemetry"]

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

"""How loaded a server is, read from its Prometheus metrics."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from http import HTTPStatus

from prometheus_client.parser import text_string_to_metric_families

from redis_registry.agent.probes import read_page

__all__ = ["Gauges", "Loaded"]

IN_FLIGHT = (
    "vllm:num_requests_running",
    "sglang:num_running_reqs",
    "tgi_batch_current_size",
    "llamacpp:requests_processing",
)
QUEUED = (
    "vllm:num_requests_waiting",
    "sglang:num_queue_reqs",
    "tgi_queue_size",
    "llamacpp:requests_deferred",
)
USAGE = (
    "vllm:kv_cache_usage_perc",
    "vllm:gpu_cache_usage_perc",
    "sglang:token_usage",
    "llamacpp:kv_cache_usage_ratio",
)
PROGRESS = (
    "vllm:generation_tokens",
    "vllm:request_success",
    "sglang:generation_tokens",
    "tgi_request_success",
    "llamacpp:tokens_predicted",
)
"""Names of vLLM, SGLang, Text Generation Inference and llama.cpp's server. A counter's name is
read without its ``_total``."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a page of metrics says.

    Attributes:
        in_flight: Requests being worked on; ``None``: the page doesn't say.
        queued: Requests waiting; ``None``: it doesn't say.
        kv_cache: Share of the cache in use.
        done: Grows as work gets done.
    """

    in_flight: int | None = None
    queued: int | None = None
    kv_cache: float | None = None
    done: float | None = None

    @property
    def left(self) -> int:
        """Requests that a drain has to wait for."""
        return (self.in_flight or 0) + (self.queued or 0)


@dataclass(frozen=True)
class Gauges:
    """Which metrics to read.

    Attributes:
        in_flight: Another name for the requests being worked on.
        queued: Another name for those that wait.
    """

    in_flight: str | None = None
    queued: str | None = None
    _names: dict[str, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        names = dict.fromkeys(IN_FLIGHT, "in_flight")
        names |= dict.fromkeys(QUEUED, "queued")
        names |= dict.fromkeys(USAGE, "kv_cache")
        names |= dict.fromkeys(PROGRESS, "done")
        for given, what in ((self.in_flight, "in_flight"), (self.queued, "queued")):
            if given:  # the page's own word goes before what is known by name
                names = {name: kind for name, kind in names.items() if kind != what}
                names[given.removesuffix("_total")] = what
        object.__setattr__(self, "_names", names)

    async def at(self, url: str, timeout_secs: float) -> Loaded:
        """What the page at a URL says.

        Raises:
            urllib3.exceptions.HTTPError: There is no answer.
            ValueError: It is no page of metrics.
        """
        status, body = await read_page(url, timeout_secs)
        if status != HTTPStatus.OK:
            msg = f"it answers {status}"
            raise ValueError(msg)
        return self.read(body.decode())

    def read(self, page: str) -> Loaded:
        """What a page says; several engines of one server are added up.

        Raises:
            ValueError: It is not in Prometheus's text format.
        """
        found: dict[str, list[float]] = {}
        for family in text_string_to_metric_families(page):
            kind = self._names.get(family.name)
            if kind is not None:
                found.setdefault(kind, []).extend(
                    sample.value
                    for sample in family.samples
                    if not sample.name.endswith("_created")
                    and math.isfinite(sample.value)  # NaN: a gauge that was never set
                )
        return Loaded(
            in_flight=_whole(found.get("in_flight")),
            queued=_whole(found.get("queued")),
            kv_cache=max(found["kv_cache"]) if found.get("kv_cache") else None,
            done=sum(found["done"]) if found.get("done") else None,
        )


def _whole(values: Iterable[float] | None) -> int | None:
    """A sum of gauges."""
    return None if values is None else max(round(sum(values)), 0)

"""Everything that can be set, with its default and the reason for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from redis_registry.errors import ConfigurationError
from redis_registry.model import MAX_TIMEOUT_SECS, MIN_TIMEOUT_SECS
from redis_registry.topology import Topology

__all__ = [
    "GuardSettings",
    "OutlierSettings",
    "RegistrySettings",
    "Secs",
    "Settings",
    "TimeoutSecs",
]

_Share = Annotated[float, Field(gt=0, le=1)]
Secs = Annotated[float, Field(gt=0, le=MAX_TIMEOUT_SECS)]
TimeoutSecs = Annotated[float, Field(ge=MIN_TIMEOUT_SECS, le=MAX_TIMEOUT_SECS)]

ALONE_SECS = 5.0
FAILOVER_SECS = 15.0
"""Deadline of a call where another server takes over: Sentinels and a Cluster with the usual 5 s of
patience have elected one after 6 to 8 s."""


def _connectable(url: str) -> str:
    Topology.of(url)
    return url


class Settings(BaseSettings):
    """Settings of ours: from keywords, else from the environment."""

    model_config = SettingsConfigDict(hide_input_in_errors=True)  # it may be a password

    @classmethod
    def of(cls, **given: object) -> Self:
        """Settings from ``given`` and the environment; a given ``None`` counts as given.

        Raises:
            ConfigurationError: A value is not acceptable; the message says which and why.
        """
        unknown = sorted(set(given) - set(cls.model_fields))
        if unknown:
            known = ", ".join(cls.model_fields)
            msg = f"unknown setting {', '.join(unknown)}; there are {known}"
            raise ConfigurationError(msg)
        try:
            return cls(**given)
        except ValidationError as error:
            found = "; ".join(
                f"{'.'.join(str(part) for part in item['loc']) or 'settings'}: "
                f"{item['msg'].removeprefix('Value error, ')}{_got(item)}"
                for item in error.errors(include_url=False)
            )
            raise ConfigurationError(found) from error


def _got(item: ErrorDetails) -> str:
    """The value that was refused; our own validators say what is to be shown of it."""
    return "" if item["type"] == "value_error" else f" (got {item['input']!r:.80})"


class GuardSettings(BaseSettings):
    """When is a mass expiry suspicious, and what happens then (promise L5).

    A scope (one model; the partition) *trips* when, within one window, at least
    ``min_instances`` **and** more than ``share`` of its instances were flipped or would be.
    While it holds, at most ``budget_share`` of it is flipped per window. It ends by itself:
    when the overdue are few again, or after ``max_hold_secs``, when the still-silent go.

    Attributes:
        enabled: ``False``: flip whatever is overdue.
        share: Trip above this share of the scope's living instances.
        min_instances: Never trip below this many; small fleets have honest mass deaths.
        budget_share: Share of the scope that may still be flipped per window while held
            (at least one instance).
        window_secs: Length of the window; ``None``: the heartbeat timeout.
        max_hold_secs: Longest hold; ``None``: three heartbeat timeouts.
    """

    model_config = SettingsConfigDict(
        env_prefix="REDIS_REGISTRY_GUARD_", extra="ignore"
    )

    enabled: bool = True
    share: _Share = 0.3
    min_instances: Annotated[int, Field(ge=1)] = 10
    budget_share: _Share = 0.1
    window_secs: Secs | None = None
    max_hold_secs: Secs | None = None


class OutlierSettings(BaseSettings):
    """When is an instance kept out although it is healthy, and how does it come back.

    Calls to it fail: out after ``consecutive_failures`` in a row, or when ``failure_share`` of
    its calls fail. The time out doubles each time in a row; then one probe decides. Or it
    *flaps*: each return from the dead (or crash) adds 1 to a penalty that decays (RFC 2439).
    Never the last of a model that could take work, and never more than ``max_ejected_share``.

    Attributes:
        enabled: ``False``: what is reported is not even sent.
        consecutive_failures: As in Envoy: one burst of bad luck is shorter.
        failure_share: For the one that fails often, but not always.
        min_calls: The share says nothing of fewer calls than this.
        window_secs: A call this old weighs half; some minutes of LLM calls are enough to judge.
        max_ejected_share: Of a model's living instances, but always one. Envoy's 10 % is
            for large clusters; of three replicas one must be able to go.
        base_ejection_secs: First time out, as in Envoy: a server that was restarted is back.
        max_ejection_secs: Longest time out; who stayed in for as long begins anew.
        probe_secs: How long a claimed probe may take before another may claim it: a slow
            answer of a large model.
        flap_damping: ``False``: who comes and goes is not held out for it.
        flap_suppress: Held out from this penalty on: with the default at the third flap soon
            after the first, as routers do (2,000 at 1,000 a flap).
        flap_reuse: Held out until the penalty is down to this (routers: 750 at 1,000 a flap).
        flap_half_life_secs: In which a penalty halves. Routers take 15 minutes; a worker needs
            less to show that it stays. Nobody is held out for longer than four of them.
    """

    model_config = SettingsConfigDict(
        env_prefix="REDIS_REGISTRY_OUTLIER_", extra="ignore"
    )

    enabled: bool = True
    consecutive_failures: Annotated[int, Field(ge=1, le=1_000_000)] = 5
    failure_share: _Share = 0.5
    min_calls: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    window_secs: Secs = 60.0
    max_ejected_share: _Share = 0.3
    base_ejection_secs: Secs = 30.0
    max_ejection_secs: Secs = 300.0
    probe_secs: Secs = 60.0
    flap_damping: bool = True
    flap_suppress: Annotated[float, Field(gt=0, le=1000)] = 2.0
    flap_reuse: Annotated[float, Field(gt=0, le=1000)] = 0.75
    flap_half_life_secs: Secs = 300.0

    @model_validator(mode="after")
    def _sane(self) -> Self:
        if self.flap_reuse >= self.flap_suppress:
            msg = (
                f"flap_reuse ({self.flap_reuse:g}) must be below flap_suppress "
                f"({self.flap_suppress:g}): else nobody is ever held out"
            )
            raise ValueError(msg)
        if self.base_ejection_secs > self.max_ejection_secs:
            msg = (
                f"base_ejection_secs ({self.base_ejection_secs:g}) must not be above "
                f"max_ejection_secs ({self.max_ejection_secs:g})"
            )
            raise ValueError(msg)
        return self


class RegistrySettings(Settings):
    """How one registry object behaves; read from ``REDIS_REGISTRY_*`` where not given.

    Attributes:
        url: Where Redis is: one server, a Sentinel's master, a Cluster
            (docs/how-to/topologies.md).
        namespace: Registries of different namespaces don't see each other.
        prefix: First part of every key.
        partitions: Shares of the namespace, each one Redis Cluster slot; ``None``: adopt
            what is recorded in Redis, else 1.
        heartbeat_interval_secs: How often the checker sweeps, at the latest.
        heartbeat_timeout_secs: Silence after which an instance is dead (an instance may
            bring its own).
        forget_after_secs: How long an unhealthy instance stays listed; ``None`` (in the
            environment: ``never``): for ever.
        lease_ttl_secs: Length of a checker's term; ``None``: timeout / 6, at least 0.2 s,
            so that a hand-over is over before a missed heartbeat could kill anybody.
        gap_secs: The registry counts as having been away when nobody called it (or nobody
            swept) for this long; ``None``: timeout / 4, at least 0.3 s. It must stay below
            timeout / 3, the usual heartbeat interval, and above the lease's length. That of the
            controller whose term it is counts for all.
        events_kept: About how many events a partition's stream keeps.
        sweep_chunk: At most how many instances one script call flips; 200 take about
            2 ms, during which Redis serves nobody else.
        operation_timeout_secs: Deadline of one call, retries included; ``None``: 5 s, and 15 s
            behind Sentinel or on a Cluster, where a failover takes its time.
        socket_timeout_secs: Longest wait for one answer of Redis.
        max_connections: Calls of one kind (heartbeats, all others) under way at once, at each
            server; each has a connection of its own without hiredis, and on the sync face.
        advised_interval_secs: Ask workers that speak HTTP to beat this seldom; each follows as far
            as its timeout allows. ``None``: as they like.
        reverse_check_secs: Connect to an instance that speaks HTTP before it may be ready, for at
            most this long; 0.3 is enough in one network. ``None``: believe it.
        reservation_ttl_secs: How long the reservations of a process that died stay counted; it
            is also the longest pause after which a living one has lost none.
        guard: Brakes on mass expiry.
        outliers: Who is kept out for failing calls, or for coming and going.
    """

    model_config = SettingsConfigDict(
        env_prefix="REDIS_REGISTRY_", env_parse_none_str="never", extra="ignore"
    )

    url: Annotated[str, AfterValidator(_connectable)] = "redis://localhost:6379/0"
    namespace: Annotated[str, Field(min_length=1, max_length=128)] = "default"
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,32}$")] = "rr"
    partitions: Annotated[int, Field(ge=1, le=4096)] | None = None
    heartbeat_interval_secs: Secs = 20.0
    heartbeat_timeout_secs: TimeoutSecs = 60.0
    forget_after_secs: Annotated[float, Field(ge=0, le=10 * 365 * 86_400)] | None = (
        86_400.0
    )
    lease_ttl_secs: Secs | None = None
    gap_secs: Secs | None = None
    events_kept: Annotated[int, Field(ge=100, le=10_000_000)] = 20_000
    sweep_chunk: Annotated[int, Field(ge=1, le=500)] = 200
    operation_timeout_secs: Secs | None = None
    socket_timeout_secs: Secs = 2.0
    max_connections: Annotated[int, Field(ge=1, le=10_000)] = 16
    advised_interval_secs: Secs | None = None
    reverse_check_secs: Annotated[float, Field(gt=0, le=5)] | None = None
    reservation_ttl_secs: Annotated[float, Field(ge=0.1, le=3600)] = 10.0
    guard: GuardSettings = Field(default_factory=GuardSettings)
    outliers: OutlierSettings = Field(default_factory=OutlierSettings)

    def __repr_args__(self) -> Iterator[tuple[str | None, object]]:
        """As pydantic's, without user and password."""
        for name, value in super().__repr_args__():
            yield name, Topology.of(self.url).where if name == "url" else value

    @model_validator(mode="after")
    def _sane(self) -> Self:
        try:
            self.namespace.encode()
        except UnicodeEncodeError:
            msg = "namespace holds a lone surrogate, which is not text"
            raise ValueError(msg) from None
        if self.gap <= self.lease_ttl:
            msg = (
                f"gap_secs ({self.gap:g}) must be longer than lease_ttl_secs "
                f"({self.lease_ttl:g}): else every hand-over looks like an outage"
            )
            raise ValueError(msg)
        return self

    @property
    def lease_ttl(self) -> float:
        """Length of a checker's term in seconds."""
        return self.lease_ttl_secs or max(self.heartbeat_timeout_secs / 6, 0.2)

    @property
    def gap(self) -> float:
        """Silence, in seconds, after which the registry counts as having been away."""
        return self.gap_secs or max(self.heartbeat_timeout_secs / 4, 0.3)

    @property
    def operation_timeout(self) -> float:
        """Deadline of one call in seconds, retries included."""
        if self.operation_timeout_secs is not None:
            return self.operation_timeout_secs
        alone = Topology.of(self.url).kind == "server"
        return ALONE_SECS if alone else FAILOVER_SECS

    @property
    def tick(self) -> float:
        """How often a checker asks for, or renews, its term, in seconds."""
        return min(self.lease_ttl / 3, self.heartbeat_interval_secs)

    @property
    def guard_window(self) -> float:
        """Length of the guard's window in seconds."""
        return self.guard.window_secs or self.heartbeat_timeout_secs

    @property
    def guard_max_hold(self) -> float:
        """Longest hold of the guard in seconds."""
        return self.guard.max_hold_secs or 3 * self.heartbeat_timeout_secs

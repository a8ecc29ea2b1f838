"""The words of the registry: what an instance is, and what may be said of it."""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, StrEnum
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import CoreSchema, core_schema

from redis_registry.errors import InvalidInstance, Superseded

__all__ = [
    "MAX_EXTRA_BYTES",
    "MAX_HOST",
    "MAX_MODEL_NAME",
    "MAX_REASON",
    "MAX_SERVES",
    "Beat",
    "Health",
    "HeldOut",
    "Identity",
    "Load",
    "ModelInstance",
    "Readiness",
    "explain_invalid",
    "incarnation_after",
    "new_incarnation",
    "superseded",
]

MAX_MODEL_NAME = 512
MAX_HOST = 255
MAX_REASON = 500
"""Longest names, and longest reason, in characters."""

MAX_SERVES = 256
"""Most names that one instance may serve besides its model's."""

MAX_EXTRA_BYTES = 64 * 1024
"""Bound of one instance's free-form part (prompt template and metadata), in bytes on the wire."""

MIN_TIMEOUT_SECS = 0.05
MAX_TIMEOUT_SECS = 30 * 86_400.0

_SHOWN = 60  # characters of a bad value that an error repeats


class Identity(NamedTuple):
    """What makes an instance that instance: the model it serves and where."""

    model_name: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.model_name} at {host}:{self.port}"


class Health(StrEnum):
    """What a read may say of an instance's life."""

    HEALTHY = "healthy"
    """Its deadline lies ahead (or it asked not to be checked)."""

    PROTECTED = "protected"
    """Its deadline has passed, but recovery or the guard says: don't judge yet."""

    OVERDUE = "overdue"
    """Its deadline has passed; no sweep has flipped it yet, but no read serves it."""

    UNHEALTHY = "unhealthy"
    """Flipped by a sweep, or deregistered."""

    FORCED = "forced"
    """An operator's override says that it is unhealthy."""


class Readiness(StrEnum):
    """Whether an instance wants new work, by its own word. Only a ready one is selectable."""

    STARTING = "starting"
    """Alive, loading."""

    READY = "ready"

    NOT_READY = "not_ready"
    """Ready before, and not now: its probe fails, or it said so."""

    DRAINING = "draining"
    """Finishes what it has, takes nothing new."""

    WEDGED = "wedged"
    """Its heartbeats go on, but its work does not."""

    FAILED = "failed"
    """Not ready within its startup budget."""


class HeldOut(BaseModel):
    """Healthy and ready, and yet kept out for a while.

    Attributes:
        cause: ``failures``: calls to it failed; it comes back through one probe. ``flapping``: it
            came and went too often; it comes back by itself.
        until: The earliest moment at which it may come back, or be probed, by Redis's clock.
        half_open: That moment was over when Redis answered: one probe, for whoever gets
            ``claim_probe`` granted, decides whether it comes back.
    """

    model_config = ConfigDict(frozen=True)

    cause: Literal["failures", "flapping"]
    until: datetime
    half_open: bool = False

    def at(self, now: datetime) -> HeldOut | None:
        """What remains of it at a later moment of Redis's clock; ``None``: it is over."""
        if now < self.until or self.half_open:
            return self
        if self.cause == "flapping":
            return None
        return self.model_copy(update={"half_open": True})


class Beat(Enum):
    """How a heartbeat was answered."""

    TAKEN = "taken"

    REREGISTER = "reregister"
    """The registry has no such instance, and the heartbeat didn't carry the whole of it; or Redis
    has begun a new epoch since it registered, and may have lost what it said last."""

    SUPERSEDED = "superseded"
    """A newer life has the address, or this one has said goodbye; nothing was changed."""


class Load(BaseModel):
    """What an instance last reported of its work.

    Attributes:
        in_flight: Requests being worked on.
        queued: Requests waiting for that.
        capacity: How many may be in flight at once.
        loop_lag_secs: How late its event loop runs.
        progress_secs: Since its last sign of progress.
        numbers: Anything else, by name.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    in_flight: Annotated[int, Field(ge=0)] | None = None
    queued: Annotated[int, Field(ge=0)] | None = None
    capacity: Annotated[int, Field(ge=0)] | None = None
    loop_lag_secs: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    progress_secs: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    numbers: dict[
        Annotated[str, Field(max_length=128)],
        Annotated[float, Field(allow_inf_nan=False)],
    ] = Field(default_factory=dict, max_length=64)


def new_incarnation() -> str:
    """A name for a new life: milliseconds of this host's clock, then chance, in hexadecimal.

    Of two lives at one address the greater name is the newer one. Both were made by the host
    that owns the address, so no two clocks are compared.
    """
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(5)}"


def incarnation_after(other: str) -> str | None:
    """A new name greater than another life's; ``None`` if that is not one of these names."""
    if not re.fullmatch(r"[0-9a-f]{22}", other):
        return None
    return max(new_incarnation(), f"{int(other[:12], 16) + 1:012x}{other[12:]}")


def _not_bool(value: object) -> object:
    if isinstance(value, bool):
        msg = "must be a number, not a boolean"
        raise ValueError(msg)  # noqa: TRY004  pydantic wants a ValueError
    return value


def _aware(value: datetime) -> datetime:
    """A naive time is local time: DB-GPT's are."""
    if value.tzinfo is not None:
        return value
    try:
        return value.astimezone()
    except (OverflowError, OSError) as error:
        msg = f"is out of range: {value}"
        raise ValueError(msg) from error


# In strict mode, which only takes exact types, the checks below are pydantic's own and cost
# nothing extra; that mode is for what this package itself has stored. Everybody else's input is
# validated in lax mode, where a Python function has a word too.


@dataclass(frozen=True, slots=True)
class _Number:
    """A number, but not ``True``: pydantic takes that for 1 in lax mode."""

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        number = handler(source)
        return core_schema.lax_or_strict_schema(
            core_schema.no_info_before_validator_function(_not_bool, number), number
        )


@dataclass(frozen=True, slots=True)
class _Aware:
    """A time with its zone; a naive one is given the local zone in lax mode."""

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        time = handler(source)
        return core_schema.lax_or_strict_schema(
            core_schema.no_info_after_validator_function(_aware, time), time
        )


# The core of pydantic does these checks; text with a lone surrogate it refuses by itself.
_Name = StringConstraints(strip_whitespace=True, min_length=1)
_Text = StringConstraints(max_length=MAX_EXTRA_BYTES)


class ModelInstance(BaseModel):
    """One worker endpoint serving one model.

    The first ten fields are DB-GPT's, with its meaning. Identity is ``(model_name, host,
    port)``. Surrounding white space of the names is stripped.

    Attributes:
        model_name: The model served, any Unicode text of at most 512 characters; in
            DB-GPT
            always ``"<name>@<worker type>"``.
        host: Where it listens, any text of at most 255 characters (IPv6 with zone included).
        port: 1 to 65535.
        weight: Finite and not negative; 0 takes no new work.
        check_healthy: ``False``: silence never makes it unhealthy.
        healthy: Answered by the registry; ignored when registering (registering revives).
        enabled: The registrant's own switch; set by the first registration only.
        prompt_template: Free text.
        last_heartbeat: Aware; by Redis's clock. A naive one is taken as local time.
        remove_from_registry: An instruction to deregister, not state.
        incarnation: One life of an instance, from :func:`new_incarnation`: of two, the greater
            is the newer. A call of an older one changes nothing.
        readiness: Whether it wants new work.
        reason: Why it is not ready, in its own words; at most 500 characters.
        heartbeat_timeout_secs: This instance's own timeout; ``None``: the registry's.
        zone: Where it runs, for zone-aware choice.
        serves: Other names under which it takes work: adapters of the model.
        metadata: Anything JSON-like, up to 64 KiB with the prompt template.
        state: Answered by the registry: how ``healthy`` was judged.
        revision: Answered by the registry: number of the last change to this record.
        load: Answered by the registry: its last report.
        since: Answered by the registry: since when its health and readiness are what they are.
        held_out: Answered by the registry: it is kept out of selection for a while.
        overrides: Answered by the registry: names of the operators' overrides in force on it.
        forced: Answered by the registry: what an operator has forced ``healthy`` to be.
    """

    model_config = ConfigDict(
        extra="ignore", protected_namespaces=(), validate_assignment=True
    )

    model_name: Annotated[str, _Name, Field(max_length=MAX_MODEL_NAME)]
    host: Annotated[str, _Name, Field(max_length=MAX_HOST)]
    port: Annotated[int, Field(ge=1, le=65535), _Number()]
    weight: Annotated[float, Field(ge=0, allow_inf_nan=False), _Number()] | None = 1.0
    check_healthy: bool | None = True
    healthy: bool | None = False
    enabled: bool | None = True
    prompt_template: Annotated[str, _Text] | None = None
    last_heartbeat: Annotated[datetime, _Aware()] | None = None
    remove_from_registry: bool | None = False

    incarnation: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = None
    readiness: Readiness = Readiness.READY
    reason: Annotated[str, Field(max_length=MAX_REASON)] | None = None
    heartbeat_timeout_secs: (
        Annotated[float, Field(ge=MIN_TIMEOUT_SECS, le=MAX_TIMEOUT_SECS)] | None
    ) = None
    zone: Annotated[str, _Text] | None = None
    serves: list[Annotated[str, _Name, Field(max_length=MAX_MODEL_NAME)]] = Field(
        default_factory=list, max_length=MAX_SERVES
    )
    metadata: dict[str, Any] = Field(default_factory=dict)
    state: Health | None = None
    revision: int | None = None
    load: Load | None = None
    since: datetime | None = None
    held_out: HeldOut | None = None
    forced: bool | None = None
    overrides: list[str] = Field(default_factory=list)

    @field_validator("serves")
    @classmethod
    def _each_once(cls, names: list[str], info: ValidationInfo) -> list[str]:
        """Its own name is served anyway."""
        return [
            name for name in dict.fromkeys(names) if name != info.data.get("model_name")
        ]

    @property
    def identity(self) -> Identity:
        """Model, host and port."""
        return Identity(self.model_name, self.host, self.port)

    @property
    def ready(self) -> bool:
        """Whether it wants new work."""
        return self.readiness is Readiness.READY

    @property
    def str_last_heartbeat(self) -> str | None:
        """The last heartbeat as local ``YYYY-MM-DD HH:MM:SS``, as DB-GPT shows it."""
        if self.last_heartbeat is None:
            return None
        return self.last_heartbeat.astimezone().strftime("%Y-%m-%d %H:%M:%S")

    def to_dict(self) -> dict[str, Any]:
        """All fields as a plain dictionary."""
        return self.model_dump()

    @classmethod
    def of(cls, **fields: Any) -> ModelInstance:
        """Build an instance from untrusted fields.

        Raises:
            InvalidInstance: A field is missing or not acceptable; the message says which.
        """
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise InvalidInstance(explain_invalid(error)) from error


def explain_invalid(error: ValidationError, whole: str = "instance") -> str:
    """Pydantic's findings in one line: each field, what is wrong and the value (cut short).

    Args:
        error: What was found.
        whole: What to call that which is not about a single field; empty: it says so itself.
    """
    found: list[str] = []
    for item in error.errors(include_url=False, include_context=False):
        where = ".".join(str(part) for part in item["loc"]) or whole
        value = repr(item.get("input"))
        shown = value if len(value) <= _SHOWN else f"{value[:_SHOWN]}…"
        said = item["msg"].removeprefix("Value error, ")
        found.append(f"{where}: {said} (got {shown})" if where else said)
    return "; ".join(found)


def superseded(instance: ModelInstance, by: str | None = None) -> Superseded:
    """The error for a call of an incarnation that has been replaced, or has ended."""
    error = Superseded(
        f"{instance.identity}: incarnation {instance.incarnation} is superseded: a newer one lives at the "
        "same address, or it has deregistered itself. This process must stop claiming it; a new "
        "life begins with a new_incarnation()"
    )
    error.by = by
    return error


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

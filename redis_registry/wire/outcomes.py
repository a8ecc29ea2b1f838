"""The bodies of ``/v1/outcomes`` and ``/v1/probes``: what routers that speak HTTP tell."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from redis_registry.model import MAX_REASON, ModelInstance

__all__ = [
    "MAX_REPORTS",
    "OUTCOMES",
    "PROBES",
    "Claim",
    "Granted",
    "Judged",
    "Judgements",
    "Report",
    "Reports",
]

OUTCOMES = "/v1/outcomes"
PROBES = "/v1/probes"

MAX_REPORTS = 500
"""Instances that one request may tell of."""

_Count = Annotated[int, Field(ge=0, le=1_000_000)]


class Report(BaseModel):
    """How calls to one instance ended; of it only what identifies it is looked at.

    Attributes:
        failures: How many failed.
        successes: How many did not.
        trailing: How many have failed since the last success; ``None``: all that did.
        reason: Of the last failure, in plain words.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    instance: ModelInstance
    failures: _Count = 0
    successes: _Count = 0
    trailing: _Count | None = None
    reason: Annotated[str, Field(max_length=MAX_REASON)] = ""


class Reports(BaseModel):
    """``/v1/outcomes``: of many instances at once.

    Attributes:
        outcomes: What to tell.
        operation: A name for this request: repeated within 30 s, it counts once.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    outcomes: Annotated[list[Report], Field(max_length=MAX_REPORTS)]
    operation: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = None


class Judged(BaseModel):
    """What a report has led to; ``until``: when an ejected one may be probed."""

    verdict: str
    until: datetime | None = None


class Judgements(BaseModel):
    """One for each report, in order."""

    outcomes: list[Judged]


class Claim(BaseModel):
    """``/v1/probes``: whose probe is asked for."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    instance: ModelInstance


class Granted(BaseModel):
    """Whether the probe is the caller's."""

    granted: bool

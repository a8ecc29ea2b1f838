"""Overrides and aliases as the front doors take and give them."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, NotRequired, Required, TypedDict

from pydantic import BaseModel, Field, StringConstraints, TypeAdapter, ValidationError

from redis_registry.core.inputs import author_or_self
from redis_registry.errors import InvalidOverride
from redis_registry.model import (
    EPOCH,
    MAX_REASON,
    Identity,
    ModelInstance,
    explain_invalid,
)
from redis_registry.store.replies import Orders
from redis_registry.wire.aliases import Alias
from redis_registry.wire.in_force import Overrides
from redis_registry.wire.overrides import Author, Override, Selector

__all__ = [
    "Decision",
    "clearing",
    "decided",
    "listed_aliases",
    "listed_overrides",
    "orders_written",
    "written_orders",
]

MAX_EXPIRES_SECS = 10 * 365 * 86_400.0

_expires: TypeAdapter[float] = TypeAdapter(
    Annotated[float, Field(gt=0, le=MAX_EXPIRES_SECS, allow_inf_nan=False)]
)


class Decision(TypedDict):
    """What an operator decides; see :meth:`RedisModelRegistry.override`."""

    reason: Required[str]
    enabled: NotRequired[bool | None]
    draining: NotRequired[bool | None]
    weight: NotRequired[float | None]
    healthy: NotRequired[bool | None]
    labels: NotRequired[Mapping[str, str]]
    author: NotRequired[str | None]
    expires_secs: NotRequired[float | None]
    name: NotRequired[str | None]


def decided(
    meant: Selector | Identity | ModelInstance, decision: Decision
) -> tuple[Override, float | None]:
    """The override that a decision makes, and when it ends, in seconds.

    Raises:
        InvalidOverride: A part is not acceptable.
    """
    fields: dict[str, Any] = dict(decision)
    expires_secs = fields.pop("expires_secs", None)
    unknown = set(fields) - set(Override.model_fields)
    if unknown:
        msg = f"override: there is no {', '.join(sorted(unknown))}"
        raise InvalidOverride(msg)
    try:
        if expires_secs is not None:
            expires_secs = _expires.validate_python(expires_secs)
    except ValidationError as error:
        msg = f"override: {explain_invalid(error, 'expires_secs')}"
        raise InvalidOverride(msg) from error
    try:
        fields["selector"] = Selector.of(meant)
    except ValidationError as error:
        msg = f"override: {explain_invalid(error)}"
        raise InvalidOverride(msg) from error
    fields["name"] = fields.get("name") or f"o-{secrets.token_hex(4)}"
    fields["author"] = author_or_self(fields.get("author"))
    return Override.of(**fields), expires_secs


class _Clearing(BaseModel):
    name: Annotated[str, StringConstraints(strip_whitespace=True)]
    author: Author
    reason: Annotated[
        str, StringConstraints(strip_whitespace=True, max_length=MAX_REASON)
    ]


def clearing(name: str, author: str | None, reason: str = "") -> tuple[str, str]:
    """What goes, and who says so and why, as an event's cause.

    Raises:
        InvalidOverride: A part is not acceptable.
    """
    fields = {"name": name, "author": author_or_self(author), "reason": reason}
    try:
        said = _Clearing.model_validate(fields)
    except ValidationError as error:
        raise InvalidOverride(f"clearing: {explain_invalid(error)}") from error
    who = f"by {said.author}"
    return said.name, f"{who}: {said.reason}" if said.reason else who


def listed_overrides(parts: Iterable[Orders]) -> list[Override]:
    """Those of all partitions, each once, the oldest first."""
    found: dict[str, Override] = {}
    for part in parts:
        for override in part.overrides:
            found.setdefault(override.name, override)
    return sorted(found.values(), key=lambda override: override.at or EPOCH)


def listed_aliases(parts: Iterable[Orders]) -> list[Alias]:
    """Those of all partitions, by name."""
    found = [alias for part in parts for alias in part.aliases.values()]
    return sorted(found, key=lambda alias: alias.alias)


def written_orders(orders: Orders) -> tuple[list[str], list[str]]:
    """Overrides and aliases, each as JSON, for a file."""
    return (
        [override.model_dump_json() for override in orders.overrides],
        [alias.model_dump_json() for alias in orders.aliases.values()],
    )


def orders_written(overrides: Iterable[str], aliases: Iterable[str]) -> Orders:
    """Read back what :func:`written_orders` made.

    Raises:
        ValueError: It is not of that form.
    """
    found = [Alias.model_validate_json(text) for text in aliases]
    return Orders(
        overrides=Overrides(map(Override.model_validate_json, overrides)),
        aliases={alias.alias: alias for alias in found},
    )

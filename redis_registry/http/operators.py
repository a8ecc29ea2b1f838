"""What operators decide, by HTTP: overrides and aliases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from redis_registry.http.app import SCHEMA_REF, Reply, Request, Route, invalid
from redis_registry.registry import RedisModelRegistry
from redis_registry.wire.aliases import Alias
from redis_registry.wire.overrides import Override, Selector

__all__ = ["operator_routes"]

B = TypeVar("B", bound=BaseModel)

_Author = Annotated[str, Field(min_length=1, max_length=128)]


class _Body(BaseModel):
    # What is misspelled must not be left out silently.
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Deciding(_Body):
    """An override to be set; what each part means: see the reply."""

    selector: Selector
    author: _Author
    reason: str
    name: str | None = None
    enabled: bool | None = None
    draining: bool | None = None
    weight: float | None = None
    healthy: bool | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    expires_secs: float | None = None


class Clearing(_Body):
    """Which one goes, and who says so."""

    name: str
    author: _Author
    reason: str = ""


class Pointing(_Body):
    """An alias to be set."""

    alias: str
    model_name: str
    author: _Author


class Removing(_Body):
    """Which alias goes, and who says so."""

    alias: str
    author: _Author


class Cleared(_Body):
    """Whether there was one."""

    cleared: bool


class Standing(_Body):
    """Overrides in force, the oldest first."""

    overrides: list[Override]


class Aliases(_Body):
    """All aliases, by name."""

    aliases: list[Alias]


def _parsed(kind: type[B], query: Mapping[str, str]) -> B:
    try:
        return kind.model_validate(query)
    except ValidationError as error:
        raise invalid(error, "query") from error


async def _body(request: Request, kind: type[B]) -> B:
    try:
        return kind.model_validate_json(await request.body())
    except ValidationError as error:
        raise invalid(error, "body") from error


def _reply(answer: BaseModel) -> Reply:
    return Reply(answer.model_dump_json().encode())


class _Operators:
    def __init__(self, registry: RedisModelRegistry) -> None:
        self._registry = registry

    async def overrides(self, _request: Request) -> Reply:
        return _reply(Standing(overrides=await self._registry.overrides()))

    async def override(self, request: Request) -> Reply:
        asked = await _body(request, Deciding)
        made = await self._registry.override(
            asked.selector,
            name=asked.name,
            enabled=asked.enabled,
            draining=asked.draining,
            weight=asked.weight,
            healthy=asked.healthy,
            labels=asked.labels,
            author=asked.author,
            reason=asked.reason,
            expires_secs=asked.expires_secs,
        )
        return _reply(made)

    async def clear(self, request: Request) -> Reply:
        asked = _parsed(Clearing, request.query())
        cleared = await self._registry.clear_override(
            asked.name, author=asked.author, reason=asked.reason
        )
        return _reply(Cleared(cleared=cleared))

    async def aliases(self, _request: Request) -> Reply:
        return _reply(Aliases(aliases=await self._registry.aliases()))

    async def point(self, request: Request) -> Reply:
        asked = await _body(request, Pointing)
        made = await self._registry.set_alias(
            asked.alias, asked.model_name, author=asked.author
        )
        return _reply(made)

    async def remove(self, request: Request) -> Reply:
        asked = _parsed(Removing, request.query())
        removed = await self._registry.remove_alias(asked.alias, author=asked.author)
        return _reply(Cleared(cleared=removed))


def _schema(kind: type[BaseModel]) -> dict[str, Any]:
    return kind.model_json_schema(ref_template=SCHEMA_REF)


def _query(kind: type[BaseModel]) -> dict[str, bool]:
    return {name: field.is_required() for name, field in kind.model_fields.items()}


def operator_routes(registry: RedisModelRegistry) -> list[Route]:
    """``/v1/overrides`` and ``/v1/aliases``: list, set, clear."""
    side = _Operators(registry)
    overrides, aliases = "/v1/overrides", "/v1/aliases"
    return [
        Route(
            "GET",
            overrides,
            side.overrides,
            "List the overrides in force",
            reply=_schema(Standing),
        ),
        Route(
            "POST",
            overrides,
            side.override,
            "Decide about instances, over what they say themselves",
            body=_schema(Deciding),
            reply=_schema(Override),
        ),
        Route(
            "DELETE",
            overrides,
            side.clear,
            "Clear an override",
            query=_query(Clearing),
            reply=_schema(Cleared),
        ),
        Route(
            "GET",
            aliases,
            side.aliases,
            "List the aliases",
            reply=_schema(Aliases),
        ),
        Route(
            "POST",
            aliases,
            side.point,
            "Point an alias to a model",
            body=_schema(Pointing),
            reply=_schema(Alias),
        ),
        Route(
            "DELETE",
            aliases,
            side.remove,
            "Remove an alias",
            query=_query(Removing),
            reply=_schema(Cleared),
        ),
    ]

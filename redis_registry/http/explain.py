"""Why instances do, or don't, receive work, by HTTP."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from redis_registry.core.explanation import Explanation, ModelExplanation
from redis_registry.http.app import (
    SCHEMA_REF,
    HTTPError,
    Reply,
    Request,
    Route,
    invalid,
)
from redis_registry.model import Identity
from redis_registry.registry import RedisModelRegistry

__all__ = ["explain_routes"]

_REPLY = TypeAdapter[Explanation | ModelExplanation](Explanation | ModelExplanation)


class Asking(BaseModel):
    """A model by name or alias; with host and port, one instance of it."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: str
    host: str | None = None
    port: Annotated[int, Field(ge=1, le=65535)] | None = None


def explain_routes(registry: RedisModelRegistry) -> list[Route]:
    """``GET /v1/explain``."""

    async def explain(request: Request) -> Reply:
        try:
            asked = Asking.model_validate(request.query())
        except ValidationError as error:
            raise invalid(error, "query") from error
        if asked.host is None and asked.port is None:
            model = await registry.explain(asked.model)
            return Reply(model.model_dump_json().encode())
        if asked.host is None or asked.port is None:
            raise HTTPError(422, "give host and port, or neither")
        one = await registry.explain(Identity(asked.model, asked.host, asked.port))
        return Reply(one.model_dump_json().encode())

    return [
        Route(
            "GET",
            "/v1/explain",
            explain,
            "Why a model's instances, or one of them, may or may not receive work",
            query={
                name: field.is_required() for name, field in Asking.model_fields.items()
            },
            reply=_REPLY.json_schema(ref_template=SCHEMA_REF),
        )
    ]

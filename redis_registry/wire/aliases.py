"""Aliases: further names of models, which an operator points wherever it is wanted."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any, Self
from urllib.parse import unquote

from pydantic import (
    BaseModel,
    ConfigDict,
    StringConstraints,
    ValidationError,
    model_validator,
)

from redis_registry.errors import InvalidOverride
from redis_registry.model import EPOCH, MAX_MODEL_NAME, explain_invalid

__all__ = ["MAX_ALIASES", "Alias", "decode_alias"]

MAX_ALIASES = 1000
"""Most aliases of one partition."""

_Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_MODEL_NAME),
]


class Alias(BaseModel):
    """A name that stands for a model.

    Attributes:
        alias: The name that is asked for.
        model_name: The model whose instances are answered.
        author: Who pointed it there.
        at: Answered by the registry: when, by Redis's clock.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    alias: _Name
    model_name: _Name
    author: Annotated[
        str, StringConstraints(strip_whitespace=True, min_length=1, max_length=128)
    ]
    at: datetime | None = None

    @model_validator(mode="after")
    def _of_another(self) -> Self:
        if self.alias == self.model_name:
            msg = "a name can't be an alias of itself; remove_alias gives it back to its own instances"
            raise ValueError(msg)
        return self

    @classmethod
    def of(cls, **fields: Any) -> Alias:
        """Build one from untrusted fields.

        Raises:
            InvalidOverride: A field is missing or not acceptable; the message says which.
        """
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            msg = f"alias: {explain_invalid(error, whole='')}"
            raise InvalidOverride(msg) from error


def decode_alias(alias: bytes, record: bytes) -> Alias:
    """Read what ``alias.lua`` stored: ``at µs:model:author``, names escaped.

    Before there were adapters there was one more part, a partition, behind the time.

    Raises:
        ValueError: It is not of that form.
    """
    at, *_, model, author = record.decode().split(":")
    return Alias(
        alias=unquote(alias.decode()),
        model_name=unquote(model),
        author=unquote(author),
        at=EPOCH + timedelta(microseconds=int(at)),
    )

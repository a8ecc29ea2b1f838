"""Operators' overrides: what they are, and how they are stored.

An override is a record of its own, so nothing that a worker says undoes it. It is applied when
an instance is read, never written into it; when it ends, what the worker says shows again.
"""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from redis_registry.errors import InvalidOverride
from redis_registry.model import (
    EPOCH,
    MAX_HOST,
    MAX_MODEL_NAME,
    MAX_REASON,
    Identity,
    ModelInstance,
    explain_invalid,
)

__all__ = [
    "MAX_OVERRIDES",
    "Author",
    "Override",
    "Selector",
    "decode_override",
    "encode_override",
    "literal",
]

MAX_OVERRIDES = 1000
"""Most overrides of one partition."""

MAX_OVERRIDE_BYTES = 4096
"""Bound of one override on the wire."""

_EFFECTS = ("enabled", "draining", "weight", "healthy", "labels")

Author = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=128)
]
"""Who decides."""

_Pattern = StringConstraints(strip_whitespace=True, min_length=1)
_MAGIC = re.compile(r"[*?[]")
_ESCAPED = re.compile(r"\[([*?[])\]")


def _exactly(text: str) -> str:
    """The pattern that matches this text and nothing else."""
    return _MAGIC.sub(lambda found: f"[{found[0]}]", text)


def literal(pattern: str | None) -> str | None:
    """The one text that a pattern matches; ``None``: it may match several."""
    if pattern is None or _MAGIC.search(_ESCAPED.sub("", pattern)):
        return None
    return _ESCAPED.sub(r"\1", pattern)


class Selector(BaseModel):
    """Which instances are meant: those that fit everything that is given.

    Texts are exact, or patterns as the shell knows them: ``*`` any text, ``?`` any character,
    ``[ab]`` one of these; ``[*]`` is a star itself. Upper and lower case differ.

    Attributes:
        model: The model's name.
        host: Where it listens.
        port: On which port.
        zone: Where it runs, by its own word; one without a zone fits no pattern.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Annotated[str, _Pattern, Field(max_length=3 * MAX_MODEL_NAME)] | None = None
    host: Annotated[str, _Pattern, Field(max_length=3 * MAX_HOST)] | None = None
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    zone: Annotated[str, _Pattern, Field(max_length=MAX_MODEL_NAME)] | None = None

    @model_validator(mode="after")
    def _of_something(self) -> Self:
        if not self.model_dump(exclude_none=True):
            msg = (
                "give at least one of model, host, port and zone (model='*' means all)"
            )
            raise ValueError(msg)
        return self

    @classmethod
    def of(cls, meant: Selector | Identity | ModelInstance) -> Selector:
        """A selector of exactly one instance, whatever characters its names hold.

        Raises:
            InvalidOverride: It is something else.
        """
        if isinstance(meant, Selector):
            return meant
        identity = meant.identity if isinstance(meant, ModelInstance) else meant
        if not isinstance(identity, Identity):  # pyright: ignore[reportUnnecessaryIsInstance]
            msg = (
                f"selector: expected a Selector, an Identity or a ModelInstance, got {meant!r:.60}: "
                "for a model by its name give Selector(model=...)"
            )
            raise InvalidOverride(msg)
        return cls(
            model=_exactly(identity.model_name),
            host=_exactly(identity.host),
            port=identity.port,
        )

    @classmethod
    def given(cls, **fields: Any) -> Selector:
        """Build one from untrusted fields.

        Raises:
            InvalidOverride: Nothing is given, or not acceptable; the message says which.
        """
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            msg = f"selector: {explain_invalid(error, whole='')}"
            raise InvalidOverride(msg) from error

    @property
    def one_model(self) -> str | None:
        """The only model that it fits; ``None``: it may fit several."""
        return literal(self.model)

    @property
    def one_identity(self) -> Identity | None:
        """The only instance that it fits; ``None``: it may fit several."""
        model, host = literal(self.model), literal(self.host)
        if model is None or host is None or self.port is None or self.zone:
            return None
        return Identity(model, host, self.port)

    def __str__(self) -> str:
        given = self.model_dump(exclude_none=True)
        return " ".join(f"{name}={value}" for name, value in given.items())


class Override(BaseModel):
    """An operator's decision about instances, with who made it and why.

    What is ``None`` is left as the worker says it.

    Attributes:
        name: What it is called; setting another one of that name replaces it.
        selector: Which instances are meant, those that don't exist yet included.
        enabled: ``False``: they take no new work.
        draining: ``True``: they finish what they have; ``False``: no other override drains them.
        weight: Their share of new work; 0: none.
        healthy: ``False``: they count as dead; ``True``: as alive, whatever their deadline says.
        labels: Merged into their metadata; ``zone`` says where they run.
        author: Who decided.
        reason: Why, in plain words.
        at: Answered by the registry: when, by Redis's clock.
        expires: Answered by the registry: when it ends by itself; ``None``: it doesn't.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    selector: Selector
    enabled: bool | None = None
    draining: bool | None = None
    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    healthy: bool | None = None
    labels: dict[
        Annotated[str, Field(min_length=1, max_length=128)],
        Annotated[str, Field(max_length=512)],
    ] = Field(default_factory=dict, max_length=32)
    author: Author
    reason: Annotated[
        str,
        StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_REASON),
    ]
    at: datetime | None = None
    expires: datetime | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.says:
            msg = f"say at least one of {', '.join(_EFFECTS)}"
            raise ValueError(msg)
        return self

    @property
    def says(self) -> dict[str, Any]:
        """What it decides, by field."""
        return {
            name: value
            for name in _EFFECTS
            if (value := getattr(self, name)) is not None and value != {}
        }

    @property
    def at_us(self) -> int:
        """``at`` in µs since the epoch."""
        return _micros(self.at or EPOCH)

    @property
    def ends_us(self) -> int | None:
        """``expires`` in µs since the epoch."""
        return _micros(self.expires) if self.expires else None

    @classmethod
    def of(cls, **fields: Any) -> Override:
        """Build one from untrusted fields.

        Raises:
            InvalidOverride: A field is missing or not acceptable; the message says which.
        """
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            msg = f"override: {explain_invalid(error, whole='')}"
            raise InvalidOverride(msg) from error


def encode_override(override: Override) -> str:
    """What the scripts keep of it besides name and times: JSON without the separator of rows.

    Raises:
        InvalidOverride: It is larger than 4 KiB.
    """
    record = override.model_dump_json(
        exclude={"name", "at", "expires"}, exclude_defaults=True
    ).replace("|", "\\u007c")
    if (size := len(record.encode())) > MAX_OVERRIDE_BYTES:
        msg = (
            f"override {override.name}: takes {size} bytes, the limit is {MAX_OVERRIDE_BYTES}: "
            "use fewer or shorter labels"
        )
        raise InvalidOverride(msg)
    return record


def decode_override(name: bytes, record: bytes) -> Override:
    """Read what ``override.lua`` stored: ``at µs:expires µs or 0:operation:JSON``.

    Raises:
        ValueError: It is not of that form.
    """
    at, expires, _, said = record.split(b":", 3)
    return Override.model_validate(
        {
            **json.loads(said),
            "name": name.decode(),
            "at": _when(int(at)),
            "expires": _when(int(expires)) if int(expires) else None,
        }
    )


def _when(micros: int) -> datetime:
    return EPOCH + timedelta(microseconds=micros)


def _micros(when: datetime) -> int:
    return (when - EPOCH) // timedelta(microseconds=1)

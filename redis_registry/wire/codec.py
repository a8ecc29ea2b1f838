"""What an instance looks like on the wire, both ways.

A *spec* is what only the registrant decides, as msgpack ``[format, {short name: value}]``
with defaults left out. It mostly stays within 64 bytes, above which Redis (7.0) would give up
the compact encoding of the whole hash (578 against 730 bytes an instance, measured).
A *row* is what scripts answer and events carry: see ``store/lua/lib/record.lua``.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, cast
from urllib.parse import unquote

import msgpack  # pyright: ignore[reportMissingTypeStubs]

from redis_registry.errors import FormatMismatch, InvalidInstance
from redis_registry.model import (
    MAX_EXTRA_BYTES,
    Health,
    HeldOut,
    Load,
    ModelInstance,
    Readiness,
)
from redis_registry.wire.keys import identity_of, identity_text
from redis_registry.wire.raw_rows import BEFORE_SPEC, HEALTH, OUT, SINCE

__all__ = [
    "FORMAT",
    "READINESS",
    "UNREADABLE",
    "Marked",
    "decode_row",
    "decode_rows",
    "decode_spec",
    "encode_load",
    "encode_spec",
    "marked",
    "member_of",
    "served_by",
]

FORMAT = 1
"""Version of the records and of the keyspace; recorded in each partition's meta."""

_SHORT = {
    "weight": "w",
    "prompt_template": "p",
    "zone": "z",
    "metadata": "m",
    "serves": "s",
}
_SERVES = b"\xa1s"
"""How msgpack writes the short name of ``serves``: a row without it has none."""

_LONG = {short: name for name, short in _SHORT.items()}
_DEFAULTS: dict[str, Any] = {
    "weight": 1.0,
    "prompt_template": None,
    "zone": None,
    "metadata": {},
    "serves": [],
}
READINESS = {
    Readiness.STARTING: "s",
    Readiness.READY: "r",
    Readiness.NOT_READY: "n",
    Readiness.DRAINING: "d",
    Readiness.WEDGED: "w",
    Readiness.FAILED: "f",
}
"""Its letter among the flags of a record."""

_FLAGS = {
    f"{enabled:d}{check:d}{letter}".encode(): (enabled, check, readiness)
    for enabled in (True, False)
    for check in (True, False)
    for readiness, letter in READINESS.items()
}
_STATES = {
    b"1": (Health.HEALTHY, True),
    b"protected": (Health.PROTECTED, True),
    b"overdue": (Health.OVERDUE, False),
    b"x": (Health.UNHEALTHY, False),
    b"d": (Health.UNHEALTHY, False),
    b"g": (Health.UNHEALTHY, False),
}
_CAUSES: dict[bytes, tuple[Literal["failures", "flapping"], bool]] = {
    b"e": ("failures", False),
    b"h": ("failures", True),
    b"f": ("flapping", False),
}


_SHARED_BYTES = 256
_MOST_SHARED = 4096

_from_timestamp = datetime.fromtimestamp

_log = logging.getLogger(__name__)

# Pydantic's own, without the wrapper that a class method puts around it.
_validate = ModelInstance.__pydantic_validator__.validate_python

# msgpack ships no types.
_pack = cast("Callable[[object], bytes]", msgpack.packb)  # pyright: ignore[reportUnknownMemberType]
_unpack = cast("Callable[[bytes], Any]", msgpack.unpackb)  # pyright: ignore[reportUnknownMemberType]


def encode_spec(instance: ModelInstance) -> bytes:
    """The registrant's part of an instance as msgpack.

    Raises:
        InvalidInstance: It is larger than 64 KiB, or metadata holds what msgpack can't.
    """
    fields = {
        short: value
        for name, short in _SHORT.items()
        if (value := getattr(instance, name)) != _DEFAULTS[name]
    }
    try:
        spec = _pack([FORMAT, fields])
    except (TypeError, ValueError, OverflowError) as error:
        msg = f"metadata: {instance.identity}: not JSON-like ({error}); use text, numbers, lists and dictionaries"
        raise InvalidInstance(msg) from error
    if len(spec) > MAX_EXTRA_BYTES:
        msg = (
            f"prompt_template and metadata of {instance.identity} take {len(spec)} bytes, "
            f"the limit is {MAX_EXTRA_BYTES}: keep large things elsewhere and store a reference"
        )
        raise InvalidInstance(msg)
    return spec


def decode_spec(spec: bytes) -> dict[str, Any]:
    """Read what :func:`encode_spec` made, as fields of an instance.

    Raises:
        FormatMismatch: It was written by a newer release.
        ValueError: It is no spec.
    """
    version, given = _unpack(spec)
    if version != FORMAT:
        msg = (
            f"a record is of format {version}, this release reads format {FORMAT}: "
            "upgrade redis_registry here"
        )
        raise FormatMismatch(msg)
    # What a newer release adds is left out.
    return {_LONG[short]: value for short, value in given.items() if short in _LONG}


@functools.lru_cache(_MOST_SHARED)
def _shared(spec: bytes) -> dict[str, Any] | None:
    """The fields of a spec, if many may have them; instances of a model mostly have the same."""
    fields = decode_spec(spec)
    below = fields.get("metadata", {}).values()
    # Validating copies the metadata, but nothing below.
    return None if any(isinstance(one, (dict, list)) for one in below) else fields


def _fields(spec: bytes) -> dict[str, Any]:
    """The fields of a spec, to be read only."""
    shared = _shared(spec) if len(spec) <= _SHARED_BYTES else None
    return decode_spec(spec) if shared is None else shared


def encode_load(load: Load) -> str:
    """A report as JSON without the separator of rows."""
    return load.model_dump_json(exclude_defaults=True).replace("|", "\\u007c")


def member_of(instance: ModelInstance, timeout_ms: int) -> str:
    """The instance's member among the deadlines, as this process believes it to be."""
    return (
        f"{identity_text(instance.identity)}:{timeout_ms}:{instance.incarnation or ''}"
    )


def decode_row(raw: bytes) -> ModelInstance:
    """Decode and validate one row.

    Raises:
        FormatMismatch: The spec was written by a newer release.
        ValueError: Something else about it is wrong.
    """
    (
        identity,
        flags,
        tail,
        state_text,
        _,
        since,
        deadline,
        revision,
        newer,
        why,
        load,
        out,
        spec,
    ) = raw.split(b"|", BEFORE_SPEC)
    model_name, host, port = identity_of(identity.decode())
    timeout_ms, _, incarnation = tail.partition(b":")
    timeout_secs = int(timeout_ms) / 1000
    state, served = _STATES[state_text]
    enabled, checked, readiness = _FLAGS[flags]
    fields: dict[str, Any] = {
        **_fields(spec),
        "model_name": model_name,
        "host": host,
        "port": port,
        "enabled": enabled,
        "check_healthy": checked,
        "readiness": readiness,
        "healthy": served,
        "state": state,
        "incarnation": incarnation.decode() or None,
        "heartbeat_timeout_secs": timeout_secs,
        "revision": int(revision),
        "last_heartbeat": _from_timestamp(
            int(newer or deadline) / 1_000_000 - timeout_secs, UTC
        ),
    }
    if why:
        spoke, _, reason = why.split(b":", 2)
        fields["reason"] = unquote(reason.decode()) or None
        since = max(int(since), int(spoke))
    fields["since"] = _from_timestamp(int(since) / 1_000_000, UTC)
    if out:
        letter, until = out.split(b":")[:2]
        cause, half_open = _CAUSES[letter]
        fields["held_out"] = HeldOut(
            cause=cause,
            until=_from_timestamp(int(until) / 1_000_000, UTC),
            half_open=half_open,
        )
    if load:
        fields["load"] = Load.model_validate_json(load)
    return _validate(fields, strict=True)


_EJECTED_PARTS = 4  # cause:until:times in a row:claim


class Marked(NamedTuple):
    """What a row says that an instance doesn't show.

    Attributes:
        health: ``1``: healthy, ``x``: expired, ``d``: deregistered, ``g``: it said goodbye.
        since: Since when.
        ejections: How many times in a row it was ejected.
        probing: Somebody has claimed its probe.
    """

    health: str
    since: datetime
    ejections: int
    probing: bool


def marked(raw: bytes) -> Marked:
    """Read from a row what only an explanation needs."""
    parts = raw.split(b"|", BEFORE_SPEC)
    out = parts[OUT].decode().split(":")
    ejected = len(out) == _EJECTED_PARTS
    return Marked(
        health=parts[HEALTH].decode(),
        since=_from_timestamp(int(parts[SINCE]) / 1_000_000, UTC),
        ejections=int(out[2]) if ejected else 0,
        probing=ejected and out[3] != "",
    )


def served_by(raw: bytes) -> tuple[str, ...]:
    """The further names that a row's instance serves; none if it can't be read."""
    if _SERVES not in raw:
        return ()
    try:
        return tuple(_fields(raw.split(b"|", BEFORE_SPEC)[-1]).get("serves", ()))
    except (*UNREADABLE, FormatMismatch):
        return ()


UNREADABLE = (
    ValueError,
    KeyError,
    AttributeError,
    TypeError,
    OverflowError,
    OSError,
    msgpack.UnpackException,
)
"""What decoding a row raises when the row is no row."""


def decode_rows(rows: Sequence[bytes]) -> list[ModelInstance]:
    """Decode many rows; those that can't be read are left out and reported, not fatal.

    Raises:
        FormatMismatch: A record was written by a newer release.
    """
    try:
        return [decode_row(raw) for raw in rows]
    except FormatMismatch:
        raise
    except UNREADABLE:
        return _decode_readable(rows)


def _decode_readable(rows: Sequence[bytes]) -> list[ModelInstance]:
    found: list[ModelInstance] = []
    unreadable: list[tuple[bytes, Exception]] = []
    for raw in rows:
        try:
            found.append(decode_row(raw))
        except FormatMismatch:
            raise
        except UNREADABLE as error:
            unreadable.append((raw, error))
    raw, error = unreadable[0]
    _log.warning(
        "records unreadable, left out of the answer: deregister them with "
        "remove_from_registry=True, or let them register again",
        extra={
            "count": len(unreadable),
            "row": raw[:120].decode(errors="backslashreplace"),
        },
        exc_info=error,
    )
    return found

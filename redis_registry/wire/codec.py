"""What an instance looks like on the wire, both ways.

A *spec* is what only the registrant decides, as msgpack ``[format, {short name: value}]``
with defaults left out. It mostly stays within 64 bytes, above which Redis (7.0) would give up
the compact encoding of the whole hash (578 against 730 bytes an instance, measured).
A *row* is what scripts answer and events carry: see ``store/lua/lib/record.lua``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import msgpack  # pyright: ignore[reportMissingTypeStubs]

from redis_registry.errors import FormatMismatch, InvalidInstance
from redis_registry.model import EPOCH, MAX_EXTRA_BYTES, Health, ModelInstance
from redis_registry.wire.keys import identity_of, identity_text

__all__ = ["FORMAT", "Row", "decode_rows", "encode_spec", "member_of", "split_row"]

FORMAT = 1
"""Version of the records and of the keyspace; recorded in each partition's meta."""

_SHORT = {"weight": "w", "prompt_template": "p", "zone": "z", "metadata": "m"}
_DEFAULTS: dict[str, Any] = {
    "weight": 1.0,
    "prompt_template": None,
    "zone": None,
    "metadata": {},
}
_STATES = {
    "1": Health.HEALTHY,
    "protected": Health.PROTECTED,
    "overdue": Health.OVERDUE,
    "expired": Health.UNHEALTHY,
    "deregistered": Health.UNHEALTHY,
}
_TEXTS = 9
_SERVED = (Health.HEALTHY, Health.PROTECTED)

_log = logging.getLogger(__name__)

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


def member_of(instance: ModelInstance, timeout_ms: int) -> str:
    """The instance's member among the deadlines, as this process believes it to be."""
    return (
        f"{identity_text(instance.identity)}:{timeout_ms}:{instance.incarnation or ''}"
    )


@dataclass(frozen=True, slots=True)
class Row:
    """A row, split into its parts and otherwise raw.

    Attributes:
        identity: ``model:host:port``, escaped.
        state: ``1``, ``protected``, ``overdue``, ``expired`` or ``deregistered``.
        since_us: When that began, µs by Redis's clock (text).
        spec: msgpack.
    """

    identity: str
    enabled: str
    check: str
    timeout_ms: str
    incarnation: str
    state: str
    revision: str
    since_us: str
    beat_us: str
    spec: bytes

    def instance(self) -> ModelInstance:
        """Decode and validate.

        Raises:
            FormatMismatch: The spec was written by a newer release.
            ValueError: Something else about it is wrong.
        """
        model_name, host, port = identity_of(self.identity)
        state = _STATES[self.state]
        fields: dict[str, Any] = {
            "model_name": model_name,
            "host": host,
            "port": port,
            "enabled": self.enabled == "1",
            "check_healthy": self.check == "1",
            "healthy": state in _SERVED,
            "state": state,
            "incarnation": self.incarnation or None,
            "heartbeat_timeout_secs": int(self.timeout_ms) / 1000,
            "revision": int(self.revision),
            "last_heartbeat": EPOCH + timedelta(microseconds=int(self.beat_us))
            if self.beat_us
            else None,
        }
        fields.update(_decode_spec(self.spec))
        return ModelInstance.model_validate(fields)


def _decode_spec(spec: bytes) -> dict[str, Any]:
    version, fields = _unpack(spec)
    if version != FORMAT:
        msg = (
            f"a record is of format {version}, this release reads format {FORMAT}: "
            "upgrade redis_registry here"
        )
        raise FormatMismatch(msg)
    return {name: fields[short] for name, short in _SHORT.items() if short in fields}


def split_row(raw: bytes) -> Row:
    """Split a raw row.

    Raises:
        ValueError: It has too few parts, or its text is not UTF-8.
    """
    *texts, spec = raw.split(b"|", _TEXTS)
    if len(texts) != _TEXTS:
        msg = f"a row of {len(texts) + 1} parts instead of 10"
        raise ValueError(msg)
    return Row(*(text.decode() for text in texts), spec=spec)


def decode_rows(rows: Iterable[bytes]) -> list[ModelInstance]:
    """Decode many rows; one that can't be read is left out and reported, not fatal.

    Raises:
        FormatMismatch: A record was written by a newer release.
    """
    found: list[ModelInstance] = []
    for raw in rows:
        try:
            found.append(split_row(raw).instance())
        except FormatMismatch:
            raise
        except (
            ValueError,
            KeyError,
            TypeError,
            OverflowError,
            msgpack.UnpackException,
        ):
            _log.warning(
                "record unreadable, left out of the answer: deregister it with "
                "remove_from_registry=True, or let it register again",
                extra={"row": raw[:120].decode(errors="backslashreplace")},
                exc_info=True,
            )
    return found

"""A call is data: script, keys, arguments, how to read the reply; an operation yields calls.

An :data:`Operation` is a generator that yields the calls it wants made (those of one list may
go out together) and returns the result. The async and the sync executor run the same ones, so
nothing is written twice, and an operation can be tested without any I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from redis_registry.errors import PartitionMismatch
from redis_registry.model import ModelInstance
from redis_registry.settings import RegistrySettings
from redis_registry.store.scripts import Script, load
from redis_registry.telemetry import DEAF, Telemetry
from redis_registry.wire.codec import FORMAT
from redis_registry.wire.keys import PartitionKeys, partition_of

__all__ = [
    "Call",
    "Calls",
    "Command",
    "Operation",
    "ask",
    "chunks",
    "micros",
    "text",
    "texts",
]

T = TypeVar("T")
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One script call on one partition.

    Attributes:
        script: What to run.
        keys: Its keys, all of one hash tag.
        args: Its arguments, header and actor included.
        read: Makes the result of the raw reply.
        lane: Which connections it may use; heartbeats have their own.
    """

    script: Script
    keys: Sequence[str]
    args: Sequence[str | bytes]
    read: Callable[[Any], T]
    lane: Literal["call", "beat"] = "call"

    @property
    def name(self) -> str:
        """What to call it in a message."""
        return self.script.name


@dataclass(frozen=True, slots=True)
class Command(Generic[T]):
    """A plain command, for what a script can't do, or needn't: wait for news, look back.

    One that only reads and doesn't wait may be part of an operation, and is repeated as a call is.

    Attributes:
        words: The command and its arguments; the executor adds ``BLOCK`` after the first one.
        keys: Its keys among them.
        read: Makes the result of the raw reply.
        wait_secs: How long the server may take over it.
        lane: Which connections it takes as part of an operation.
    """

    words: Sequence[str | int]
    keys: Sequence[str]
    read: Callable[[Any], T]
    wait_secs: float = 0.0
    lane: Literal["call"] = "call"

    @property
    def name(self) -> str:
        """What to call it in a message."""
        return str(self.words[0]).lower()


Operation = Generator[Sequence[Call[Any] | Command[Any]], Sequence[Any], T]


def ask(call: Call[T] | Command[T]) -> Operation[T]:
    """An operation of one call."""
    (reply,) = yield [call]
    return reply


def chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """``items`` in pieces of at most ``size``."""
    for first in range(0, len(items), size):
        yield items[first : first + size]


def text(raw: bytes) -> str:
    """A reply that is text."""
    return raw.decode()


def texts(raw: Sequence[bytes]) -> list[str]:
    """A reply that is a list of texts."""
    return [item.decode() for item in raw]


def micros(secs: float) -> str:
    """Seconds as microseconds, for a script."""
    return str(round(secs * 1_000_000))


class Calls:
    """What every operation is made of: a namespace's keys and how its scripts are called.

    Args:
        settings: How the registry behaves.
        actor: Who acts, for the events.
        telemetry: Who is told of records that can't be read.
    """

    def __init__(
        self, settings: RegistrySettings, *, actor: str, telemetry: Telemetry = DEAF
    ) -> None:
        self.settings = settings
        self.actor = actor
        self.telemetry = telemetry
        self._open(None)
        self._keys: dict[int, PartitionKeys] = {}
        self._default_timeout_ms = round(settings.heartbeat_timeout_secs * 1000)
        outliers = settings.outliers
        self._flap_rules = ""
        if outliers.enabled and outliers.flap_damping:
            self._flap_rules = (
                f"{outliers.flap_suppress}|{outliers.flap_reuse}|"
                f"{micros(outliers.flap_half_life_secs)}"
            )

    def keys(self, partition: int) -> PartitionKeys:
        """The keys of a partition."""
        found = self._keys.get(partition)
        if found is None:
            found = PartitionKeys.of(
                self.settings.prefix, self.settings.namespace, partition
            )
            self._keys[partition] = found
        return found

    def _open(self, partitions: int | None) -> None:
        """Fix what every call begins with; ``None``: not joined yet."""
        settings = self.settings
        self.partitions = partitions
        self._header = (
            f"{FORMAT}|{partitions or 0}|{micros(settings.gap)}|"
            f"{micros(settings.heartbeat_timeout_secs)}|{settings.events_kept}"
        )

    def _call(
        self,
        name: str,
        partition: int,
        args: Sequence[str | bytes],
        read: Callable[[Any], T],
        *,
        more: Sequence[str] = (),
        lane: Literal["call", "beat"] = "call",
        **special: str,
    ) -> Call[T]:
        """Bind a script to a partition; ``special`` are keys that exist more than once."""
        script, keys = load(name), self.keys(partition)
        script.check(special, len(more), args)
        named = [special.get(key) or keys.named(key) for key in script.keys]
        return Call(
            script, [*named, *more], [self._header, self.actor, *args], read, lane
        )

    def _join(self) -> Operation[int]:
        """Learn, or record, the number of partitions; the first call of all."""
        if self.partitions is None:
            wanted = self.settings.partitions
            recorded = yield from ask(self._call("join", 0, [str(wanted or 1)], int))
            if wanted is not None and recorded != wanted:
                msg = (
                    f"namespace {self.settings.namespace!r} has {recorded} partitions on record, "
                    f"not {wanted}: leave partitions unset to adopt that, or use another namespace"
                )
                raise PartitionMismatch(msg, recorded)
            self._open(recorded)
            return recorded
        return self.partitions

    def _home(self, instance: ModelInstance) -> Operation[int]:
        partitions = yield from self._join()
        return partition_of(instance.model_name, partitions)

    def flapping(self, keys: PartitionKeys) -> tuple[str, str, str]:
        """What ``count_flap`` of lib/out.lua goes by."""
        return (
            self._flap_rules,
            str(self.settings.outliers.max_ejected_share),
            keys.base,
        )

    def timeout_ms(self, instance: ModelInstance) -> int:
        """The silence, in ms, after which this instance is dead."""
        own = instance.heartbeat_timeout_secs
        return self._default_timeout_ms if own is None else round(own * 1000)

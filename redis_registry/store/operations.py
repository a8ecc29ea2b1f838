"""Every operation of the registry as data: script, keys, arguments, how to read the reply.

An :data:`Operation` is a generator that yields the calls it wants made (those of one list may
go out together) and returns the result. The async and the sync executor run the same ones, so
nothing is written twice, and an operation can be tested without any I/O.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from operator import itemgetter
from typing import Any, Generic, Literal, TypeVar

from redis_registry.errors import PartitionMismatch, Superseded
from redis_registry.model import ModelInstance
from redis_registry.settings import RegistrySettings
from redis_registry.store.replies import Status, Sweep, read_status, read_sweep
from redis_registry.store.scripts import Script, load
from redis_registry.wire.codec import FORMAT, decode_rows, encode_spec, member_of
from redis_registry.wire.keys import (
    PartitionKeys,
    address_of,
    escape,
    identity_text,
    partition_of,
)

__all__ = ["Beat", "Call", "Operation", "Operations", "Term"]

T = TypeVar("T")
Item = TypeVar("Item")

READ_PAGE = 1000
"""Instances per read call: about 3 ms of Redis's time."""

BEAT_CHUNK = 1000
"""Heartbeats per call: about 1 ms of Redis's time."""

SWEEP_PAGE = 1000
"""Overdue instances listed per call."""

REVIVE_CHUNK = 250
MOST_BELIEFS = 200_000
"""Bound of how many instances' members a process remembers."""

SAMPLE = 32
"""How many instances of a model a select looks at before it reads them all."""


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


_Key = tuple[str, str, int, str | None, float | None]
_fields = itemgetter(
    "model_name", "host", "port", "incarnation", "heartbeat_timeout_secs"
)
_Belief = tuple[int, str]
"""Timeout in ms and member among the deadlines, as this process believes them to be."""

Operation = Generator[Sequence[Call[Any]], Sequence[Any], T]


def _key(instance: ModelInstance) -> _Key:
    """What an instance's member among the deadlines depends on."""
    return _fields(
        instance.__dict__
    )  # a quarter cheaper than its attributes one by one


def ask(call: Call[T]) -> Operation[T]:
    """An operation of one call."""
    (reply,) = yield [call]
    return reply


class Beat(Enum):
    """How a heartbeat was answered."""

    TAKEN = "taken"
    UNKNOWN = "unknown"
    SUPERSEDED = "superseded"


@dataclass(frozen=True, slots=True)
class Term:
    """One holding of one partition's lease.

    Attributes:
        partition: Which partition.
        holder: Who holds it.
        token: Its fencing number, unique within the epoch.
        epoch: The epoch that the token belongs to.
    """

    partition: int
    holder: str
    token: int
    epoch: str


def _chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]


def _text(raw: bytes) -> str:
    return raw.decode()


def _micros(secs: float) -> str:
    return str(round(secs * 1_000_000))


class Operations:
    """The registry's operations for one namespace.

    Args:
        settings: How the registry behaves.
        actor: Who acts, for the events.
    """

    def __init__(self, settings: RegistrySettings, *, actor: str) -> None:
        self.settings = settings
        self.actor = actor
        self._open(None)
        self._keys: dict[int, PartitionKeys] = {}
        self._default_timeout_ms = round(settings.heartbeat_timeout_secs * 1000)
        self._beliefs: dict[_Key, _Belief] = {}

    # --- calls -----------------------------------------------------------------------------

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
            f"{FORMAT}|{partitions or 0}|{_micros(settings.gap)}|"
            f"{_micros(settings.heartbeat_timeout_secs)}|{settings.events_kept}"
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

    def timeout_ms(self, instance: ModelInstance) -> int:
        """The silence, in ms, after which this instance is dead."""
        own = instance.heartbeat_timeout_secs
        return self._default_timeout_ms if own is None else round(own * 1000)

    # --- writers ---------------------------------------------------------------------------

    def _register(
        self, partition: int, instance: ModelInstance, mode: str
    ) -> Call[int]:
        identity = identity_text(instance.identity)
        model = escape(instance.model_name)
        keys = self.keys(partition)
        return self._call(
            "register",
            partition,
            [
                identity,
                model,
                address_of(instance.identity),
                "1" if instance.enabled else "0",
                "1" if instance.check_healthy else "0",
                str(self.timeout_ms(instance)),
                instance.incarnation or "",
                encode_spec(instance),
                mode,
            ],
            lambda reply: int(reply[0]),
            index=keys.index(model),
            instance=keys.instance(identity),
        )

    def register(self, instance: ModelInstance) -> Operation[int]:
        """Register, revive or update; the revision of the record."""
        partition = yield from self._home(instance)
        self._beliefs.pop(_key(instance), None)
        return (yield from ask(self._register(partition, instance, "register")))

    def deregister(self, instance: ModelInstance, *, remove: bool) -> Operation[int]:
        """Make unhealthy, or remove; the revision, or 0 when there was nothing to change.

        Raises:
            Superseded: A newer incarnation lives there; nothing was changed.
        """
        partition = yield from self._home(instance)
        identity = identity_text(instance.identity)
        model = escape(instance.model_name)
        keys = self.keys(partition)
        revision = yield from ask(
            self._call(
                "deregister",
                partition,
                [
                    identity,
                    model,
                    address_of(instance.identity),
                    instance.incarnation or "",
                    "1" if remove else "0",
                ],
                int,
                index=keys.index(model),
                instance=keys.instance(identity),
            )
        )
        if revision < 0:
            raise superseded(instance)
        return revision

    def heartbeats(self, instances: Sequence[ModelInstance]) -> Operation[list[Beat]]:
        """Move many deadlines; unknown instances are registered with all they carry.

        One call a partition and 1,000 instances; those that missed take a second one.
        """
        partitions = yield from self._join()
        known = self._beliefs.get
        beliefs = [
            known(_fields(instance.__dict__)) or self._believe(instance)
            for instance in instances
        ]
        calls = [
            self._beat(home, chunk)
            for home, group in _by_home(partitions, instances, beliefs).items()
            for chunk in _chunks(group, BEAT_CHUNK)
        ]
        outcomes = [Beat.TAKEN] * len(instances)
        missed = {member for reply in (yield calls) for member in reply}
        if missed:
            late = [i for i, (_, member) in enumerate(beliefs) if member in missed]
            members = [member for _, member in beliefs]
            yield from self._revive(instances, members, late, partitions, outcomes)
        return outcomes

    def _believe(self, instance: ModelInstance, tail: str | None = None) -> _Belief:
        """Remember an instance's member: what we would make it, or what Redis has on record."""
        if len(self._beliefs) >= MOST_BELIEFS:  # what is lost is learned again
            self._beliefs.clear()
        if tail is None:
            timeout = self.timeout_ms(instance)
            belief = timeout, member_of(instance, timeout)
        else:
            identity = identity_text(instance.identity)
            belief = int(tail.split(":")[0]), f"{identity}:{tail}"
        self._beliefs[_key(instance)] = belief
        return belief

    def _beat(self, partition: int, beliefs: Sequence[_Belief]) -> Call[list[str]]:
        groups: dict[int, list[str]] = defaultdict(list)
        for timeout, member in beliefs:
            groups[timeout].append(member)
        args: list[str] = []
        for timeout, members in groups.items():
            args += (str(timeout), str(len(members)), *members)
        return self._call(
            "heartbeat",
            partition,
            args,
            lambda reply: [_text(member) for member in reply],
            lane="beat",
        )

    def _revive(
        self,
        instances: Sequence[ModelInstance],
        members: Sequence[str],
        late: Sequence[int],
        partitions: int,
        outcomes: list[Beat],
    ) -> Operation[None]:
        """What became of the heartbeats that missed; fills ``outcomes``."""
        homes: dict[int, list[int]] = defaultdict(list)
        for place in late:
            homes[partition_of(instances[place].model_name, partitions)].append(place)
        for home, places in homes.items():
            keys = self.keys(home)
            unknown: list[int] = []
            for chunk in _chunks(places, REVIVE_CHUNK):
                identities = [identity_text(instances[i].identity) for i in chunk]
                tails = yield from ask(
                    self._call(
                        "revive",
                        home,
                        [members[i] for i in chunk],
                        lambda reply: [_text(tail) for tail in reply],
                        more=[keys.instance(identity) for identity in identities],
                        lane="beat",
                    )
                )
                for place, tail in zip(chunk, tails, strict=True):
                    if tail == "unknown":
                        self._believe(instances[place])
                        unknown.append(place)
                    elif tail == "superseded":
                        outcomes[place] = Beat.SUPERSEDED
                    else:
                        self._believe(instances[place], tail)
            for chunk in _chunks(unknown, REVIVE_CHUNK):
                yield [self._register(home, instances[i], "absent") for i in chunk]

    # --- readers ---------------------------------------------------------------------------

    def _read(
        self,
        partition: int,
        model: str,
        *,
        healthy_only: bool,
        after: tuple[bytes, bytes] = (b"0", b"0"),
        sample: int = 0,
    ) -> Call[list[Any]]:
        keys = self.keys(partition)
        return self._call(
            "read",
            partition,
            [
                keys.base,
                model,
                "1" if healthy_only else "0",
                after[0],
                after[1],
                str(READ_PAGE),
                str(sample),
            ],
            list,
        )

    def read(
        self, model_name: str | None, *, healthy_only: bool
    ) -> Operation[list[ModelInstance]]:
        """All instances of one model, or of all, in order of registration, page by page."""
        partitions = yield from self._join()
        if model_name is None:
            model, homes = "", range(partitions)
        else:
            model, homes = escape(model_name), [partition_of(model_name, partitions)]
        found: list[ModelInstance] = []
        asked = dict.fromkeys(homes, (b"0", b"0"))
        while asked:
            replies = yield [
                self._read(home, model, healthy_only=healthy_only, after=after)
                for home, after in asked.items()
            ]
            further: dict[int, tuple[bytes, bytes]] = {}
            for home, reply in zip(asked, replies, strict=True):
                found.extend(decode_rows(reply[5:]))
                if reply[0]:
                    further[home] = (reply[1], reply[2])
            asked = further
        return found

    def sample(self, model_name: str) -> Operation[list[ModelInstance]]:
        """Up to 32 healthy instances of a model, drawn at random: enough for most selects."""
        partitions = yield from self._join()
        reply = yield from ask(
            self._read(
                partition_of(model_name, partitions),
                escape(model_name),
                healthy_only=True,
                sample=SAMPLE,
            )
        )
        return decode_rows(reply[5:])

    def status(self) -> Operation[list[Status]]:
        """What each partition knows of itself."""
        partitions = yield from self._join()
        replies = yield [
            self._call("status", home, [], read_status) for home in range(partitions)
        ]
        return list(replies)

    # --- the checker's ---------------------------------------------------------------------

    def sweep(
        self, partition: int, holder: str, offsets: Sequence[int] = (0,)
    ) -> Operation[Sequence[Sweep]]:
        """Take or renew the lease and learn what is overdue: a page of 1,000 from each offset."""
        yield from self._join()
        forget = self.settings.forget_after_secs
        return (
            yield [
                self._call(
                    "sweep",
                    partition,
                    [
                        holder,
                        _micros(self.settings.lease_ttl),
                        str(offset),
                        str(SWEEP_PAGE),
                        "-1" if forget is None else _micros(forget),
                    ],
                    read_sweep,
                )
                for offset in offsets
            ]
        )

    def _termed(self, term: Term) -> list[str | bytes]:
        return [term.holder, str(term.token), term.epoch]

    def flip(
        self, term: Term, members: Sequence[str], scopes: dict[str, int]
    ) -> Operation[str]:
        """Flip what is still overdue; one letter a member: flipped, held, living, orphan."""
        settings, keys = self.settings, self.keys(term.partition)
        guard = ""
        if settings.guard.enabled:
            guard = "|".join(
                (
                    str(settings.guard.share),
                    str(settings.guard.min_instances),
                    _micros(settings.guard_window),
                    str(settings.guard.budget_share),
                    _micros(settings.guard_max_hold),
                )
            )
        return (
            yield from ask(
                self._call(
                    "flip",
                    term.partition,
                    [
                        *self._termed(term),
                        guard,
                        json.dumps(list(scopes.items()), ensure_ascii=False),
                        *members,
                    ],
                    _text,
                    more=[keys.instance(m.rsplit(":", 2)[0]) for m in members],
                )
            )
        )

    def forget(self, term: Term, identities: Sequence[str]) -> Operation[int]:
        """Forget instances that have been unhealthy for long enough; how many."""
        keys = self.keys(term.partition)
        more: list[str] = []
        for identity in identities:
            more += [keys.index(identity.split(":", 1)[0]), keys.instance(identity)]
        after = _micros(self.settings.forget_after_secs or 0)
        return (
            yield from ask(
                self._call(
                    "forget",
                    term.partition,
                    [*self._termed(term), after, *identities],
                    int,
                    more=more,
                )
            )
        )

    def rebase(self, term: Term, rank: int) -> Operation[int]:
        """Mend deadlines that a clock set back left too far away; where to go on, or -1."""
        return (
            yield from ask(
                self._call(
                    "rebase",
                    term.partition,
                    [*self._termed(term), str(rank), "500"],
                    int,
                )
            )
        )

    def release(self, term: Term) -> Operation[int]:
        """Give the lease back."""
        return (
            yield from ask(
                self._call("release", term.partition, self._termed(term), int)
            )
        )


def _by_home(
    partitions: int, instances: Sequence[ModelInstance], beliefs: Sequence[_Belief]
) -> dict[int, Sequence[_Belief]]:
    """Beliefs by the partition they live in."""
    if partitions == 1:
        return {0: beliefs}
    homes: dict[int, list[_Belief]] = defaultdict(list)
    for instance, belief in zip(instances, beliefs, strict=True):
        homes[partition_of(instance.model_name, partitions)].append(belief)
    return dict(homes)


def superseded(instance: ModelInstance) -> Superseded:
    """The error for a call of an incarnation that has been replaced."""
    return Superseded(
        f"{instance.identity}: incarnation {instance.incarnation} has been superseded by a newer "
        "one at the same address; this process must stop claiming it"
    )

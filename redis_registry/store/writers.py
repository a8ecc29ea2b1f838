"""What workers do: register, beat, report, get ready, deregister."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from operator import itemgetter

from redis_registry.model import (
    MAX_REASON,
    Beat,
    Load,
    ModelInstance,
    Readiness,
    superseded,
)
from redis_registry.settings import RegistrySettings
from redis_registry.store.calls import Call, Calls, Operation, ask, chunks, text, texts
from redis_registry.telemetry import DEAF, Telemetry
from redis_registry.wire.codec import (
    READINESS,
    encode_load,
    encode_spec,
    member_of,
)
from redis_registry.wire.keys import address_of, escape, identity_text, partition_of

__all__ = ["UNKNOWN", "Writers"]

BEAT_CHUNK = 1000
"""Heartbeats per call: about 1 ms of Redis's time."""

REVIVE_CHUNK = 250
MOST_BELIEFS = 200_000
"""Bound of how many instances' members a process remembers."""

UNKNOWN = -2
"""Instead of a revision: the registry has no such instance."""

_Key = tuple[str, str, int, str | None, float | None]
_fields = itemgetter(
    "model_name", "host", "port", "incarnation", "heartbeat_timeout_secs"
)
_Belief = tuple[int, str]
"""Timeout in ms and member among the deadlines, as this process believes them to be."""


def _key(instance: ModelInstance) -> _Key:
    """What an instance's member among the deadlines depends on."""
    return _fields(
        instance.__dict__
    )  # a quarter cheaper than its attributes one by one


class Writers(Calls):
    """Operations of workers."""

    def __init__(
        self, settings: RegistrySettings, *, actor: str, telemetry: Telemetry = DEAF
    ) -> None:
        super().__init__(settings, actor=actor, telemetry=telemetry)
        self._beliefs: dict[_Key, _Belief] = {}
        self._epochs: dict[_Key, str] = {}  # in which each was registered

    def _register(
        self, partition: int, instance: ModelInstance, mode: str, order: int = 0
    ) -> Call[tuple[int, str]]:
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
                READINESS[instance.readiness],
                str(self.timeout_ms(instance)),
                instance.incarnation or "",
                encode_spec(instance),
                escape(instance.reason or ""),
                str(order),
                mode,
                *self.flapping(keys),
                "|".join(map(escape, instance.serves)),
            ],
            lambda reply: (int(reply[0]), text(reply[1 if reply[0] < 0 else 2])),
            index=keys.index(model),
            instance=keys.instance(identity),
        )

    def register(self, instance: ModelInstance, order: int = 0) -> Operation[int]:
        """Register, revive or update; the revision of the record. ``order``: see :meth:`ready`.

        Raises:
            Superseded: A newer incarnation lives there, or this one has said goodbye.
        """
        partition = yield from self._home(instance)
        self._beliefs.pop(_key(instance), None)
        revision, told = yield from ask(
            self._register(partition, instance, "register", order)
        )
        if revision < 0:
            raise superseded(instance, told)
        self._note_epoch(instance, told)
        return revision

    def ready(
        self,
        instance: ModelInstance,
        readiness: Readiness,
        reason: str = "",
        order: int = 0,
    ) -> Operation[int]:
        """Say whether an instance wants work; the revision, 0: no change, or :data:`UNKNOWN`.

        A life may number what it says (``order``, from 1 on): what has a smaller number than
        what is on record came late, and changes nothing.

        Raises:
            Superseded: A newer incarnation lives there, or this one has said goodbye.
        """
        partition = yield from self._home(instance)
        identity = identity_text(instance.identity)
        revision = yield from ask(
            self._call(
                "ready",
                partition,
                [
                    identity,
                    instance.incarnation or "",
                    READINESS[readiness],
                    escape(reason[:MAX_REASON]),
                    readiness.value,
                    str(order),
                ],
                int,
                instance=self.keys(partition).instance(identity),
            )
        )
        if revision == -1:
            raise superseded(instance)
        return revision

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

    def heartbeats(
        self,
        instances: Sequence[ModelInstance],
        loads: Sequence[Load] = (),
        *,
        whole: bool = True,
        again: bool = False,
    ) -> Operation[list[Beat]]:
        """Move many deadlines; unknown instances are registered when they are ``whole``.

        One call a partition and 1,000 instances; those that missed take a second one. With
        ``loads``, one for each, the calls carry them, 250 at a time.

        With ``again`` those are to register again that did so in another epoch: Redis may have
        lost what they said last. The answers to calls with loads tell the epoch.
        """
        partitions = yield from self._join()
        known = self._beliefs.get
        beliefs = [
            known(_fields(instance.__dict__)) or self._believe(instance)
            for instance in instances
        ]
        epochs: dict[int, str] = {}
        if loads:
            calls = self._reports(partitions, instances, beliefs, loads, epochs)
        else:
            calls = [
                self._beat(home, chunk)
                for home, group in _by_home(partitions, instances, beliefs).items()
                for chunk in chunks(group, BEAT_CHUNK)
            ]
        outcomes = [Beat.TAKEN] * len(instances)
        missed = {member for reply in (yield calls) for member in reply}
        if missed:
            late = [i for i, (_, member) in enumerate(beliefs) if member in missed]
            yield from self._revive(instances, late, partitions, outcomes, whole=whole)
        if again:
            for place, epoch in epochs.items():
                if outcomes[place] is Beat.TAKEN and self._elsewhen(
                    instances[place], epoch
                ):
                    outcomes[place] = Beat.REREGISTER
        return outcomes

    def _elsewhen(self, instance: ModelInstance, epoch: str) -> bool:
        """Whether it was registered, or first heard of here, in another epoch than this."""
        known = self._epochs.get(_key(instance))
        if known is None:
            self._note_epoch(instance, epoch)
        return known not in {None, epoch}

    def _note_epoch(self, instance: ModelInstance, epoch: str) -> None:
        if len(self._epochs) >= MOST_BELIEFS:
            self._epochs.clear()
        self._epochs[_key(instance)] = epoch

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
            texts,
            lane="beat",
        )

    def _reports(
        self,
        partitions: int,
        instances: Sequence[ModelInstance],
        beliefs: Sequence[_Belief],
        loads: Sequence[Load],
        epochs: dict[int, str],
    ) -> list[Call[list[str]]]:
        """Heartbeats with loads; their answers fill ``epochs``, by the instance's place."""

        def read(reply: Sequence[bytes], chunk: Sequence[int]) -> list[str]:
            epoch, *missed = texts(reply)
            epochs.update(dict.fromkeys(chunk, epoch))
            return missed

        homes: dict[int, list[int]] = defaultdict(list)
        for place, instance in enumerate(instances):
            homes[partition_of(instance.model_name, partitions)].append(place)
        calls: list[Call[list[str]]] = []
        for home, places in homes.items():
            for chunk in chunks(places, REVIVE_CHUNK):
                args: list[str] = []
                keys: list[str] = []
                for i in chunk:
                    timeout, member = beliefs[i]
                    args += (str(timeout), member, encode_load(loads[i]))
                    identity = identity_text(instances[i].identity)
                    keys.append(self.keys(home).instance(identity))
                calls.append(
                    self._call(
                        "report",
                        home,
                        args,
                        partial(read, chunk=chunk),
                        more=keys,
                        lane="beat",
                    )
                )
        return calls

    def _revive(
        self,
        instances: Sequence[ModelInstance],
        late: Sequence[int],
        partitions: int,
        outcomes: list[Beat],
        *,
        whole: bool,
    ) -> Operation[None]:
        """What became of the heartbeats that missed; fills ``outcomes``."""
        homes: dict[int, list[int]] = defaultdict(list)
        for place in late:
            homes[partition_of(instances[place].model_name, partitions)].append(place)
        for home, places in homes.items():
            keys = self.keys(home)
            unknown: list[int] = []
            for chunk in chunks(places, REVIVE_CHUNK):
                identities = [identity_text(instances[i].identity) for i in chunk]
                tails = yield from ask(
                    self._call(
                        "revive",
                        home,
                        [
                            *self.flapping(keys),
                            *(
                                f"{identity}:{instances[i].incarnation or ''}"
                                for i, identity in zip(chunk, identities, strict=True)
                            ),
                        ],
                        texts,
                        more=[keys.instance(identity) for identity in identities],
                        lane="beat",
                    )
                )
                for place, tail in zip(chunk, tails, strict=True):
                    if tail == "superseded":
                        outcomes[place] = Beat.SUPERSEDED
                        continue
                    known = tail != "unknown"
                    self._believe(instances[place], tail if known else None)
                    if not known:
                        outcomes[place] = Beat.REREGISTER
                        unknown.append(place)
            if whole:
                yield from self._register_absent(home, instances, unknown, outcomes)

    def _register_absent(
        self,
        home: int,
        instances: Sequence[ModelInstance],
        unknown: Sequence[int],
        outcomes: list[Beat],
    ) -> Operation[None]:
        for chunk in chunks(unknown, REVIVE_CHUNK):
            revisions = yield [
                self._register(home, instances[i], "absent") for i in chunk
            ]
            for place, (revision, _) in zip(chunk, revisions, strict=True):
                outcomes[place] = Beat.SUPERSEDED if revision < 0 else Beat.TAKEN


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

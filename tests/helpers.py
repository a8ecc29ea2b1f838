"""What tests share: waiting for conditions, and looking into Redis behind the registry's back."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, cast

import redis
from redis.cluster import ClusterNode

from redis_registry import Event, FormatMismatch, Kind, ModelInstance
from redis_registry.core.events import decode_event
from redis_registry.settings import RegistrySettings
from redis_registry.topology import Host, Topology
from redis_registry.wire.codec import decode_spec
from redis_registry.wire.keys import (
    PartitionKeys,
    escape,
    identity_text,
    partition_of,
)

KNOWN = {
    "meta": "hash",
    "events": "stream",
    "lease": "hash",
    "deadlines": "zset",
    "down": "zset",
    "models": "zset",
    "living": "hash",
    "guard": "hash",
    "tally": "hash",
    "holders": "zset",
    "flights": "hash",
    "out": "zset",
    "served": "zset",
    "reports": "zset",
    "overrides": "hash",
    "aliases": "hash",
}


OPTIONAL = {b"why", b"load", b"out", b"flaps", b"calls", b"ejected", b"serves"}
"""Fields that only some records have."""

TIMES = {
    "meta": (
        "pulse",
        "swept",
        "recovery_from",
        "recovery_first",
        "recovery_at",
        "former_from",
        "former_at",
    ),
    "lease": ("until",),
}


FAR = 9e15
"""Any time later than this (µs) is as good as for ever."""


def connect(url: str) -> Any:
    """A plain client of what a URL names; untyped, for the driver's types are partly unknown.

    Behind Sentinel it is one of the server that is the master now.
    """
    topology = Topology.of(url)
    if topology.kind == "cluster":
        return _of_cluster(topology.hosts)
    driver: Any = redis
    if topology.kind == "sentinel":
        asked = driver.Sentinel(topology.hosts, sentinel_kwargs={"protocol": 2})
        host, port = asked.discover_master(topology.service)
        for sentinel in asked.sentinels:
            sentinel.close()
        url = f"redis://{host}:{port}/0"
    return driver.Redis.from_url(url, protocol=2)


def _of_cluster(hosts: Sequence[Host]) -> Any:
    """A client that asks all nodes what the driver's would ask one of them."""
    nodes = [ClusterNode(*host) for host in hosts]
    raw: Any = redis.RedisCluster(startup_nodes=nodes, protocol=2)
    for command in (
        *MERGED,
        "KEYS",
        "DBSIZE",
        "CONFIG SET",
        "CONFIG RESETSTAT",
        "ACL SETUSER",
    ):
        raw.command_flags[command] = raw.PRIMARIES
    raw.command_flags["CLIENT LIST"] = raw.ALL_NODES
    for command, merge in MERGED.items():
        raw.result_callbacks[command] = partial(_merged, merge)
    return raw


def _merged(
    merge: Callable[[list[Any]], Any], _: str, found: dict[str, Any], **__: Any
) -> Any:
    return merge(list(found.values()))


def _summed(found: list[Any]) -> Any:
    """Figures of several servers, added up; in dictionaries too."""
    if isinstance(found[0], dict):
        names = dict.fromkeys(name for part in found for name in part)
        return {n: _summed([part[n] for part in found if n in part]) for n in names}
    return sum(found) if isinstance(found[0], int | float) else found[0]


MERGED: dict[str, Callable[[list[Any]], Any]] = {
    "CLIENT LIST": lambda found: [client for part in found for client in part],
    "CLIENT KILL": sum,
    "INFO": _summed,
    "TIME": max,
}
"""How the answers of a Cluster's nodes become one."""


def wait_for(
    condition: Callable[[], object], what: str, *, within_secs: float = 5.0
) -> None:
    """Poll until ``condition`` holds."""
    until = time.monotonic() + within_secs
    while not condition():
        assert time.monotonic() < until, f"not within {within_secs:g} s: {what}"
        time.sleep(0.005)


async def until(
    condition: Callable[[], Awaitable[object]], what: str, *, within_secs: float = 5.0
) -> float:
    """Poll until ``condition`` holds; how long that took, in seconds."""
    start = time.monotonic()
    while not await condition():
        assert time.monotonic() < start + within_secs, (
            f"not within {within_secs:g} s: {what}"
        )
        await asyncio.sleep(0.005)
    return time.monotonic() - start


MODEL = "glm@llm"
"""The tests' usual model."""


def instance(port: int = 8001, model: str = MODEL, **more: Any) -> ModelInstance:
    """An instance of the tests' usual model."""
    return ModelInstance(model_name=model, host="10.0.0.1", port=port, **more)


def instances(count: int, model: str = MODEL, **more: Any) -> list[ModelInstance]:
    """Many of them, on ports from 1 up."""
    return [instance(port, model, **more) for port in range(1, count + 1)]


def _served_by(spec: bytes) -> list[str]:
    try:
        return decode_spec(spec).get("serves", [])
    except FormatMismatch:  # planted by a test
        return []


class Store:
    """One partition as Redis holds it; the check is of all.

    Args:
        raw: A client, from :func:`connect`.
        namespace: Which registry.
        partitions: How many there are; ``None``: as many as a registry makes by itself.
        home: Which one; ``None``: that of the tests' usual model.
    """

    def __init__(
        self,
        raw: Any,
        namespace: str = "default",
        *,
        partitions: int | None = None,
        home: int | None = None,
    ) -> None:
        self.raw = raw
        self.namespace = namespace
        self.partitions = partitions or RegistrySettings().partitions or 1
        self.home = partition_of(MODEL, self.partitions) if home is None else home
        self.base = PartitionKeys.of("rr", namespace, self.home).base

    def every(self) -> list[Store]:
        """All partitions, in order."""
        return [
            Store(self.raw, self.namespace, partitions=self.partitions, home=number)
            for number in range(self.partitions)
        ]

    def of(self, model: str) -> Store:
        """The partition of a model."""
        return self.every()[partition_of(model, self.partitions)]

    def key(self, name: str) -> str:
        return self.base + name

    def now_us(self) -> int:
        secs, micros = self.raw.time()
        return secs * 1_000_000 + micros

    def connections(self) -> list[dict[str, str]]:
        """Connections of registries, as the server sees them."""
        return [c for c in self.raw.client_list() if c["name"] == "redis-registry"]

    def hash(self, name: str) -> dict[str, str]:
        return _texts(self.raw.hgetall(self.key(name)))

    def record(self, item: ModelInstance) -> dict[bytes, bytes]:
        key = self.of(item.model_name).key("i:" + identity_text(item.identity))
        return self.raw.hgetall(key)

    def scores(self, name: str) -> dict[str, int]:
        return _scores(self.raw.zrange(self.key(name), 0, -1, withscores=True))

    def member(self, item: ModelInstance) -> str:
        identity = identity_text(item.identity) + ":"
        members = self.of(item.model_name).scores("deadlines")
        (found,) = [member for member in members if member.startswith(identity)]
        return found

    def silence(self, *items: ModelInstance, by_secs: float = 0.001) -> None:
        """Make instances overdue by moving their deadlines, not any clock."""
        past = self.now_us() - round(by_secs * 1_000_000)
        wanted = {identity_text(item.identity) for item in items}
        found = 0
        for part in self.every():
            members = [
                member
                for member in part.scores("deadlines")
                if member.rsplit(":", 2)[0] in wanted
            ]
            found += len(members)
            if members:
                silent = dict.fromkeys(members, past)
                self.raw.zadd(part.key("deadlines"), silent, xx=True)
        assert found == len(items)

    def age(self, secs: float, *, away: bool) -> None:
        """Move every stored time back, as if ``secs`` had passed.

        Args:
            secs: How long; negative: as if the server's clock had been put back.
            away: Nobody called the registry meanwhile; else its pulse is fresh.
        """
        for part in self.every():
            if self.raw.exists(part.key("meta")):
                part._age(round(secs * 1_000_000), away=away)

    def _age(self, micros: int, *, away: bool) -> None:
        for name in ("deadlines", "down", "holders"):
            aged = {m: score - micros for m, score in self.scores(name).items()}
            if aged:
                self.raw.zadd(self.key(name), aged)
        for name, fields in TIMES.items():
            for field in fields:
                value = self.raw.hget(self.key(name), field)
                if value not in (None, b"0"):
                    self.raw.hset(self.key(name), field, int(value) - micros)
        self._age_entries("guard", first=1, last=3, micros=micros)
        self._age_entries("tally", first=0, last=1, micros=micros)
        if not away:
            now = self.now_us()
            self.raw.hset(self.key("meta"), mapping={"pulse": now, "swept": now})

    def _age_entries(self, name: str, *, first: int, last: int, micros: int) -> None:
        """Move the times among the ``|``-separated parts of a hash's values."""
        for scope, entry in self.hash(name).items():
            parts = entry.split("|")
            parts[first:last] = [str(int(part) - micros) for part in parts[first:last]]
            self.raw.hset(self.key(name), scope, "|".join(parts))

    def events(self, *kinds: Kind) -> list[Event]:
        """All events, or those of some kinds, in order."""
        entries = self.raw.xrange(self.key("events"))
        found = [decode_event(entry, fields) for entry, fields in entries]
        return [event for event in found if not kinds or event.kind in kinds]

    def kinds(self, item: ModelInstance) -> list[str]:
        """The kinds of an instance's events, in order."""
        subject, events = (
            identity_text(item.identity),
            self.of(item.model_name).events(),
        )
        return [str(event.kind) for event in events if event.subject == subject]

    # --- the invariant -----------------------------------------------------------------------

    def check(self) -> None:
        """Hash, index, deadline, counters and events agree; nothing else is there."""
        keys = [key.decode() for key in self.raw.keys("*")]
        parts: dict[str, dict[str, Any]] = {}
        for key, value in self._all(keys):
            base, _, name = key.partition("}:")
            parts.setdefault(base + "}:", {})[name] = value
        mine = self.base.partition("/")[0]
        strange = {base for base in parts if base.partition("/")[0] != mine}
        assert not strange, f"keys outside the keyspace: {strange}"
        for found in parts.values():
            Contents(found).check()

    def _all(self, keys: list[str]) -> list[tuple[str, Any]]:
        """The values of keys, in two round trips: machines check after every step."""
        pipe = self.raw.pipeline(transaction=False)
        for key in keys:
            pipe.type(key)
        for key, kind in zip(keys, pipe.execute(), strict=True):
            name = key.partition("}:")[2]
            wanted = "hash" if name[:2] in {"i:", "h:"} else KNOWN.get(name)
            wanted = "zset" if name[:2] == "m:" else wanted
            assert wanted == kind.decode(), f"unknown key {key} of type {kind}"
            match wanted:
                case "hash":
                    pipe.hgetall(key)
                case "zset":
                    pipe.zrange(key, 0, -1, withscores=True)
                case _:
                    pipe.xrange(key)
        return list(zip(keys, pipe.execute(), strict=True))


def _texts(found: dict[bytes, bytes]) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in found.items()}


def _scores(found: list[tuple[bytes, float]]) -> dict[str, int]:
    return {member.decode(): int(min(score, FAR)) for member, score in found}


class Contents:
    """All that one partition holds.

    Args:
        found: The values as the driver gives them, by name.
    """

    def __init__(self, found: dict[str, Any]) -> None:
        self.found = found

    def hash(self, name: str) -> dict[str, str]:
        return _texts(self.found.get(name, {}))

    def scores(self, name: str) -> dict[str, int]:
        return _scores(self.found.get(name, []))

    def check(self) -> None:
        """All of it agrees."""
        records: dict[str, dict[str, str]] = {}
        indexed: set[str] = set()
        held: dict[str, list[str]] = {}
        for name in self.found:
            if name.startswith("i:"):
                records[name[2:]] = self._text_record(name)
            elif name.startswith("h:"):
                held[name[2:]] = self._held(name)
            elif name.startswith("m:"):
                indexed |= {f"{name[2:]}:{member}" for member in self.scores(name)}
        assert set(records) == indexed, "hash <=> index"
        self._check_sets(records)
        self._check_reservations(set(records), held)
        self._check_events()

    def _text_record(self, name: str) -> dict[str, str]:
        """A record's terms and life, taken apart."""
        fields = cast("dict[bytes, bytes]", self.found[name])
        assert set(fields) - OPTIONAL == {
            b"terms",
            b"life",
            b"spec",
        }, f"half a record: {name}"
        flags, tail = fields[b"terms"].decode().split("|")
        health = fields[b"life"].decode().split("|")[0]
        out = fields.get(b"out", b"").decode()
        serves = fields.get(b"serves", b"").decode()
        said = _served_by(fields[b"spec"])
        assert serves == "|".join(map(escape, said)), "serves <=> spec"
        return {
            "check": flags[1],
            "tail": tail,
            "health": health,
            "out": out,
            "serves": serves,
        }

    def _check_sets(self, records: dict[str, dict[str, str]]) -> None:
        living = {
            f"{identity}:{record['tail']}"
            for identity, record in records.items()
            if record["health"] == "1" and record["check"] == "1"
        }
        assert set(self.scores("deadlines")) == living, "hash <=> deadline"
        down = {i for i, record in records.items() if record["health"] != "1"}
        assert set(self.scores("down")) == down, "hash <=> down"
        out = {identity for identity, record in records.items() if record["out"]}
        assert set(self.scores("out")) == out, "hash <=> out"
        served = {
            f"{name}|{identity}"
            for identity, record in records.items()
            for name in record["serves"].split("|")
            if name
        }
        assert set(self.scores("served")) == served, "hash <=> served"
        counted = Counter(member.split(":", 1)[0] for member in living)
        assert self.hash("living") == {m: str(n) for m, n in counted.items()}
        models = {identity.split(":", 1)[0] for identity in records}
        assert set(self.scores("models")) == models, "hash <=> models"

    def _held(self, name: str) -> list[str]:
        """The identities that a holder holds, one for each reservation."""
        return [value.rsplit("|", 1)[0] for value in self.hash(name).values()]

    def _check_reservations(self, known: set[str], held: dict[str, list[str]]) -> None:
        assert set(held) == set(self.scores("holders")), "held <=> holders"
        counts = {
            identity: int(entry.split(":")[0])
            for identity, entry in self.hash("flights").items()
        }
        total = Counter(identity for holding in held.values() for identity in holding)
        assert {i: n for i, n in counts.items() if n} == total, "held <=> flights"
        assert {i for i, n in counts.items() if not n} <= known, "flights of nobody"

    def _check_events(self) -> None:
        entries = cast("list[Any]", self.found.get("events"))
        if not entries:
            return
        numbers = [int(re.split(rb"-", entry)[0]) for entry, _ in entries]
        for number, following, (entry, fields) in zip(
            numbers, numbers[1:], entries[1:], strict=False
        ):
            # Where a place was lost, one revision without an event makes all read anew.
            told = decode_event(entry, fields).cause.endswith(
                ("place lost", "model lost")
            )
            assert following - number in (1, 1 + told), "revisions have gaps"
        assert numbers[-1] == int(self.hash("meta")["rev"]), "revision <=> last event"
        alive: dict[str, bool] = {}
        for entry, fields in entries:
            event = decode_event(entry, fields)
            if event.kind in (Kind.UNHEALTHY, Kind.DEREGISTERED):
                goodbye = event.kind is Kind.DEREGISTERED and event.instance
                fresh = alive.get(event.subject, True)
                assert fresh or (goodbye and goodbye.incarnation), (
                    f"two deaths in a row: {event}"
                )
                alive[event.subject] = False
            elif event.kind in (Kind.HEALTHY, Kind.REGISTERED):
                dead = not alive.get(event.subject, False)
                assert dead or event.kind is Kind.REGISTERED, f"two lives: {event}"
                alive[event.subject] = True
            elif event.kind in (Kind.REMOVED, Kind.FORGOTTEN):
                alive.pop(event.subject, None)

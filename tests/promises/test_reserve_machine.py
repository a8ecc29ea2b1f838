"""Whatever holders do, die of and come back with: counts are what they hold, and never negative."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from redis_registry import GuardSettings, ModelInstance, SyncModelRegistry
from redis_registry.store.reserving import Fleet, Refusal
from redis_registry.wire.keys import identity_of
from tests.helpers import Store, connect, instance

HOUR = 3600
HOLDERS = st.sampled_from(["3600000-a", "3600000-b", "3600000-c"])
PORTS = st.integers(1, 3)
NUMBERS = st.integers(1, 6)
CAPACITIES = {1: 1, 2: 2, 3: None}


def made(port: int) -> ModelInstance:
    most = CAPACITIES[port]
    return instance(port, metadata={} if most is None else {"capacity": most})


class Machine(RuleBasedStateMachine):
    """Scripts on a real server against dictionaries in Python."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.raw = connect(self.url)
        self.raw.flushall()
        self.store = Store(self.raw)
        self.registry = SyncModelRegistry.from_url(
            self.url,
            heartbeat_timeout_secs=HOUR,
            guard=GuardSettings(enabled=False),
        )
        self.ops = self.registry._operations
        self.run = self.registry._executor.run
        self.registry.status()
        self.known: set[int] = set()
        self.held: dict[str, dict[int, int]] = {}
        self.ended: list[str] = []  # holders whose lease has ended, the first one first

    def count(self) -> Counter[int]:
        return Counter(
            port for places in self.held.values() for port in places.values()
        )

    def give_back(self, holder: str, numbers: list[int]) -> int:
        places = self.held.get(holder, {})
        given = [places.pop(number) for number in numbers if number in places]
        if holder in self.held and not places:
            del self.held[holder]
            if holder in self.ended:
                self.ended.remove(holder)
        return len(given)

    def reclaim_one(self) -> int:
        if not self.ended:
            return 0
        return self.give_back(self.ended[0], list(NUMBERS_ALL))

    @rule(port=PORTS)
    def register(self, port: int) -> None:
        self.registry.register_instance(made(port))
        self.known.add(port)

    @rule(port=PORTS)
    def remove(self, port: int) -> None:
        gone = made(port).model_copy(update={"remove_from_registry": True})
        self.registry.deregister_instance(gone)
        self.known.discard(port)

    @rule(holder=HOLDERS, number=NUMBERS)
    def reserve(self, holder: str, number: int) -> None:
        fleet = Fleet("glm@llm", [made(port) for port in CAPACITIES])
        answer = self.run(
            self.ops.reserve(self.store.home, fleet, range(3), holder, number)
        )
        known = self.held.get(holder, {}).get(number)
        if holder in self.ended:  # whoever reserves lives
            self.ended.remove(holder)
        if known is not None:
            assert isinstance(answer, str)
            assert identity_of(answer)[2] == known, "the same again"
            return
        self.reclaim_one()
        count = self.count()
        free = {
            port: count[port]
            for port in self.known
            if CAPACITIES[port] is None or count[port] < (CAPACITIES[port] or 0)
        }
        if not free:
            assert isinstance(answer, Refusal)
            full = [port for port, most in CAPACITIES.items() if most is not None]
            assert answer.in_flight == sum(
                count[port] for port in full if count[port] >= (CAPACITIES[port] or 0)
            )
            return
        assert isinstance(answer, str)
        port = identity_of(answer)[2]
        assert free[port] == min(free.values())
        self.held.setdefault(holder, {})[number] = port

    @rule(holder=HOLDERS, numbers=st.lists(NUMBERS, min_size=1, unique=True))
    def release(self, holder: str, numbers: list[int]) -> None:
        done = self.run(self.ops.unreserve(self.store.home, holder, numbers))
        assert done == self.give_back(holder, numbers)

    @rule(holder=HOLDERS)
    def die(self, holder: str) -> None:
        if holder in self.held and holder not in self.ended:
            key = self.store.key("holders")
            self.raw.zadd(key, {holder: 1_000_000 + len(self.ended)})
            for place, other in enumerate([*self.ended, holder]):
                self.raw.zadd(key, {other: 1_000_000 + place})
            self.ended.append(holder)

    @rule()
    def reclaim(self) -> None:
        assert self.run(self.ops.reclaim(self.store.home)) == self.reclaim_one()

    @rule(holder=HOLDERS)
    def renew(self, holder: str) -> None:
        places = self.held.get(holder, {})
        found = self.run(self.ops.renew(self.store.home, holder, len(places), ""))
        assert found.there == len(places)
        assert found.kept == (bool(places) and holder not in self.ended)
        assert found.ids == []
        if holder in self.ended:
            self.ended.remove(holder)

    @rule(holder=HOLDERS, believed=st.dictionaries(NUMBERS, PORTS, min_size=1))
    def adopt(self, holder: str, believed: dict[int, int]) -> None:
        places = self.held.setdefault(holder, {})
        missing = {n: port for n, port in believed.items() if n not in places}
        told = [(n, made(port).identity) for n, port in believed.items()]
        assert set(self.run(self.ops.adopt(self.store.home, holder, told))) == set(
            missing
        )
        places.update(missing)
        if holder in self.ended:
            self.ended.remove(holder)

    @rule()
    def flush(self) -> None:
        self.raw.flushall()
        self.known.clear()
        self.held.clear()
        self.ended.clear()

    @invariant()
    def agrees(self) -> None:
        self.store.check()
        count = self.count()
        entries = self.store.hash("flights")
        assert {
            identity_of(identity)[2]: int(entry.split(":")[0])
            for identity, entry in entries.items()
            if not entry.startswith("0:")
        } == dict(count)
        assert set(self.store.scores("holders")) == set(self.held)

    def teardown(self) -> None:
        self.registry.close()
        self.raw.close()


NUMBERS_ALL = range(1, 7)


@pytest.mark.timeout(120)
def test_counts_are_what_is_held(url: str) -> None:
    Machine.url = url
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )

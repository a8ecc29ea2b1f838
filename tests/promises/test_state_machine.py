"""W1: whatever calls interleave, Redis holds what a plain model in Python says, and no half record."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from redis_registry import (
    Beat,
    GuardSettings,
    Load,
    ModelInstance,
    Readiness,
    Superseded,
    SyncModelRegistry,
)
from redis_registry.store.operations import Term
from tests.helpers import Store, connect, instance

PORTS = st.integers(1, 4)
MODELS = st.sampled_from(["a@llm", "b:{x}"])
LIVES = st.sampled_from([None, "1-one", "2-two"])
HOUR = 3600


@dataclass
class Expected:
    """What the registry should know of one instance."""

    weight: float
    enabled: bool
    check: bool
    life: str | None
    readiness: Readiness
    health: str = "healthy"


@dataclass
class World:
    """The plain model: a dictionary and DB-GPT's rules."""

    known: dict[tuple[str, int], Expected] = field(
        default_factory=dict[tuple[str, int], Expected]
    )

    def register(self, item: ModelInstance) -> bool:
        place = (item.model_name, item.port)
        new = Expected(
            item.weight or 0,
            bool(item.enabled),
            bool(item.check_healthy),
            item.incarnation,
            item.readiness,
        )
        old = self.known.get(place)
        if old is not None:
            if self.standing(item) == "older":
                return False
            if new.life is None or new.life == old.life:
                if new.life is None:
                    new.readiness = old.readiness
                new.enabled, new.check, new.life = old.enabled, old.check, old.life
        self.known[place] = new
        return True

    def standing(self, item: ModelInstance) -> str:
        """How a call stands to what is known: unknown, current, older or newer."""
        old, life = self.known.get((item.model_name, item.port)), item.incarnation
        if old is None:
            return "unknown"
        if life is None or (life == old.life and old.health != "gone"):
            return "current"
        return "newer" if life > (old.life or "") else "older"

    def beat(self, item: ModelInstance) -> Beat:
        match self.standing(item):
            case "unknown" | "newer":
                self.register(item)
            case "older":
                return Beat.SUPERSEDED
            case _:
                self.known[(item.model_name, item.port)].health = "healthy"
        return Beat.TAKEN


class Machine(RuleBasedStateMachine):
    """Drives the real scripts and the model with the same calls."""

    url = ""
    made = Bundle("instances")

    def __init__(self) -> None:
        super().__init__()
        self.raw = connect(self.url)
        self.raw.flushall()
        self.store = Store(self.raw)
        self.registry = SyncModelRegistry.from_url(
            self.url,
            heartbeat_timeout_secs=HOUR,
            guard=GuardSettings(enabled=False),
            forget_after_secs=HOUR,
        )
        self.world = World()

    @rule(
        target=made,
        port=PORTS,
        model=MODELS,
        weight=st.integers(0, 3),
        enabled=st.booleans(),
        check=st.booleans(),
        life=LIVES,
        readiness=st.sampled_from([Readiness.READY, Readiness.STARTING]),
    )
    def make(
        self,
        port: int,
        model: str,
        weight: int,
        enabled: bool,
        check: bool,
        life: str | None,
        readiness: Readiness,
    ) -> ModelInstance:
        return instance(
            port,
            model,
            weight=float(weight),
            enabled=enabled,
            check_healthy=check,
            incarnation=life,
            readiness=readiness,
        )

    @rule(item=made)
    def register(self, item: ModelInstance) -> None:
        if self.world.register(item):
            assert self.registry.register_instance(item)
        else:
            with pytest.raises(Superseded):
                self.registry.register_instance(item)

    @rule(items=st.lists(made, min_size=1, max_size=6), loaded=st.booleans())
    def beat(self, items: list[ModelInstance], loaded: bool) -> None:
        unique = list({(i.model_name, i.port): i for i in items}.values())
        loads = [Load(in_flight=item.port) for item in unique] if loaded else []
        answers = self.registry.send_heartbeats(unique, loads)
        assert answers == [self.world.beat(item) for item in unique]

    @rule(item=made, readiness=st.sampled_from(Readiness))
    def get_ready(self, item: ModelInstance, readiness: Readiness) -> None:
        match self.world.standing(item):
            case "older":
                with pytest.raises(Superseded):
                    self.registry.set_readiness(item, readiness)
            case "current":
                assert self.registry.set_readiness(item, readiness)
                place = (item.model_name, item.port)
                self.world.known[place].readiness = readiness
            case _:
                assert not self.registry.set_readiness(item, readiness)

    @rule(item=made, remove=st.booleans())
    def deregister(self, item: ModelInstance, remove: bool) -> None:
        given = item.model_copy(update={"remove_from_registry": remove})
        place = (item.model_name, item.port)
        expected = self.world.known.get(place)
        own = expected is not None and item.incarnation == expected.life
        if self.world.standing(item) == "older" and not own:
            with pytest.raises(Superseded):
                self.registry.deregister_instance(given)
            return
        assert self.registry.deregister_instance(given)
        if expected is None or self.world.standing(item) == "newer":
            return
        if remove:
            self.world.known.pop(place, None)
        elif item.incarnation:
            expected.health = "gone"
        elif expected.health != "gone":
            expected.health = "unhealthy"

    @rule(item=made)
    def fall_silent(self, item: ModelInstance) -> None:
        expected = self.world.known.get((item.model_name, item.port))
        if expected and expected.check and expected.health == "healthy":
            self.store.silence(item)
            expected.health = "overdue"

    @rule()
    def sweep(self) -> None:
        overdue = [e for e in self.world.known.values() if e.health == "overdue"]
        homes = range(self.store.partitions)
        assert sum(map(self._swept, homes)) == len(overdue)
        for expected in overdue:
            expected.health = "unhealthy"

    def _swept(self, home: int) -> int:
        """Sweep a partition; how many were flipped."""
        run, operations = self.registry._executor.run, self.registry._operations
        (sweep,) = run(operations.sweep(home, "machine"))
        term = Term(home, "machine", sweep.token, sweep.epoch)
        flipped = run(operations.flip(term, sweep.members, {}))
        assert flipped == "f" * len(sweep.members)
        if sweep.forget:
            run(operations.forget(term, sweep.forget))
        return len(flipped)

    @rule()
    def forget(self) -> None:
        for part in self.store.every():
            for member in part.scores("down"):
                self.raw.zadd(part.key("down"), {member: 1})
        dead = ("unhealthy", "gone")
        kept = {p: e for p, e in self.world.known.items() if e.health not in dead}
        self.sweep()
        self.world.known = kept

    @rule()
    def flush_scripts(self) -> None:
        self.raw.script_flush()

    @invariant()
    def agrees(self) -> None:
        self.store.check()
        found = {
            (item.model_name, item.port): Expected(
                item.weight or 0,
                bool(item.enabled),
                bool(item.check_healthy),
                item.incarnation,
                item.readiness,
                str(item.state),
            )
            for item in self.registry.get_all_model_instances()
        }
        assert found == {
            place: replace(e, health="unhealthy" if e.health == "gone" else e.health)
            for place, e in self.world.known.items()
        }

    def teardown(self) -> None:
        self.registry.close()
        self.raw.close()


@pytest.mark.timeout(120)
def test_scripts_and_model_agree(url: str) -> None:
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

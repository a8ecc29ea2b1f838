"""W1: whatever calls interleave, Redis holds what a plain model in Python says, and no half record."""

from __future__ import annotations

from dataclasses import dataclass, field

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
    ModelInstance,
    Superseded,
    SyncModelRegistry,
)
from redis_registry.store.operations import Term
from tests.conftest import running
from tests.helpers import Store, connect, instance

PORTS = st.integers(1, 4)
MODELS = st.sampled_from(["a@llm", "b:{x}"])
LIVES = st.sampled_from([None, "one", "two"])
HOUR = 3600


@dataclass
class Expected:
    """What the registry should know of one instance."""

    weight: float
    enabled: bool
    check: bool
    life: str | None
    health: str = "healthy"


@dataclass
class World:
    """The plain model: a dictionary and DB-GPT's rules."""

    known: dict[tuple[str, int], Expected] = field(
        default_factory=dict[tuple[str, int], Expected]
    )

    def register(self, item: ModelInstance) -> None:
        place = (item.model_name, item.port)
        new = Expected(
            item.weight or 0,
            bool(item.enabled),
            bool(item.check_healthy),
            item.incarnation,
        )
        old = self.known.get(place)
        if old is not None and (new.life is None or new.life == old.life):
            new.enabled, new.check, new.life = old.enabled, old.check, old.life
        self.known[place] = new

    def fenced(self, item: ModelInstance) -> bool:
        old = self.known.get((item.model_name, item.port))
        return bool(old and item.incarnation and item.incarnation != old.life)

    def beat(self, item: ModelInstance) -> Beat:
        if (item.model_name, item.port) not in self.known:
            self.register(item)
        elif self.fenced(item):
            return Beat.SUPERSEDED
        else:
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
    )
    def make(
        self,
        port: int,
        model: str,
        weight: int,
        enabled: bool,
        check: bool,
        life: str | None,
    ) -> ModelInstance:
        return instance(
            port,
            model,
            weight=float(weight),
            enabled=enabled,
            check_healthy=check,
            incarnation=life,
        )

    @rule(item=made)
    def register(self, item: ModelInstance) -> None:
        assert self.registry.register_instance(item)
        self.world.register(item)

    @rule(items=st.lists(made, min_size=1, max_size=6))
    def beat(self, items: list[ModelInstance]) -> None:
        unique = list({(i.model_name, i.port): i for i in items}.values())
        answers = self.registry.send_heartbeats(unique)
        assert answers == [self.world.beat(item) for item in unique]

    @rule(item=made, remove=st.booleans())
    def deregister(self, item: ModelInstance, remove: bool) -> None:
        given = item.model_copy(update={"remove_from_registry": remove})
        place = (item.model_name, item.port)
        if self.world.fenced(item):
            with pytest.raises(Superseded):
                self.registry.deregister_instance(given)
            return
        assert self.registry.deregister_instance(given)
        if remove:
            self.world.known.pop(place, None)
        elif place in self.world.known:
            self.world.known[place].health = "unhealthy"

    @rule(item=made)
    def fall_silent(self, item: ModelInstance) -> None:
        expected = self.world.known.get((item.model_name, item.port))
        if expected and expected.check and expected.health == "healthy":
            self.store.silence(item)
            expected.health = "overdue"

    @rule()
    def sweep(self) -> None:
        run, operations = self.registry._executor.run, self.registry._operations
        (sweep,) = run(operations.sweep(0, "machine"))
        term = Term(0, "machine", sweep.token, sweep.epoch)
        overdue = [e for e in self.world.known.values() if e.health == "overdue"]
        assert len(sweep.members) == len(overdue)
        assert run(operations.flip(term, sweep.members, {})) == "f" * len(overdue)
        for expected in overdue:
            expected.health = "unhealthy"
        if sweep.forget:
            run(operations.forget(term, sweep.forget))

    @rule()
    def forget(self) -> None:
        down = self.store.key("down")
        for member in self.store.scores("down"):
            self.raw.zadd(down, {member: 1})
        kept = {p: e for p, e in self.world.known.items() if e.health != "unhealthy"}
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
                str(item.state),
            )
            for item in self.registry.get_all_model_instances()
        }
        assert found == self.world.known

    def teardown(self) -> None:
        self.registry.close()
        self.raw.close()


@pytest.fixture(params=["valkey", "redis7"])
def url(request: pytest.FixtureRequest) -> str:
    return running(request.param).url


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

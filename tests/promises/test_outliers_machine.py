"""L7: whatever is reported and claimed, by whom and in whatever order, Redis holds what a plain model says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from redis_registry import (
    ModelInstance,
    OutlierSettings,
    Readiness,
    SyncModelRegistry,
    Verdict,
)
from redis_registry.selection import awaits_probe
from redis_registry.store.outliers import Tally
from tests.helpers import Store, connect, instance, instances

PORTS = st.integers(1, 4)
WHO = st.integers(0, 1)
DAY = 86_400
RULES = OutlierSettings(
    consecutive_failures=4,
    failure_share=0.617,  # no small count of calls hits it exactly
    min_calls=7,
    window_secs=30 * DAY,
    max_ejected_share=0.5,
    base_ejection_secs=DAY,
    max_ejection_secs=4 * DAY,
    probe_secs=DAY,
    flap_damping=False,
)


@dataclass
class Known:
    """What the registry should know of one instance."""

    life: int = 0
    ready: bool = True
    row: int | None = None  # None: nothing is counted
    ok: int = 0
    failed: int = 0
    times: int = 0
    out: bool = False
    due: bool = False
    claim: int | None = None

    def stay(self) -> None:
        self.row, self.ok, self.failed = None, 0, 0

    def eject(self) -> Verdict:
        self.stay()
        self.times += 1
        self.out, self.due, self.claim = True, False, None
        return Verdict.EJECTED


@dataclass
class World:
    """The plain model of four instances of one model."""

    known: dict[int, Known] = field(
        default_factory=lambda: {port: Known() for port in range(1, 5)}
    )

    def report(self, port: int, who: int, ok: int, bad: int, trailing: int) -> Verdict:
        one = self.known[port]
        if one.out:
            return self.probed(one, who, ok, bad)
        if one.row is None and not bad:
            return Verdict.COUNTED
        one.row = trailing if ok else (one.row or 0) + bad
        one.ok, one.failed = one.ok + ok, one.failed + bad
        calls = one.ok + one.failed
        many = calls >= RULES.min_calls and one.failed / calls > RULES.failure_share
        if not bad or (one.row < RULES.consecutive_failures and not many):
            return Verdict.COUNTED
        serving = any(k.ready and not k.out for p, k in self.known.items() if p != port)
        if serving and sum(k.out for k in self.known.values()) < 2:
            return one.eject()
        return Verdict.SPARED

    def probed(self, one: Known, who: int, ok: int, bad: int) -> Verdict:
        if bad and one.claim == who:
            return one.eject()
        if ok and (one.due or one.claim is not None):
            one.out, one.claim = False, None
            one.stay()
            return Verdict.RESTORED
        return Verdict.EJECTED


class Machine(RuleBasedStateMachine):
    """Two replicas report to the real scripts, and to the model."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.raw = connect(self.url)
        self.raw.flushall()
        self.store = Store(self.raw)
        self.replicas = [
            SyncModelRegistry.from_url(
                self.url, outliers=RULES, heartbeat_timeout_secs=DAY
            )
            for _ in range(2)
        ]
        self.world = World()
        for replica in self.replicas:
            replica.status()  # joins
        self.replicas[0].send_heartbeats(
            [self.item(item.port) for item in instances(4)]
        )

    def item(self, port: int, back: int = 0) -> ModelInstance:
        life = self.world.known[port].life - back
        return instance(port, incarnation=f"{life:04d}")

    @rule(
        port=PORTS, who=WHO, ok=st.integers(0, 3), bad=st.integers(0, 5), data=st.data()
    )
    def report(
        self, port: int, who: int, ok: int, bad: int, data: st.DataObject
    ) -> None:
        trailing = data.draw(st.integers(0, bad)) if ok else bad
        replica = self.replicas[who]
        tally = Tally(self.item(port), bad, ok, trailing)
        (report,) = self.calls(who, tally)
        (answer,) = replica._executor.call(report)
        assert answer.verdict is self.world.report(port, who, ok, bad, trailing)
        if not ok and data.draw(st.booleans()):
            assert replica._executor.call(report) == [answer]

    def calls(self, who: int, tally: Tally) -> list[Any]:
        operation = self.replicas[who]._operations.report([tally])
        return list(next(operation))

    @rule(port=PORTS, who=WHO, bad=st.integers(1, 9))
    def report_of_an_older_life(self, port: int, who: int, bad: int) -> None:
        if self.world.known[port].life:
            tally = Tally(self.item(port, back=1), bad, 0, bad)
            (call,) = self.calls(who, tally)
            (answer,) = self.replicas[who]._executor.call(call)
            assert answer.verdict is Verdict.LATE

    @rule(port=PORTS, who=WHO)
    def claim(self, port: int, who: int) -> None:
        one = self.world.known[port]
        granted = self.replicas[who].claim_probe(self.item(port))
        assert granted is (one.out and one.due)
        if granted:
            one.due, one.claim = False, who

    @rule()
    def time_passes(self) -> None:
        """Every time out, and every claim, is over."""
        for port, one in self.world.known.items():
            if one.out:
                key = self.store.key(f"i:glm@llm:10.0.0.1:{port}")
                cause, _, rest = self.raw.hget(key, "out").decode().split(":", 2)
                self.raw.hset(key, "out", f"{cause}:1:{rest}")
                one.due = True

    @rule(port=PORTS)
    def begin_a_new_life(self, port: int) -> None:
        old = self.world.known[port]
        self.world.known[port] = Known(life=old.life + 1)
        self.replicas[0].register_instance(self.item(port))

    @rule(port=PORTS, ready=st.booleans())
    def get_ready(self, port: int, ready: bool) -> None:
        self.world.known[port].ready = ready
        readiness = Readiness.READY if ready else Readiness.DRAINING
        self.replicas[0].set_readiness(self.item(port), readiness)

    @invariant()
    def agrees(self) -> None:
        self.store.check()
        known = self.world.known
        for item in self.replicas[1].get_all_instances("glm@llm"):
            one = known[item.port]
            assert (item.held_out is not None) is one.out
            assert awaits_probe(item) is (one.out and one.due and one.ready)
            record = self.store.record(item)
            assert (b"calls" in record) is (one.row is not None)
            if one.out:
                assert int(record[b"out"].split(b":")[2]) == one.times

    def teardown(self) -> None:
        for replica in self.replicas:
            replica.close()
        self.raw.close()


@pytest.mark.timeout(120)
def test_scripts_and_model_agree(url: str) -> None:
    Machine.url = url
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=60,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )

"""L7: what one replica learns of failing calls, all of them heed; nobody is put out too far."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from redis_registry import (
    HeldOut,
    Kind,
    ModelInstance,
    Outcome,
    OutlierSettings,
    Readiness,
    RedisModelRegistry,
    RegistryUnavailable,
    SyncModelRegistry,
    Verdict,
)
from redis_registry.core import outcomes
from redis_registry.model import EPOCH
from redis_registry.selection import Reason, awaits_probe, why_not
from redis_registry.store.outliers import Tally
from tests.conftest import SLOW, Bench, MakeBench, Server
from tests.helpers import instance, instances, until, wait_for
from tests.nodes import ROOT

FIVE = 5


async def fail(
    registry: RedisModelRegistry, item: ModelInstance, times: int = FIVE
) -> Outcome:
    """Report failures one by one; the last answer."""
    outcome = Outcome(Verdict.UNKNOWN)
    for _ in range(times):
        outcome = await registry.report_failure(item, "refused")
    return outcome


async def held(registry: RedisModelRegistry, item: ModelInstance) -> HeldOut | None:
    found = await registry.get_all_instances(item.model_name)
    return next(i.held_out for i in found if i.port == item.port)


async def half_open(registry: RedisModelRegistry, item: ModelInstance) -> ModelInstance:
    """Wait until its time out is over; the instance as it is read then."""
    found: list[ModelInstance] = []

    async def due() -> bool:
        all_ = await registry.get_all_instances(item.model_name)
        found[:] = [i for i in all_ if i.port == item.port and awaits_probe(i)]
        return bool(found)

    await until(due, "its time out is over")
    return found[0]


async def selected(registry: RedisModelRegistry, times: int = 60) -> set[int]:
    found = [await registry.select_one_health_instance("glm@llm") for _ in range(times)]
    return {item.port for item in found if item}


Pair = Callable[..., Awaitable[tuple[Bench, RedisModelRegistry]]]


@pytest.fixture
async def pair(make_bench: MakeBench) -> Pair:
    """Two registry objects on one server: a bench and another replica."""

    async def build(**rules: Any) -> tuple[Bench, RedisModelRegistry]:
        outliers = OutlierSettings(**rules)
        bench = await make_bench(outliers=outliers)
        return bench, (await make_bench(outliers=outliers)).registry

    return build


async def test_five_failures_on_one_replica_keep_it_out_on_another(pair: Pair) -> None:
    bench, other = await pair()
    bad, *_ = items = instances(3)
    await bench.registry.send_heartbeats(items)
    assert (await fail(bench.registry, bad, FIVE - 1)).verdict is Verdict.COUNTED
    assert bad.port in await selected(other)

    began = time.monotonic()
    outcome = await fail(bench.registry, bad, 1)
    assert bad.port not in await selected(other)
    assert time.monotonic() - began < 0.2 + 60 * 0.01  # and 60 selects

    found = await held(other, bad)
    assert outcome.verdict is Verdict.EJECTED
    assert outcome.until
    assert found == HeldOut(cause="failures", until=outcome.until)
    (event,) = bench.store.events(Kind.EJECTED)
    assert event.cause == "5 failures in a row: refused"
    assert event.actor == bench.registry.name
    assert event.instance is not None
    assert why_not(event.instance) is Reason.FAILURES
    assert event.revision == int(bench.store.hash("meta")["rev"])


async def test_the_failures_of_all_replicas_are_one_row(pair: Pair) -> None:
    bench, other = await pair()
    bad, *_ = items = instances(3)
    await bench.registry.send_heartbeats(items)
    await fail(bench.registry, bad, 3)
    assert (await fail(other, bad, 2)).verdict is Verdict.EJECTED
    assert (await fail(other, bad, 3)).verdict is Verdict.EJECTED
    assert len(bench.store.events(Kind.EJECTED)) == 1


async def test_one_success_anywhere_ends_the_row(pair: Pair) -> None:
    bench, other = await pair()
    bad, *_ = items = instances(3)
    await bench.registry.send_heartbeats(items)
    await fail(bench.registry, bad, 4)
    await other.report_success(bad)
    await other.report_failure(bad)  # takes the success along
    assert (await fail(bench.registry, bad, 3)).verdict is Verdict.COUNTED
    assert (await fail(bench.registry, bad, 1)).verdict is Verdict.EJECTED


async def test_in_a_crowd_of_calls_only_those_after_the_last_success_are_a_row(
    pair: Pair,
) -> None:
    bench, _ = await pair()
    bad, *_ = items = instances(3)
    await bench.registry.send_heartbeats(items)

    async def crowd() -> None:
        async with asyncio.TaskGroup() as group:
            for turn in range(18):
                report = bench.registry.report_success
                if turn % 5 != 4:
                    report = bench.registry.report_failure
                group.create_task(report(bad))

    await crowd()
    assert await held(bench.registry, bad) is None
    assert (await fail(bench.registry, bad, 2)).verdict is Verdict.EJECTED


async def test_too_large_a_share_of_its_calls_is_enough(pair: Pair) -> None:
    bench, _ = await pair(min_calls=20, failure_share=0.5)
    bad, *_ = items = instances(3)
    await bench.registry.send_heartbeats(items)
    verdicts: list[Verdict] = []
    for _ in range(10):
        verdicts.append((await bench.registry.report_failure(bad)).verdict)
        await bench.registry.report_success(bad)
    verdicts.append((await bench.registry.report_failure(bad)).verdict)
    assert verdicts == [Verdict.COUNTED] * 10 + [Verdict.EJECTED]
    (event,) = bench.store.events(Kind.EJECTED)
    assert event.cause == "52% of 21 calls failed"


async def test_a_fine_share_is_not(pair: Pair) -> None:
    bench, _ = await pair(min_calls=20, failure_share=0.5)
    good, *_ = items = instances(3)
    await bench.registry.send_heartbeats(items)
    for _ in range(15):
        assert (await fail(bench.registry, good, 1)).verdict is Verdict.COUNTED
        await bench.registry.report_success(good)
        await bench.registry.report_success(good)


async def test_at_most_a_share_of_a_model_is_out(pair: Pair) -> None:
    bench, other = await pair(max_ejected_share=0.3, base_ejection_secs=0.5)
    items = instances(10)
    await bench.registry.send_heartbeats([*items, *instances(2, "other")])
    verdicts = [(await fail(bench.registry, item)).verdict for item in items]
    assert verdicts == [Verdict.EJECTED] * 3 + [Verdict.SPARED] * 7
    assert (await fail(other, items[5], 1)).verdict is Verdict.SPARED
    assert await selected(other) == set(range(4, 11))
    assert (await fail(other, instance(1, "other"))).verdict is Verdict.EJECTED

    probe = await half_open(other, items[0])
    assert await other.claim_probe(probe)
    await other.report_success(probe)
    assert (await fail(bench.registry, items[5], 1)).verdict is Verdict.EJECTED


async def test_the_dead_among_them_leave_room_for_others(pair: Pair) -> None:
    bench, _ = await pair()
    items = instances(6)
    await bench.registry.send_heartbeats(items)
    await fail(bench.registry, items[0])
    assert (await fail(bench.registry, items[1])).verdict is Verdict.SPARED
    bench.store.silence(items[0])
    await bench.sweep()
    assert (await fail(bench.registry, items[1], 1)).verdict is Verdict.EJECTED


async def test_of_many_that_are_out_some_dead_ones_make_room_for_some(
    pair: Pair,
) -> None:
    bench, _ = await pair(max_ejected_share=0.5)
    items = instances(120)
    await bench.registry.send_heartbeats(items)
    for item in items[:60]:
        await fail(bench.registry, item)
    assert (await fail(bench.registry, items[60])).verdict is Verdict.SPARED
    await bench.registry.send_heartbeats(
        [item.model_copy(update={"port": 1000 + item.port}) for item in items[:60]]
    )
    bench.store.silence(*items[:60])
    await bench.sweep()
    outcome = await fail(bench.registry, items[60], 1)
    assert outcome.verdict is Verdict.EJECTED  # the first 32 looked at are dead


OTHERS: dict[str, dict[str, Any]] = {
    "alone": {},
    "disabled": {"enabled": False},
    "starting": {"readiness": Readiness.STARTING},
    "weightless": {"weight": 0.0},
    "overdue": {},
    "unhealthy": {},
    "ejected": {},
}


@pytest.mark.parametrize("other", OTHERS)
async def test_the_last_that_can_work_stays(pair: Pair, other: str) -> None:
    bench, _ = await pair(max_ejected_share=1.0)
    good, second = instance(1), instance(2, **OTHERS[other])
    await bench.registry.register_instance(good)
    if other != "alone":
        await bench.registry.register_instance(second)
    if other == "overdue":
        bench.store.silence(second)
    elif other == "unhealthy":
        await bench.registry.deregister_instance(second)
    elif other == "ejected":
        await fail(bench.registry, second)
    outcome = await fail(bench.registry, good, 2 * FIVE)
    assert outcome == Outcome(Verdict.SPARED)
    assert await selected(bench.registry, 5) == {1}


async def test_the_last_that_operators_have_left_is_served_though_it_fails(
    pair: Pair,
) -> None:
    bench, other = await pair()
    bad, *rest = items = instances(3)
    await bench.registry.send_heartbeats(items)
    await bench.registry.override(rest[0], enabled=False, reason="canary")
    await bench.registry.override(rest[1], healthy=False, reason="bad disk")
    await fail(bench.registry, bad)
    assert await selected(other) == {bad.port}
    async with other.view() as view, other.reserve(bad.model_name) as made:
        assert {item.port for item in view.able(bad.model_name)} == {bad.port}
        assert made.instance.port == bad.port


async def test_when_only_the_held_out_are_left_they_are_served(pair: Pair) -> None:
    bench, other = await pair()
    first, second = items = instances(2)
    await bench.registry.send_heartbeats(items)
    await fail(bench.registry, first)
    assert await selected(other) == {2}
    await bench.registry.set_readiness(second, Readiness.DRAINING)
    assert await selected(other) == {1}
    await bench.registry.deregister_instance(first)
    assert await selected(other) == set()


async def test_time_out_doubles_up_to_the_longest_and_starts_anew_after_a_while(
    pair: Pair,
) -> None:
    bench, _ = await pair(base_ejection_secs=0.05, max_ejection_secs=0.3)
    bad, *_ = items = instances(3)
    await bench.registry.send_heartbeats(items)
    await fail(bench.registry, bad)
    for _ in range(3):
        probe = await half_open(bench.registry, bad)
        assert await bench.registry.claim_probe(probe)
        await fail(bench.registry, probe, 1)
    probe = await half_open(bench.registry, bad)
    assert await bench.registry.claim_probe(probe)
    await bench.registry.report_success(probe)
    await fail(bench.registry, bad)  # at once again

    probe = await half_open(bench.registry, bad)
    await bench.registry.claim_probe(probe)
    await bench.registry.report_success(probe)
    restored = bench.store.events(Kind.RESTORED)[-1].at
    await until(
        lambda: _clock_after(bench, restored.timestamp() + 0.31), "a while of peace"
    )
    await fail(bench.registry, bad)

    lengths = [
        round((e.instance.held_out.until - e.at).total_seconds(), 3)
        for e in bench.store.events(Kind.EJECTED)
        if e.instance and e.instance.held_out
    ]
    assert lengths == [0.05, 0.1, 0.2, 0.3, 0.3, 0.05]
    causes = [e.cause for e in bench.store.events(Kind.EJECTED)]
    assert causes[1:4] == ["the probe failed: refused"] * 3


async def _clock_after(bench: Bench, moment: float) -> bool:
    return bench.store.now_us() > moment * 1_000_000


def test_what_keeps_it_out_is_judged_by_a_clock() -> None:
    """As views do, which learn of changes and not of time."""
    end = EPOCH + timedelta(seconds=5)
    failing = HeldOut(cause="failures", until=end)
    flapping = HeldOut(cause="flapping", until=end)
    due = HeldOut(cause="failures", until=end, half_open=True)
    assert failing.at(EPOCH) == failing
    assert flapping.at(EPOCH) == flapping
    assert failing.at(end) == due
    assert flapping.at(end) is None
    assert due.at(end) == due


async def test_a_view_learns_it_by_the_event(pair: Pair) -> None:
    bench, other = await pair(base_ejection_secs=0.1)
    bad, *_ = items = instances(3)
    await bench.registry.send_heartbeats(items)
    async with other.view("glm@llm") as view:
        began = time.monotonic()
        await fail(bench.registry, bad)

        async def avoided() -> bool:
            return {view.instances("glm@llm")[0].held_out is not None} == {True}

        await until(avoided, "the view knows")
        assert time.monotonic() - began < 0.2
        assert bad.port not in {
            i.port for _ in range(60) if (i := view.select("glm@llm"))
        }
        await half_open(bench.registry, bad)
    async with other.view("glm@llm") as view:
        found = view.instances("glm@llm")[0].held_out
        assert found
        assert (
            found.half_open
        )  # by Redis's clock; choosing it is another test's business


async def test_exactly_one_of_many_gets_the_probe(make_bench: MakeBench) -> None:
    rules = OutlierSettings(base_ejection_secs=0.1)
    bench = await make_bench(outliers=rules)
    replicas = [(await make_bench(outliers=rules)).registry for _ in range(4)]
    bad, *_ = items = instances(3)
    await bench.registry.send_heartbeats(items)
    await fail(bench.registry, bad)
    assert not await bench.registry.claim_probe(bad)  # too early
    probe = await half_open(bench.registry, bad)
    granted = await asyncio.gather(
        *(replica.claim_probe(probe) for replica in replicas * 12)
    )
    assert sum(granted) == 1
    (event,) = bench.store.events(Kind.PROBING)
    assert event.actor in {replica.name for replica in replicas}
    found = await held(bench.registry, bad)
    assert found
    assert not found.half_open
    assert not await bench.registry.claim_probe(items[1])  # nothing to probe
    assert not await bench.registry.claim_probe(instance(99))


async def test_select_sends_one_probe_and_success_brings_it_back(pair: Pair) -> None:
    bench, other = await pair(base_ejection_secs=0.1)
    bad, *_ = items = instances(3)
    await bench.registry.send_heartbeats(items)
    await fail(bench.registry, bad)
    await half_open(bench.registry, bad)

    chosen: list[tuple[RedisModelRegistry, ModelInstance]] = []
    for _ in range(100):
        for replica in (bench.registry, other):
            item = await replica.select_one_health_instance("glm@llm")
            assert item
            chosen.append((replica, item))
    ((replica, probe),) = [c for c in chosen if c[1].port == bad.port]
    assert probe.held_out
    assert probe.held_out.half_open
    await replica.report_success(probe)
    assert await held(other, bad) is None
    assert bad.port in await selected(other)
    kinds = (Kind.EJECTED, Kind.PROBING, Kind.RESTORED)
    assert tuple(e.kind for e in bench.store.events(*kinds)) == kinds


async def test_only_the_claimer_can_fail_the_probe(pair: Pair) -> None:
    bench, other = await pair(base_ejection_secs=0.1)
    bad, *_ = items = instances(3)
    await bench.registry.send_heartbeats(items)
    await fail(bench.registry, bad)
    await fail(other, bad, 10)  # of calls that were under way
    assert len(bench.store.events(Kind.EJECTED)) == 1
    probe = await half_open(bench.registry, bad)
    assert await bench.registry.claim_probe(probe)
    before = await held(other, bad)
    outcome = await fail(other, bad, 3)  # of calls that began before it was ejected
    assert before
    assert outcome == Outcome(Verdict.EJECTED, before.until)
    assert await held(other, bad) == before
    assert (await fail(bench.registry, probe, 1)).verdict is Verdict.EJECTED
    assert len(bench.store.events(Kind.EJECTED)) == 2


async def test_a_success_while_it_is_out_is_too_early(pair: Pair) -> None:
    bench, other = await pair()
    bad, *_ = items = instances(3)
    await bench.registry.send_heartbeats(items)
    await fail(bench.registry, bad)
    await other.report_success(
        bad.model_copy(update={"held_out": await held(other, bad)})
    )
    assert await held(other, bad)
    assert not bench.store.events(Kind.RESTORED)


async def test_a_late_failure_of_the_old_life_changes_nothing(pair: Pair) -> None:
    bench, other = await pair()
    old, new = instance(1, incarnation="1-old"), instance(1, incarnation="2-new")
    await bench.registry.send_heartbeats([old, *instances(5)[1:]])
    await fail(bench.registry, old, 4)
    await bench.registry.register_instance(new)
    outcome = await fail(other, old, 10)
    assert outcome == Outcome(Verdict.LATE)
    assert (await fail(other, new, 4)).verdict is Verdict.COUNTED  # counts anew
    assert await held(other, new) is None
    no_life = instance(1)
    assert (await fail(other, no_life, 1)).verdict is Verdict.EJECTED

    third = instance(1, incarnation="3-next")
    await bench.registry.register_instance(third)
    assert await held(other, third) is None
    assert not await other.claim_probe(new)
    assert (await fail(other, instance(77))).verdict is Verdict.UNKNOWN


async def test_an_honest_goodbye_ends_what_was_known(pair: Pair) -> None:
    bench, other = await pair()
    bad, *_ = items = instances(3)
    await bench.registry.send_heartbeats(items)
    await fail(bench.registry, bad)
    await bench.registry.deregister_instance(bad)
    assert (await fail(other, bad, 1)).verdict is Verdict.LATE
    await bench.registry.register_instance(bad)
    assert await held(other, bad) is None
    assert set(bench.store.record(bad)) == {b"terms", b"life", b"spec"}


async def test_death_and_return_of_the_same_life_keep_it_out(pair: Pair) -> None:
    bench, other = await pair()
    bad, *_ = items = instances(3)
    await bench.registry.send_heartbeats(items)
    await fail(bench.registry, bad)
    bench.store.silence(bad)
    await bench.sweep()
    await bench.registry.send_heartbeat(bad)
    assert await held(other, bad)
    event = bench.store.events(Kind.HEALTHY)[-1]
    assert event.instance
    assert event.instance.held_out


async def test_a_report_whose_answer_was_lost_counts_once(bench: Bench) -> None:
    bad, *_ = items = instances(3)
    await bench.registry.send_heartbeats(items)
    operations, call = bench.registry._operations, bench.registry._executor.call
    for turn in range(FIVE):
        (report,) = next(operations.report([Tally(bad, 1, 0, 1)]))
        answers = [await call(report) for _ in range(4)]
        assert answers[1:] == answers[:-1]
        verdict = Verdict.EJECTED if turn == FIVE - 1 else Verdict.COUNTED
        assert answers[0][0].verdict is verdict
    assert len(bench.store.events(Kind.EJECTED)) == 1


async def test_a_claim_whose_answer_was_lost_is_granted_again(pair: Pair) -> None:
    bench, other = await pair(base_ejection_secs=0.1)
    bad, *_ = items = instances(3)
    await bench.registry.send_heartbeats(items)
    await fail(bench.registry, bad)
    probe = await half_open(bench.registry, bad)
    (claim,) = next(bench.registry._operations.claim_probe(probe))
    granted = [await bench.registry._executor.call(claim) for _ in range(3)]
    assert granted == [True, True, True]
    assert not await bench.registry.claim_probe(probe)
    assert not await other.claim_probe(probe)
    assert len(bench.store.events(Kind.PROBING)) == 1


async def test_reports_are_forgotten_in_time(bench: Bench) -> None:
    await bench.registry.send_heartbeats(instances(2))
    reports = bench.store.key("reports")
    bench.server.raw.zadd(reports, {f"old {n}": n for n in range(1000)})
    await fail(bench.registry, instance(1), 3)
    assert bench.server.raw.zcard(reports) == 3
    assert 0 < bench.server.raw.pttl(reports) <= 60_000


async def test_two_lives_in_one_report_are_one_record(bench: Bench) -> None:
    items = [instance(1, incarnation="1-one"), *instances(3)[1:]]
    await bench.registry.send_heartbeats(items)
    tallies = [Tally(item, 5, 0, 5) for item in (items[0], instance(1))]
    answers = await bench.registry._tell(tallies)
    assert {answer.verdict for answer in answers} == {Verdict.EJECTED}
    assert len(bench.store.events(Kind.EJECTED)) == 1


async def test_successes_cost_few_calls_and_no_record(bench: Bench) -> None:
    items = instances(20)
    await bench.registry.send_heartbeats(items)
    revision = bench.store.hash("meta")["rev"]
    before = _scripts_run(bench)
    for _ in range(200):
        for item in items:
            await bench.registry.report_success(item)
    assert _scripts_run(bench) - before <= 2
    await until(lambda: _told(bench, before), "they were told by themselves")
    assert set(bench.store.record(items[0])) == {b"terms", b"life", b"spec"}
    assert bench.store.hash("meta")["rev"] == revision


def _scripts_run(bench: Bench) -> int:
    stats = bench.server.raw.info("commandstats")
    return sum(
        stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval")
    )


async def _told(bench: Bench, before: int) -> bool:
    return _scripts_run(bench) > before


async def test_closing_tells_what_was_counted(make_bench: MakeBench) -> None:
    bench = await make_bench()
    bad, *_ = items = instances(3)
    await bench.registry.send_heartbeats(items)
    await fail(bench.registry, bad, 4)
    async with RedisModelRegistry.from_url(
        bench.server.url, run_checker=False, **SLOW
    ) as other:
        await other.report_success(bad)
    assert (await fail(bench.registry, bad, 4)).verdict is Verdict.COUNTED


async def test_redis_away_reports_say_so_and_successes_are_dropped(
    make_bench: MakeBench,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outcomes, "FLUSH_SECS", 0.01)
    bench = await make_bench()
    item = instance()
    await bench.registry.register_instance(item)

    async def away(_: object) -> list[Outcome]:
        raise RegistryUnavailable("away")

    reporter = bench.registry._reports()
    told, reporter._send = reporter._send, away
    with pytest.raises(RegistryUnavailable):
        await bench.registry.report_failure(item)
    await bench.registry.report_success(item)
    await until(lambda: _logged(caplog), "the loss is logged")
    reporter._send = told
    await bench.registry.report_success(item)
    await until(lambda: _told_all(bench), "it goes on")
    assert (await fail(bench.registry, item, 1)).verdict is Verdict.COUNTED


async def _logged(caplog: pytest.LogCaptureFixture) -> bool:
    return "outcomes of calls could not be told" in caplog.text


async def _told_all(bench: Bench) -> bool:
    reporter = bench.registry._reports()
    return not len(reporter._counts) and reporter._call is None


async def test_a_cancelled_report_leaves_the_others_alone(bench: Bench) -> None:
    items = instances(3)
    await bench.registry.send_heartbeats(items)
    reports = [
        asyncio.ensure_future(bench.registry.report_failure(items[0])) for _ in range(9)
    ]
    await asyncio.sleep(0)
    reports[0].cancel()
    answers = await asyncio.gather(*reports, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    verdicts = {a.verdict for a in answers if isinstance(a, Outcome)}
    assert verdicts == {Verdict.EJECTED}


async def test_switched_off_nothing_is_sent(make_bench: MakeBench) -> None:
    bench = await make_bench(outliers=OutlierSettings(enabled=False))
    await bench.registry.send_heartbeats(instances(3))
    assert (await fail(bench.registry, instance(1))).verdict is Verdict.IGNORED
    await bench.registry.report_success(instance(1))
    assert bench.registry._reporter is None


async def test_no_trace_is_left(bench: Bench) -> None:
    bad, *_ = items = instances(3)
    await bench.registry.send_heartbeats(items)
    await fail(bench.registry, bad)
    for item in items:
        gone = item.model_copy(update={"remove_from_registry": True})
        await bench.registry.deregister_instance(gone)
    assert bench.store.scores("out") == {}
    await bench.registry.send_heartbeats(items)
    assert await held(bench.registry, bad) is None


def test_the_sync_face_does_the_same(sync_registry: SyncModelRegistry) -> None:
    sync_registry.send_heartbeats(instances(3))
    for _ in range(4):
        sync_registry.report_failure(instance(1))
    sync_registry.report_success(instance(1))
    answers = [sync_registry.report_failure(instance(1)).verdict for _ in range(5)]
    assert answers == [Verdict.COUNTED] * 4 + [Verdict.EJECTED]
    select = sync_registry.select_one_health_instance
    chosen = [select("glm@llm") for _ in range(60)]
    assert {item.port for item in chosen if item} == {2, 3}
    assert not sync_registry.claim_probe(instance(1))


# --- real processes ------------------------------------------------------------------------------


class Caller:
    """A :mod:`tests.caller` process."""

    def __init__(self, url: str, **rules: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.caller", url, json.dumps(rules)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, line: str) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def callers(server: Server) -> Iterator[Callable[..., Caller]]:
    made: list[Caller] = []

    def build(**rules: Any) -> Caller:
        made.append(Caller(server.url, **rules))
        return made[-1]

    yield build
    for caller in made:
        caller.kill()


def test_another_process_avoids_it_within_200_ms(
    server: Server, callers: Callable[..., Caller]
) -> None:
    one, two = callers(), callers()
    with SyncModelRegistry.from_url(server.url, **SLOW) as registry:
        registry.send_heartbeats(instances(3))
    seen = {two.ask("select") for _ in range(60)}
    assert seen == {1, 2, 3}
    for _ in range(4):
        assert one.ask("fail 1") == "counted"
    began = time.monotonic()
    assert one.ask("fail 1") == "ejected"
    first = two.ask("select")
    elapsed = time.monotonic() - began
    assert first != 1
    assert elapsed < 0.2, f"{elapsed * 1000:.1f} ms"
    assert {two.ask("select") for _ in range(60)} == {2, 3}


def test_the_probe_of_a_killed_process_goes_to_another(
    server: Server, callers: Callable[..., Caller]
) -> None:
    rules = {"base_ejection_secs": 0.1, "probe_secs": 1.0}
    one, two = callers(**rules), callers(**rules)
    with SyncModelRegistry.from_url(server.url, **SLOW) as registry:
        registry.send_heartbeats(instances(3))
    for _ in range(FIVE):
        one.ask("fail 1")
    wait_for(lambda: one.ask("claim 1"), "the probe is granted")
    one.kill()
    assert not two.ask("claim 1")
    wait_for(lambda: two.ask("claim 1"), "the claim of the dead has ended")
    two.ask("succeed 1")
    assert {two.ask("select") for _ in range(60)} == {1, 2, 3}

"""L7: what one replica learns of failing calls, all of them heed; nobody is put out too far."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest

from redis_registry import (
    HeldOut,
    Kind,
    Outcome,
    Readiness,
    Verdict,
)
from redis_registry.model import EPOCH
from redis_registry.selection import Reason, why_not
from tests.conftest import Bench
from tests.helpers import instance, instances, until
from tests.promises.ejecting import FIVE, Pair, fail, half_open, held, selected


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
    bench, other = await pair(max_ejected_share=0.3, base_ejection_secs=3)
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

"""L7: a report counts once, costs little, and leaves no trace."""

from __future__ import annotations

import asyncio

import pytest

from redis_registry import (
    Kind,
    Outcome,
    OutlierSettings,
    RedisModelRegistry,
    RegistryUnavailable,
    SyncModelRegistry,
    Verdict,
)
from redis_registry.core import outcomes
from redis_registry.store.outliers import Tally
from tests.conftest import SLOW, Bench, MakeBench
from tests.helpers import instance, instances, until
from tests.promises.ejecting import FIVE, Pair, fail, half_open, held


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

"""L7: who was kept out returns through one probe, whoever dies with it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from redis_registry import (
    Kind,
    ModelInstance,
    Outcome,
    OutlierSettings,
    RedisModelRegistry,
    SyncModelRegistry,
    Verdict,
)
from tests.conftest import SLOW, MakeBench, Server
from tests.helpers import instance, instances, wait_for
from tests.nodes import ROOT
from tests.promises.ejecting import FIVE, Pair, fail, half_open, held, selected


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

"""Calls that race, often enough to meet every order: heartbeat and flip, two lives at one address."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from collections import Counter

from redis_registry import Kind
from tests.conftest import Bench, Server
from tests.faults.rival import ADDRESS
from tests.helpers import instances
from tests.nodes import ROOT

ROUNDS, CROWD = 40, 250
EDGE_SECS = 0.005


async def test_ten_thousand_heartbeats_within_5_ms_of_their_deadline(
    bench: Bench,
) -> None:
    """Whichever comes first: never unhealthy with a fresh deadline, and what was flipped is back."""
    rng = random.Random(17)
    crowd = instances(CROWD)
    registry, store = bench.registry, bench.store
    await registry.send_heartbeats(crowd)
    await bench.sweep()

    async def beat(port: int, late_secs: float) -> None:
        await asyncio.sleep(EDGE_SECS + late_secs)
        assert await registry.send_heartbeat(crowd[port - 1])

    async def sweep() -> None:
        for _ in range(6):
            await bench.sweep()
            await asyncio.sleep(0.002)

    for _ in range(ROUNDS):
        store.silence(*crowd, by_secs=-EDGE_SECS)
        late = [rng.uniform(-EDGE_SECS, EDGE_SECS) for _ in crowd]
        beats = [beat(port, secs) for port, secs in enumerate(late, 1)]
        await asyncio.gather(sweep(), *beats)
        assert await bench.count() == {"healthy": CROWD}
    store.check()
    flips = len(store.events(Kind.UNHEALTHY))
    assert flips == len(store.events(Kind.HEALTHY)), "each flip was undone by its beat"
    assert ROUNDS < flips < ROUNDS * CROWD, f"both orders were met: {flips} flips"


def test_two_processes_at_one_address_never_touch_each_others_life(
    server: Server,
) -> None:
    """Each starts life after life and says anything, late things of its former lives too."""
    rivals = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.faults.rival", server.url, str(seed)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in (1, 2)
    ]
    told = [rival.communicate(timeout=60)[0].split() for rival in rivals]
    assert [rival.returncode for rival in rivals] == [0, 0]
    actors, answers = [words[0] for words in told], [words[1:] for words in told]
    lives = [set(words[0::2]) for words in answers]
    assert not lives[0] & lives[1]

    events = [e for e in server.store.events() if e.subject == ADDRESS]
    newest = ""
    for event in events:
        assert event.instance is not None
        life = event.instance.incarnation or ""
        assert life >= newest, f"an older life is back: {event}"
        newest = life
        assert life in lives[actors.index(event.actor)], f"a rival's: {event}"
    kinds = Counter(event.kind for event in events)
    assert min(kinds[Kind.REGISTERED], kinds[Kind.DEREGISTERED], kinds[Kind.READY]) > 20
    for words in answers:
        assert set(words[1::2]) == {"taken", "superseded"}, "each had to yield"
    server.store.check()

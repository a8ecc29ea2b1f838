"""Two releases on one Redis for minutes: who comes, goes and dies, and when, is chance."""

from __future__ import annotations

import random
import signal
import time

import pytest

from redis_registry.testing import Proxy, Standalone
from tests.load.conftest import Tell
from tests.load.programs import part
from tests.upgrade.conftest import Enlist, enlist, homes
from tests.upgrade.test_rolling import Fleet, redis

__all__ = ["enlist", "homes", "redis"]  # fixtures

ROUNDS = part(40)
MOST = 4


def disturb(fleet: Fleet, chance: random.Random) -> str:
    """Something happens; what it was."""
    what = chance.choice(["restart", "cut", "freeze Redis", "freeze the leader"])
    match what:
        case "restart":
            fleet.server.kill()
            fleet.server.start()
        case "cut":
            fleet.proxy.cut()
        case "freeze Redis":
            fleet.server.pause()
            time.sleep(1)  # for how long it lasts
            fleet.server.resume()
        case _:
            leader = fleet.leader()
            if leader is not None:
                leader.process.send_signal(signal.SIGSTOP)
                time.sleep(1)  # less than its workers may be silent
                leader.process.send_signal(signal.SIGCONT)
    return what


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_releases_come_and_go(
    redis: Standalone, enlist: Enlist, seed: int, tell: Tell
) -> None:
    chance = random.Random(seed)
    done: list[str] = []
    with Proxy(redis.port) as proxy:
        fleet = Fleet(redis, proxy, enlist)
        fleet.join("old", "new")
        fleet.settle()
        for reader in fleet.readers.values():
            reader.ask("work")
        for _ in range(ROUNDS):
            if len(fleet.members) > 1 and chance.random() < len(fleet.members) / MOST:
                ends = chance.choice([fleet.kill, fleet.leave])
                ends(chance.choice(fleet.members))
            else:
                fleet.join(chance.choice(["old", "new"]))
            done.append(disturb(fleet, chance))
            fleet.settle()
        fleet.judge(forgiven={"NoneAvailable"})
    tell(
        f"  seed {seed}: {ROUNDS} rounds, {len(fleet.dead)} died, {len(fleet.gone)} left"
    )

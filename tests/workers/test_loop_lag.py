"""One timer for all that is announced on an event loop, whatever their intervals."""

from __future__ import annotations

import asyncio
import time

from redis_registry import RedisModelRegistry
from redis_registry.roles.sending import loop_lag
from redis_registry.roles.sending.life import Life
from redis_registry.roles.sending.loop_lag import LoopTicker
from tests.helpers import instance, until


def life(port: int, interval_secs: float) -> Life:
    return Life.of(instance(port), interval_secs, {})


def lag(of: Life) -> float:
    return of.evidence(time.monotonic()).loop_lag_secs or 0.0


async def test_lives_of_different_intervals_share_one_ticker() -> None:
    slow, quick = life(1, 40.0), life(2, 0.2)
    ticker = LoopTicker.here()
    ticker.add(slow)
    ticker.add(quick)
    assert LoopTicker.here() is ticker
    await asyncio.sleep(0.3)
    assert max(lag(slow), lag(quick)) < 0.2, "the loop runs"
    time.sleep(0.5)  # noqa: ASYNC251  on purpose
    assert lag(slow) > 0.4, "the slow one shows it as exactly as the quick one"
    assert abs(lag(slow) - lag(quick)) < 0.05

    async def on_time() -> bool:
        return lag(slow) + lag(quick) == 0.0

    await until(on_time, "it runs again")
    ticker.discard(quick)

    async def at_its_own_pace() -> bool:
        return (slow._tick_due or 0.0) > time.monotonic() + 5

    await until(at_its_own_pace, "nobody needs the quick pace any more")
    ticker.discard(slow)
    assert not loop_lag._tickers


async def test_a_block_that_is_cancelled_leaves_no_ticker(
    worker_side: RedisModelRegistry,
) -> None:
    inside = asyncio.Barrier(3)

    async def work(port: int) -> None:
        async with worker_side.announce(instance(port)):
            await inside.wait()
            await asyncio.Event().wait()

    first, second = (asyncio.create_task(work(port)) for port in (1, 2))
    await inside.wait()
    first.cancel()
    await asyncio.wait([first])
    assert len(loop_lag._tickers) == 1, "the other one goes on"
    second.cancel()
    await asyncio.wait([second])
    assert not loop_lag._tickers


def test_a_loop_that_ended_in_disorder_is_forgotten() -> None:
    async def disorder() -> None:
        LoopTicker.here().add(life(1, 0.2))

    async def order() -> None:
        assert len(loop_lag._tickers) == 1
        LoopTicker.here()
        assert list(loop_lag._tickers) == [asyncio.get_running_loop()]

    asyncio.run(disorder())
    asyncio.run(order())
    loop_lag._tickers.clear()

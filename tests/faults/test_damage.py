"""What somebody else does to our keys is refused before any change, skipped, or mended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from redis_registry import KeyConflict, Load, Readiness
from redis_registry.store.operations import Term
from redis_registry.wire.keys import identity_text
from tests.conftest import Bench
from tests.helpers import KNOWN, instance, until

pytestmark = pytest.mark.damages

LIVING, DOWN, OVERDUE, NEW = (instance(port, incarnation="1") for port in (1, 2, 3, 9))
HOLDER = "tester"


async def fill(bench: Bench) -> Term:
    """A bit of everything that a partition can hold; the term of the checker."""
    registry = bench.registry
    bench.server.raw.flushall()
    for item in (LIVING, DOWN, OVERDUE):
        await registry.register_instance(item)
    await registry.deregister_instance(DOWN)
    await registry.override(LIVING, weight=2, reason="x", name="kept")
    await registry.set_alias("prod", "glm@llm")
    await run(bench, "adopt", 0, HOLDER, [(7, LIVING.identity)])
    for _ in range(2):
        await registry.report_failure(OVERDUE)
    checker = await bench.sweep()
    bench.store.silence(OVERDUE)
    return checker._terms[0]


async def run(bench: Bench, name: str, *args: Any) -> Any:
    """One operation of the store."""
    operations, executor = bench.registry._operations, bench.registry._executor
    return await executor.run(getattr(operations, name)(*args))


Write = Callable[[Bench, Term], Awaitable[object]]
DOWN_ID, OVERDUE_MEMBER = (
    identity_text(DOWN.identity),
    identity_text(OVERDUE.identity) + ":60000:1",
)
WRITES: dict[str, Write] = {
    "register new": lambda b, _: b.registry.register_instance(NEW),
    "register again": lambda b, _: b.registry.register_instance(LIVING),
    "revive by registering": lambda b, _: b.registry.register_instance(
        DOWN.model_copy(update={"incarnation": "2"})
    ),
    "beat": lambda b, _: b.registry.send_heartbeats([LIVING], [Load(in_flight=3)]),
    "beat of one that is down": lambda b, _: b.registry.send_heartbeats(
        [DOWN.model_copy(update={"incarnation": None})]
    ),
    "ready": lambda b, _: b.registry.set_readiness(LIVING, Readiness.NOT_READY, "why"),
    "deregister": lambda b, _: b.registry.deregister_instance(LIVING),
    "remove": lambda b, _: b.registry.deregister_instance(
        LIVING.model_copy(update={"remove_from_registry": True})
    ),
    "override": lambda b, _: b.registry.override(LIVING, weight=0, reason="y"),
    "clear override": lambda b, _: b.registry.clear_override("kept"),
    "alias": lambda b, _: b.registry.set_alias("canary", "glm@llm"),
    "remove alias": lambda b, _: b.registry.remove_alias("prod"),
    "report failures": lambda b, _: b.registry.report_failure(LIVING),
    "adopt": lambda b, _: run(b, "adopt", 0, HOLDER, [(8, LIVING.identity)]),
    "unreserve": lambda b, _: run(b, "unreserve", 0, HOLDER, [7]),
    "renew": lambda b, _: run(b, "renew", 0, HOLDER, 1, "other"),
    "reclaim": lambda b, _: run(b, "reclaim", 0),
    "sweep": lambda b, _: run(b, "sweep", 0, "tester"),
    "flip": lambda b, term: run(b, "flip", term, [OVERDUE_MEMBER], {}),
    "forget": lambda b, term: run(b, "forget", term, [DOWN_ID]),
    "expire": lambda b, term: run(b, "expire", term),
    "mend": lambda b, term: run(b, "mend", term, "deadlines", "0"),
    "rebase": lambda b, term: run(b, "rebase", term, 0),
    "release": lambda b, term: run(b, "release", term),
}
PARTS = [*KNOWN, "m:glm@llm", f"h:{HOLDER}", *map("i:{}".format, [
    identity_text(item.identity) for item in (LIVING, DOWN, OVERDUE, NEW)
])]  # fmt: skip


def dump(bench: Bench) -> dict[bytes, Any]:
    raw = bench.server.raw
    return {key: raw.dump(key) for key in raw.keys("*")}


@pytest.mark.parametrize("part", PARTS)
async def test_whatever_key_is_taken_no_write_is_half_done(
    bench: Bench, part: str
) -> None:
    """A script that fails at a key of another type has changed nothing before."""
    half: list[str] = []
    refused = 0
    for name, write in WRITES.items():
        term = await fill(bench)
        bench.server.raw.delete(bench.store.key(part))
        bench.server.raw.set(bench.store.key(part), "somebody else's")
        before = dump(bench)
        try:
            await write(bench, term)
        except KeyConflict:
            refused += 1
            if dump(bench) != before:
                half.append(name)
    assert half == []
    assert refused


LOSABLE = [part for part in PARTS if part != "i:" + identity_text(NEW.identity)]


@pytest.mark.parametrize("part", LOSABLE)
async def test_whatever_key_is_lost_heartbeats_and_sweeps_mend_the_rest(
    bench: Bench, part: str
) -> None:
    """Deleted by hand, or evicted by a Redis that was told to evict."""
    await fill(bench)
    bench.server.raw.delete(bench.store.key(part))
    checker = bench.checkers[0]
    for _ in range(2):
        checker._mending.clear()
        await bench.registry.send_heartbeats([LIVING])
        await bench.sweep()
    bench.store.age(61, away=False)
    await bench.registry.send_heartbeats([LIVING])
    await bench.sweep()
    bench.store.check()
    states = await bench.states()
    assert states.pop(1) == "healthy"
    assert set(states.values()) <= {"unhealthy"}


@pytest.mark.parametrize(
    ("place", "names"),
    [("m:glm@llm", ()), ("m:glm@llm", ("glm@llm",)), ("models", ()), ("served", ("lora",))],
    ids=["index", "index-one-name", "models", "served"],
)  # fmt: skip
async def test_a_view_that_was_read_without_them_hears_of_those_that_are_mended(
    bench: Bench, place: str, names: tuple[str, ...]
) -> None:
    for item in (LIVING, OVERDUE):
        await bench.registry.register_instance(
            item.model_copy(update={"serves": ("lora",)})
        )
    await bench.sweep()
    bench.server.raw.delete(bench.store.key(place))
    async with bench.registry.view(*names) as view:
        assert not view.instances()
        bench.checkers[0]._mending.clear()
        await bench.sweep()

        async def shown() -> bool:
            found = {item.port for item in view.instances()}
            return found == {LIVING.port, OVERDUE.port}

        await until(shown, "the view has them")
        bench.store.check()


async def test_a_view_that_was_read_without_a_model_hears_of_all_of_it_with_the_next_of_it(
    bench: Bench,
) -> None:
    """Who registers lists the model again; nothing is left to mend then."""
    await bench.registry.send_heartbeats([LIVING, OVERDUE])
    bench.server.raw.delete(bench.store.key("models"))
    async with bench.registry.view() as view:
        assert not view.instances()
        await bench.registry.register_instance(NEW)

        async def shown() -> bool:
            found = {item.port for item in view.instances()}
            return found == {LIVING.port, OVERDUE.port, NEW.port}

        await until(shown, "the view has them")

"""Nothing is lost without a word, whatever happens to connections and servers (R1, R2, R3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from redis_registry import Event, Kind, RedisModelRegistry
from redis_registry.roles.following.tail import Place, Tail
from redis_registry.store.following import Entry
from tests.conftest import _binary
from tests.following.chaos import Chaos
from tests.following.test_watch import next_of
from tests.following.validator import Untrue, Validator
from tests.helpers import instance


def nothing(_registry: RedisModelRegistry) -> None:
    pass


@pytest.mark.parametrize("kind", ["valkey", "redis7"])
async def test_view_and_watch_are_true_after_cuts_restart_failover_and_trim(
    kind: str, no_tasks_left: None
) -> None:
    chaos = Chaos(800, 60, ("restart", "trim", "failover"), binary=_binary(kind))
    await chaos.run(nothing)

    causes = chaos.validator.causes
    assert chaos.cut >= 60
    assert causes["begin"] == 1
    assert causes["new epoch"] >= 2
    assert causes["trimmed"] >= 1


async def test_the_validator_finds_an_event_that_was_swallowed(
    monkeypatch: pytest.MonkeyPatch, no_tasks_left: None
) -> None:
    """The tail itself made to lie: one change in fifty does not reach its followers."""
    take = Tail._take

    def swallow(self: Tail, entry: Entry) -> None:
        if entry.revision % 50 == 0:
            self.places[entry.partition] = Place(entry.epoch, entry.revision)
        else:
            take(self, entry)

    monkeypatch.setattr(Tail, "_take", swallow)
    with pytest.raises(Untrue, match="without a resync"):
        await Chaos(200, 3, ()).run(nothing)


async def _told(registry: RedisModelRegistry) -> list[Event]:
    async with registry.watch() as watch:
        events = [await next_of(watch, Kind.RESYNC)]
        for port in (1, 2, 1, 3):
            await registry.register_instance(instance(port, weight=port * 2.0))
            await registry.deregister_instance(instance(port))
            events += [await anext(watch), await anext(watch)]
    return events


def _swallowed(told: list[Event]) -> list[Event]:
    return told[:3] + told[4:]


def _twice(told: list[Event]) -> list[Event]:
    return [*told[:3], told[2], *told[3:]]


def _swapped(told: list[Event]) -> list[Event]:
    return [*told[:3], told[4], told[3], *told[5:]]


def _headless(told: list[Event]) -> list[Event]:
    return told[1:]


def _moved(told: list[Event]) -> list[Event]:
    return [*told[:3], replace(told[3], epoch="other")]


def _false(told: list[Event]) -> list[Event]:
    return [*told[:3], replace(told[3], before=told[1].instance)]


def _back(told: list[Event]) -> list[Event]:
    return [*told, replace(told[0], revision=0)]


FAULTS: dict[Callable[[list[Event]], list[Event]], str] = {
    _swallowed: "without a resync",
    _twice: "without a resync",
    _swapped: "without a resync",
    _headless: "not with a resync",
    _moved: "another epoch",
    _false: "before the event",
    _back: "go back",
}


@pytest.mark.one_partition("the validator is of one stream")
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_the_validator_finds_each_kind_of_lie(
    real: RedisModelRegistry, fault: Callable[[list[Event]], list[Event]]
) -> None:
    events = await _told(real)
    honest = Validator()
    honest.take_all(events)
    honest.compare(await real.get_all_model_instances())
    with pytest.raises(Untrue, match="Redis holds"):
        honest.compare([])

    with pytest.raises(Untrue, match=FAULTS[fault]):
        Validator().take_all(fault(events))

"""What a process keeps of models and instances goes with them: it lives longer than they do."""

from __future__ import annotations

import gc

import pytest

from redis_registry import Candidates, Chooser, ModelInstance, Outstanding
from redis_registry.core.mirror import Mirror
from redis_registry.roles import reserving
from redis_registry.selection import policy
from redis_registry.store import writers
from redis_registry.store.replies import Page
from redis_registry.wire.raw_rows import held_out_until
from tests.conftest import Bench
from tests.helpers import instance, until
from tests.selection.fleets import instance as able

MANY = 300


def chosen_once(chooser: Chooser, number: int) -> ModelInstance | None:
    one = able(model_name=f"model {number}")
    return chooser.choose(Candidates([one]), key="session")


@pytest.mark.parametrize("name", ["least_loaded", "consistent_hash"])
def test_outstanding_forgets_models_of_which_nobody_chooses(name: str) -> None:
    outstanding = Outstanding()
    chooser = Chooser(name, outstanding=outstanding)
    for number in range(MANY):
        assert chosen_once(chooser, number)
        gc.collect(0)
        assert len(outstanding._followers) <= 1


def test_outstanding_forgets_the_last_models_though_nobody_chooses_any_more() -> None:
    outstanding = Outstanding()
    chooser = Chooser("least_loaded", outstanding=outstanding)
    for number in range(MANY):
        assert chosen_once(chooser, number)
    del chooser
    gc.collect()

    assert not outstanding._followers
    assert not outstanding._gone


def test_turns_are_remembered_of_so_many_models(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(policy, "_MOST_TURNS", 10)
    turns = policy.RoundRobin()
    for number in range(MANY):
        assert chosen_once(Chooser(turns), number)
    assert len(turns._turns) <= 10


async def test_a_view_reads_loads_only_of_names_that_find_somebody(
    bench: Bench,
) -> None:
    await bench.registry.send_heartbeats([instance(1)])
    async with bench.registry.view() as view:
        for number in range(MANY):
            view.select(f"nobody {number}", "least_loaded")
        assert view.select("glm@llm", "least_loaded")
        wanted = view._live.loads.wanted

        async def only_it() -> bool:
            return wanted == {"glm@llm"}

        await until(only_it, "the others are not wanted any more")


def test_who_is_gone_when_read_anew_is_not_waited_for() -> None:
    mirror = Mirror()
    row = b"m:h:1|11r|60000:|1|1|0|0|1||||e:5:1:|\x92\x01\x80"
    assert held_out_until(row) == 5
    mirror.add(0, Page("", 1, [row], None))
    mirror.serve_time(0, now_us=6)
    assert mirror.awaiting == {"m:h:1"}
    mirror.take_over(0, Mirror())
    assert mirror.awaiting == set()


async def test_candidates_are_kept_of_models_that_are_asked_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reserving, "FRESH_SECS", 0.0)  # they are old at once
    many = [instance(1, f"model {number}") for number in range(MANY)]
    await bench.registry.send_heartbeats(many)
    for one in many:
        async with bench.registry.reserve(one.model_name):
            pass
    assert len(bench.registry._reserver._fleets) <= reserving.FEW


async def test_epochs_are_remembered_of_so_many_registrations(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writers, "MOST_BELIEFS", 10)
    for port in range(1, 40):
        await bench.registry.register_instance(instance(port))
    assert len(bench.registry._operations._epochs) <= 10

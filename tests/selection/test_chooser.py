"""Narrowing: labels, zones, canary, slow start, subsets."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redis_registry import (
    Canary,
    Candidates,
    Chooser,
    ConfigurationError,
    ModelInstance,
    choose,
    subset,
)
from redis_registry.selection import POLICIES
from tests.selection.fleets import FAILURES, fleet, instance, picks, since


def zoned(*zones: str | None) -> list[ModelInstance]:
    """One in each of these zones."""
    return [instance(n, zone=zone) for n, zone in enumerate(zones)]


def zone_of(instances: list[ModelInstance], **how: Any) -> set[str | None]:
    """The zones that picks go to."""
    chooser, candidates = Chooser(**how), Candidates(instances)
    found = [chooser.choose(candidates, "key") for _ in range(60)]
    return {one.zone if one else "nobody" for one in found}


@pytest.mark.parametrize("policy", POLICIES)
def test_labels_are_for_nobody_else(policy: str) -> None:
    instances = [instance(n, metadata={"gpu": gpu}) for n, gpu in enumerate("aab")]
    chooser = Chooser(policy, labels={"gpu": ["b", "c"]})
    assert picks(chooser, instances, 20, keys=True) == {2: 20}
    assert choose(instances, policy, "key", labels="gpu=c") is None


def test_the_last_with_these_labels_are_not_held_out() -> None:
    out = instance(0, zone="a", held_out=FAILURES)
    assert choose([out, instance(1, zone="b")], labels="zone=a") is out


def test_zones_spill_over_in_order() -> None:
    a, b, c, d = zoned("a", "b", "c", None)
    how: dict[str, Any] = {"policy": "random", "zones": ["a", "b"]}
    assert zone_of([a, b, c, d], **how) == {"a"}
    ill = a.model_copy(update={"healthy": False})
    assert zone_of([ill, b, c, d], **how) == {"b"}
    assert zone_of([ill, c, d], **how) == {"c", None}
    assert zone_of([ill, c, d], **how, strict_zones=True) == {"nobody"}
    # Who is held out does not keep its zone going while others can.
    out = a.model_copy(update={"held_out": FAILURES})
    assert zone_of([out, b, c, d], **how) == {"b"}
    assert zone_of([out], **how) == {"a"}


def test_a_canary_gets_its_share_and_each_side_replaces_the_other() -> None:
    instances = [instance(n, metadata={"v": "2" if n == 0 else "1"}) for n in range(10)]
    trial = Canary("v=2", 0.25)
    for keys in (False, True):
        found = picks(Chooser(canary=trial), instances, 20_000, keys=keys)
        assert found[0] == pytest.approx(5000, abs=250)
    assert picks(Chooser(canary=trial), instances[:1], 5) == {0: 5}
    assert 0 not in picks(Chooser(canary=Canary("v=2", 0)), instances, 500)
    assert picks(Chooser(canary=Canary("v=2", 1)), instances, 500) == {0: 500}
    assert len(picks(Chooser(canary=trial), instances[1:], 500)) == 9


def test_the_canary_has_its_share_whatever_zone_it_is_in() -> None:
    instances = [
        instance(0, zone="far", metadata={"v": "2"}),
        *(instance(n, zone="near" if n < 3 else "far") for n in range(1, 5)),
    ]
    chooser = Chooser(canary=Canary({"v": 2}, 0.5), zones=["near"])
    found = picks(chooser, instances, 2000)
    assert found[0] == pytest.approx(1000, abs=120)
    assert set(found) == {0, 1, 2}


def test_with_a_key_the_side_stays_and_a_greater_share_only_adds() -> None:
    instances = [instance(n, metadata={"v": str(n % 2)}) for n in range(4)]
    candidates = Candidates(instances)
    keys = [f"user-{n}" for n in range(500)]
    trial: set[str] = set()
    for share in (0.1, 0.2, 0.5, 0.9):
        chooser = Chooser("rendezvous", canary=Canary("v=1", share))
        again = Chooser("random", canary=Canary("v=1", share))
        now: set[str] = set()
        for key in keys:
            chosen, other = (
                chooser.choose(candidates, key),
                again.choose(candidates, key),
            )
            assert chosen
            assert other
            assert chosen.metadata == other.metadata
            if chosen.metadata["v"] == "1":
                now.add(key)
        assert trial <= now
        assert len(now) == pytest.approx(500 * share, abs=60)
        trial = now


@pytest.mark.parametrize(
    ("policy", "keys"),
    [
        ("weighted", False),
        ("random", False),
        ("round_robin", False),
        ("rendezvous", True),
    ],
)
def test_slow_start_is_linear(policy: str, keys: bool) -> None:
    clock = [1000.0]
    instances = [
        *(instance(n, since=since(0)) for n in range(3)),
        instance(3, since=since(1000)),
    ]
    chooser = Chooser(policy, slow_start_secs=64, now=lambda: clock[0])
    candidates, shares = Candidates(instances), list[float]()
    for passed in (0, 16, 32, 48, 64, 640):
        clock[0] = 1000 + passed
        found = picks(chooser, candidates, 8000, keys=keys)
        part = min(1.0, passed / 64 + 1 / 32)
        share = found[3] / 8000
        assert share == pytest.approx(part / (3 + part), abs=0.025)
        shares.append(share)
    assert shares == sorted(shares) or shares[-1] == pytest.approx(shares[-2], abs=0.02)


def test_slow_start_by_load_counts_the_same_load_as_more() -> None:
    chooser = Chooser("least_loaded", slow_start_secs=64, now=lambda: 1032)
    candidates = Candidates([instance(0), instance(1, since=since(1000))])
    counts = Counter[str]()
    for _ in range(300):
        chosen = chooser.choose(candidates)
        assert chosen
        chooser.outstanding.begin(chosen)
        counts[chosen.host] += 1
    assert counts[candidates.instances[1].host] == pytest.approx(104, abs=4)


@given(
    st.lists(st.floats(0, 100), min_size=1, max_size=20),
    st.floats(0, 200),
    st.sampled_from(POLICIES),
)
def test_a_fleet_that_is_all_new_refuses_nothing(
    came: list[float], now: float, policy: str
) -> None:
    instances = [instance(n, since=since(at)) for n, at in enumerate(came)]
    chooser = Chooser(policy, slow_start_secs=50, now=lambda: now)
    candidates = Candidates(instances)
    assert all(chooser.choose(candidates, str(key)) for key in range(5))


def test_all_new_ones_of_one_age_share_alike() -> None:
    instances = [instance(n, since=since(1000)) for n in range(4)]
    chooser = Chooser("weighted", slow_start_secs=60, now=lambda: 1001)
    found = picks(chooser, instances, 8000)
    assert all(1800 < count < 2200 for count in found.values())


def test_a_round_robin_of_one_old_and_many_new_ends() -> None:
    instances = [instance(0), *(instance(n, since=since(1000)) for n in range(1, 2000))]
    chooser = Chooser("round_robin", slow_start_secs=60, now=lambda: 1000)
    found = picks(chooser, instances, 2000)
    assert found[0] > 10  # 32 times as often as each of the others


def test_what_does_not_depend_on_the_weights_is_computed_once_in_a_slow_start() -> None:
    clock = [1000.0]
    instances = [instance(n, since=since(1000)) for n in range(3)]
    chooser = Chooser("consistent_hash", slow_start_secs=64, now=lambda: clock[0])
    candidates = Candidates([*instances, instance(3)])
    chooser.choose(candidates, "key")
    pick: Any = candidates.kept(chooser)
    start = pick.__self__
    points = start._whole.kept("points")
    clock[0] += 30
    chooser.choose(candidates, "key")
    assert points is not None
    assert start._whole.kept("points") is points


NAMES = st.lists(st.integers(0, 400), unique=True, min_size=1, max_size=60)


@settings(max_examples=60)
@given(NAMES, st.integers(1, 20), st.text(max_size=5), st.data())
def test_a_subset_moves_little(
    numbers: list[int], size: int, client: str, data: st.DataObject
) -> None:
    instances = [instance(number) for number in numbers]
    mine = subset(instances, client, size)
    assert mine == subset(list(instances), client, size)
    assert len(mine) == min(size, len(instances))
    assert mine == [one for one in instances if one in mine]
    gone = data.draw(st.sampled_from(instances))
    after = subset([one for one in instances if one is not gone], client, size)
    assert len([one for one in after if one not in mine]) <= (gone in mine)
    if gone not in mine:
        assert after == mine


def test_subsets_spread_over_clients() -> None:
    instances, counts = fleet(50), Counter[str]()
    for client in range(500):
        counts.update(one.host for one in subset(instances, f"client-{client}", 10))
    assert min(counts.values()) > 60
    assert max(counts.values()) < 140


def test_a_chooser_keeps_to_its_subset() -> None:
    instances = fleet(30)
    chooser = Chooser("random", subset=4, client_id="web-1")
    mine = subset(instances, "web-1", 4)
    found = picks(chooser, instances, 400)
    assert [instances[at] for at in sorted(found)] == mine


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"subset": 3}, "client_id="),
        ({"subset": 0, "client_id": "a"}, "at least 1"),
        ({"slow_start_secs": 5}, "needs now="),
        ({"slow_start_secs": 0, "now": float}, "above 0"),
        ({"slow_start_secs": float("nan"), "now": float}, "above 0"),
        ({"zones": "eu"}, "sequence of names"),
        ({"labels": "gpu"}, "expected name=value"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(
    how: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Chooser(**how)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_is_from_0_to_1(share: float) -> None:
    with pytest.raises(ConfigurationError, match="share from 0 to 1"):
        Canary("v=2", share)
    with pytest.raises(ConfigurationError, match="at least 1"):
        subset([], "a", 0)


def test_what_is_kept_is_bounded() -> None:
    candidates = Candidates(fleet(3))
    random.seed(1)
    for _ in range(1000):
        Chooser("random").choose(candidates)
    assert len(candidates._kept) <= 256


def test_narrowed_candidates_are_shared_by_choosers() -> None:
    candidates = Candidates(zoned("a", "b"))
    labels = Canary("zone=a", 0.5).labels
    assert candidates.narrowed(labels) is candidates.narrowed(labels)
    assert candidates.nearest(("a",)) is candidates.nearest(("a",))
    assert candidates.split(labels) is candidates.split(labels)
    assert candidates.subset("a", 1) is candidates.subset("a", 1)

"""By key: the same everywhere, little movement, bounded loads."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from collections import Counter
from hashlib import blake2b

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redis_registry import (
    Candidates,
    Chooser,
    ConfigurationError,
    ConsistentHash,
    ModelInstance,
    Outstanding,
    Rendezvous,
)
from redis_registry.selection import hashing
from redis_registry.selection import keys as keys_module
from tests.selection.fleets import fleet, instance, picks

HASHING = ("consistent_hash", "rendezvous")
KEYS = [f"session-{n}" for n in range(3000)]
WEIGHTS = st.sampled_from([0.01, 0.5, 1, 2, 5, 10, 1000])


def owners(policy: str, instances: list[ModelInstance]) -> list[ModelInstance]:
    """Who each key goes to."""
    chooser, candidates = Chooser(policy), Candidates(instances)
    found = [chooser.choose(candidates, key) for key in KEYS]
    return [one for one in found if one is not None]


@pytest.mark.parametrize("policy", HASHING)
@pytest.mark.parametrize("weights", [[1], [1, 2, 5, 10]], ids=["even", "uneven"])
@pytest.mark.parametrize("size", [2, 10, 100])
def test_one_that_goes_takes_only_its_own_keys_along(
    policy: str, weights: list[float], size: int
) -> None:
    instances = fleet(size, weights)
    before = owners(policy, instances)
    moved: list[float] = []
    for gone in random.Random(5).sample(instances, min(size, 6)):
        left = [one for one in instances if one is not gone]
        after = owners(policy, left)
        for old, new in zip(before, after, strict=True):
            assert new is old or old is gone
        share = before.count(gone) / len(KEYS)
        moved.append(share)
    if weights == [1]:
        assert sum(moved) / len(moved) <= 1 / size + 0.02


@pytest.mark.parametrize("policy", HASHING)
@settings(max_examples=40)
@given(
    weights=st.lists(WEIGHTS, min_size=1, max_size=30),
    at=st.integers(0, 29),
    new=WEIGHTS,
    keys=st.lists(st.text() | st.binary(), min_size=1, max_size=20),
)
def test_a_weight_that_changes_moves_keys_only_from_or_to_its_instance(
    policy: str, weights: list[float], at: int, new: float, keys: list[str | bytes]
) -> None:
    at %= len(weights)
    before = [instance(n, weight=weight) for n, weight in enumerate(weights)]
    after = list(before)
    after[at] = instance(at, weight=new)
    chooser, older, newer = Chooser(policy), Candidates(before), Candidates(after)
    for key in keys:
        old, now = chooser.choose(older, key), chooser.choose(newer, key)
        assert old
        assert now
        if new >= weights[at]:
            assert now.identity in (old.identity, after[at].identity)
        else:
            assert old.identity in (now.identity, after[at].identity)


@settings(max_examples=60)
@given(st.lists(WEIGHTS, min_size=1, max_size=12), st.lists(st.text(), min_size=10))
def test_the_circle_is_searched_as_far_as_the_best_score_of_all(
    weights: list[float], keys: list[str]
) -> None:
    instances = [instance(n, weight=weight) for n, weight in enumerate(weights)]
    points = [hashing._POINTS(keys_module.digest_of(i.identity)) for i in instances]
    chooser, candidates = Chooser("consistent_hash"), Candidates(instances)
    for key in keys:
        probes = hashing._PROBES(blake2b(keys_module.key_bytes(key)).digest())
        scores = [
            min((point - probe) % 2**32 or 2**32 for probe in probes for point in mine)
            / weight
            for mine, weight in zip(points, weights, strict=True)
        ]
        chosen = chooser.choose(candidates, key)
        assert chosen is instances[scores.index(min(scores))]


@pytest.mark.parametrize("policy", HASHING)
def test_the_order_of_the_instances_decides_nothing(policy: str) -> None:
    for weights in ([1], [1, 2, 5]):
        instances = fleet(50, weights)
        mixed = random.Random(2).sample(instances, 50)
        assert owners(policy, instances) == owners(policy, mixed)


@pytest.mark.parametrize("policy", HASHING)
def test_shares_are_the_weights(policy: str) -> None:
    weights = [0, 1, 2, 5, 10]
    counts = [Counter[float]() for _ in range(8)]
    for turn, count in enumerate(counts):
        instances = [
            instance(host=f"{turn}-{n}", weight=weights[n % 5]) for n in range(20)
        ]
        for one in owners(policy, instances):
            count[one.weight or 0] += 1
    total = sum(counts, Counter[float]())
    assert total[0] == 0
    for weight in weights[1:]:
        share = total[weight] / total.total()
        assert share == pytest.approx(weight / 18, rel=0.15)


def test_no_instance_starves_or_chokes() -> None:
    found = picks(Chooser("consistent_hash"), fleet(100), 50_000, keys=True)
    assert min(found[at] for at in range(100)) > 500 * 0.4
    assert max(found.values()) < 500 * 1.6
    found = picks(Chooser("rendezvous"), fleet(100), 50_000, keys=True)
    assert min(found[at] for at in range(100)) > 500 * 0.75
    assert max(found.values()) < 500 * 1.25


# What these keys hash to must never change: sessions would move when a release is rolled out.
GOLDEN = {
    "consistent_hash": "50003773006377",
    "rendezvous": "95542407227223",
}


@pytest.mark.parametrize("policy", HASHING)
def test_the_answers_are_the_same_in_every_process_and_release(policy: str) -> None:
    code = (
        "from tests.selection.test_hashing import golden; "
        f"print(golden({policy!r}), end='')"
    )
    for seed in ("1", "2"):  # of hash(), which must not matter
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        )
        assert done.stdout == GOLDEN[policy]


def golden(policy: str) -> str:
    """The places that some keys go to, of even and of uneven instances."""
    found: list[str] = []
    for weights in ([1], [1, 2, 5, 10]):
        instances = fleet(10, weights)
        chooser, candidates = Chooser(policy), Candidates(instances)
        for key in ("", "a", b"a", "sässion", b"\xff\x00", "\ud800", "x" * 1000):
            chosen = chooser.choose(candidates, key)
            assert chosen
            found.append(str(instances.index(chosen)))
    return "".join(found)


@pytest.mark.parametrize("policy", HASHING)
def test_without_a_key_it_says_what_is_missing(policy: str) -> None:
    with pytest.raises(ConfigurationError, match="say key="):
        Chooser(policy).choose(Candidates(fleet(2)))


@settings(max_examples=60, deadline=None)
@given(
    weights=st.lists(st.sampled_from([1, 1, 1, 2, 10]), min_size=1, max_size=12),
    spare=st.sampled_from([0, 0.1, 0.25, 1]),
    ends=st.lists(st.integers(0, 200), max_size=60),
    hot=st.booleans(),
)
def test_nobody_has_more_than_its_share_and_the_spare(
    weights: list[float], spare: float, ends: list[int], hot: bool
) -> None:
    outstanding = Outstanding()
    chooser = Chooser(ConsistentHash(outstanding, spare=spare))
    candidates = Candidates(fleet(len(weights), weights))
    under_way: list[ModelInstance] = []
    for number in range(200):
        key = "hot" if hot else f"k{number}"
        chosen = chooser.choose(candidates, key)
        assert chosen
        outstanding.begin(chosen)
        under_way.append(chosen)
        mine = outstanding.counts[chosen.identity]
        part = (chosen.weight or 0) / sum(weights)
        bound = (1 + spare) * len(under_way) * part
        assert mine <= math.ceil(bound - 1e-9)
        if number in ends:
            for _ in range(len(under_way) // 2):
                outstanding.end(under_way.pop(number % len(under_way)))


def test_the_bound_moves_a_key_only_while_its_instance_is_full() -> None:
    outstanding = Outstanding()
    chooser = Chooser("consistent_hash", outstanding=outstanding)
    candidates = Candidates(fleet(5))
    home = chooser.choose(candidates, "hot")
    assert home
    with outstanding.using(home):
        elsewhere = chooser.choose(candidates, "hot")
        assert elsewhere is not home
        assert chooser.choose(candidates, "hot") is elsewhere
    assert chooser.choose(candidates, "hot") is home


def test_work_at_other_instances_of_the_model_does_not_raise_the_bound() -> None:
    outstanding = Outstanding()
    everybody = fleet(4)
    with outstanding.using(everybody[3]), outstanding.using(everybody[3]):
        chooser = Chooser("consistent_hash", outstanding=outstanding)
        few = Candidates(everybody[:3])
        home = chooser.choose(few, "hot")
        assert home
        with outstanding.using(home):
            assert chooser.choose(few, "hot") is not home


def test_no_bound_no_move() -> None:
    outstanding = Outstanding()
    chooser = Chooser(ConsistentHash(outstanding, spare=math.inf))
    candidates = Candidates(fleet(5))
    home = chooser.choose(candidates, "hot")
    assert home
    with outstanding.using(home):
        assert chooser.choose(candidates, "hot") is home
    for wrong in (-0.1, math.nan):
        with pytest.raises(ConfigurationError, match="spare"):
            ConsistentHash(spare=wrong)


def test_extreme_weights_break_nothing() -> None:
    for weights in ([5e-324, 1e308], [1e-300, 1e-300, 1], [5e-324]):
        instances = fleet(len(weights), weights)
        for policy in (ConsistentHash(), Rendezvous()):
            chosen = Chooser(policy).choose(Candidates(instances), "key")
            assert chosen is instances[-1]

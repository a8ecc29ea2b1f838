"""Random, weighted and round robin: the shares they promise."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_registry import Candidates, Chooser, ConfigurationError, Outstanding, choose
from redis_registry.selection import POLICIES, Key, Pick
from redis_registry.selection.policy import _alias
from tests.selection.fleets import fleet, instance, loaded, picks, since

# The 99th percentile of chi-squared, by degrees of freedom.
CHI_SQUARED = {3: 11.34, 4: 13.28, 9: 21.67}
PICKS = 100_000


def chi_squared(found: Counter[int], weights: Sequence[float]) -> float:
    """How far the picks are from these shares."""
    whole, total = sum(weights), found.total()
    expected = [total * weight / whole for weight in weights]
    return sum(
        (found[at] - due) ** 2 / due for at, due in enumerate(expected) if due > 0
    )


def test_weighted_keeps_to_the_weights_and_0_takes_nothing() -> None:
    weights = [0, 1, 2, 5, 10]
    found = picks(Chooser("weighted"), fleet(5, weights), PICKS)
    assert found[0] == 0
    assert chi_squared(found, weights) < CHI_SQUARED[3]


def test_no_weight_given_counts_as_1() -> None:
    found = picks(Chooser("weighted"), fleet(4, [None, 2, 1, 4]), PICKS)
    assert chi_squared(found, [1, 2, 1, 4]) < CHI_SQUARED[3]


def test_random_knows_no_weight_but_0() -> None:
    found = picks(Chooser("random"), fleet(5, [0, 1, 2, 5, 10]), PICKS)
    assert found[0] == 0
    assert chi_squared(found, [0, 1, 1, 1, 1]) < CHI_SQUARED[3]


def test_equal_weights_are_uniform() -> None:
    found = picks(Chooser("weighted"), fleet(10, [3]), PICKS)
    assert chi_squared(found, [1] * 10) < CHI_SQUARED[9]


@given(st.lists(st.floats(0, 1e308, exclude_min=True), min_size=1, max_size=40))
def test_the_alias_table_is_the_weights(shares: list[float]) -> None:
    odds, alias = _alias(shares)
    size, largest = len(shares), max(shares)
    whole = sum(share / largest for share in shares)
    chance = [odd / size for odd in odds]
    for at, odd in enumerate(odds):
        assert 0 <= odd <= 1
        chance[alias[at]] += (1 - odd) / size
    for share, got in zip(shares, chance, strict=True):
        assert got == pytest.approx(share / largest / whole, abs=1e-9)


def test_round_robin_takes_turns_and_goes_on_when_the_model_changes() -> None:
    chooser, instances = Chooser("round_robin"), fleet(5, [0, 1, 2, 5, 10])
    found = picks(chooser, instances, 400)
    assert found == {1: 100, 2: 100, 3: 100, 4: 100}
    turns = [chooser.choose(Candidates(instances)) for _ in range(8)]
    assert turns[:4] == turns[4:]
    assert len({str(one) for one in turns}) == 4


def test_round_robin_of_two_models_asked_alternately_misses_nobody() -> None:
    chooser, seen = Chooser("round_robin"), Counter[str]()
    models = [
        Candidates([instance(n, model_name=name) for n in range(2)]) for name in "ab"
    ]
    for turn in range(40):
        chosen = chooser.choose(models[turn % 2])
        assert chosen
        seen[str(chosen.identity)] += 1
    assert set(seen.values()) == {10}


def test_choosers_that_start_together_begin_with_different_ones() -> None:
    instances = fleet(20)
    for policy in ("round_robin", "least_loaded"):
        random.seed(3)
        firsts = {
            str(choose(instances, policy).identity)  # pyright: ignore[reportOptionalMemberAccess]
            for _ in range(50)
        }
        assert len(firsts) > 10


def test_an_unknown_policy_names_the_known() -> None:
    with pytest.raises(ConfigurationError, match="there is no 'fastest'") as raised:
        Chooser("fastest")
    for name in POLICIES:
        assert name in str(raised.value)


def test_bring_your_own_policy() -> None:
    class Last:
        def prepare(self, candidates: Candidates) -> Pick:
            last = candidates.able[-1]

            def pick(key: Key | None) -> object:
                return last

            return pick  # pyright: ignore[reportReturnType]

    instances = fleet(3)
    assert choose(instances, Last()) is instances[-1]
    assert choose([], Last()) is None


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("since_secs", [None, 1000])
def test_extreme_weights_and_loads_break_no_policy(
    policy: str, since_secs: float | None
) -> None:
    weights = [5e-324, 1e-300, 1, 1e308, 1.7e308, 0]
    came = [None if since_secs is None else since(since_secs + n) for n in range(6)]
    instances = [
        loaded(n, in_flight=10**n, weight=weight, since=came[n])
        for n, weight in enumerate(weights)
    ]
    outstanding = Outstanding()
    chooser = Chooser(
        policy, outstanding=outstanding, slow_start_secs=60, now=lambda: 1010.0
    )
    candidates = Candidates(instances)
    for number in range(200):
        chosen = chooser.choose(candidates, f"key-{number}")
        assert chosen
        assert chosen.weight
        outstanding.begin(chosen)

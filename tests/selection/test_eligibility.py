"""Who may receive new work, and the one reason why not."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_registry import Chooser, Reason, choose, selectable, why_not
from redis_registry.model import Health, ModelInstance, Readiness
from redis_registry.selection import POLICIES, Candidates, able, pick
from tests.selection.fleets import FAILURES, FLAPPING, instance

# Each row has its own obstacle, and those of all the rows below it that can be had together.
_LAST: dict[str, Any] = {"held_out": FAILURES}
_WEIGHT = _LAST | {"weight": 0}
_UNREADY = _WEIGHT | {"readiness": Readiness.NOT_READY}
_OFF = _UNREADY | {"enabled": False}
GOLDEN: list[tuple[Reason, dict[str, Any]]] = [
    (Reason.FORCED, _OFF | {"healthy": False, "state": Health.FORCED}),
    (Reason.UNHEALTHY, _OFF | {"healthy": False, "state": Health.UNHEALTHY}),
    (Reason.OVERDUE, _OFF | {"healthy": False, "state": Health.OVERDUE}),
    (Reason.DISABLED, _OFF),
    (Reason.DRAINING, _WEIGHT | {"readiness": Readiness.DRAINING}),
    (Reason.FAILED, _WEIGHT | {"readiness": Readiness.FAILED}),
    (Reason.STARTING, _WEIGHT | {"readiness": Readiness.STARTING}),
    (Reason.WEDGED, _WEIGHT | {"readiness": Readiness.WEDGED}),
    (Reason.NOT_READY, _UNREADY),
    (Reason.NO_WEIGHT, _WEIGHT),
    (Reason.FAILURES, _LAST),
    (Reason.FLAPPING, {"held_out": FLAPPING}),
]

READ = list(Reason)[: list(Reason).index(Reason.SHADOWED)]
"""Those that are told of an instance that was read."""

ANYBODY = st.builds(
    instance,
    st.integers(0, 5),
    healthy=st.booleans(),
    state=st.sampled_from([None, *Health]),
    enabled=st.booleans(),
    readiness=st.sampled_from(Readiness),
    weight=st.sampled_from([None, 0, 0.5, 1, 10]),
    held_out=st.sampled_from([None, FAILURES, FLAPPING]),
)


def test_every_reason_is_the_primary_one_exactly_once_and_in_order() -> None:
    given_reasons = [why_not(instance(**fields)) for _, fields in GOLDEN]
    assert given_reasons == [reason for reason, _ in GOLDEN] == READ


def test_nothing_in_the_way_is_no_reason() -> None:
    for weight in (None, 0.001, 1):
        assert why_not(instance(weight=weight)) is None
    assert why_not(instance(state=Health.PROTECTED)) is None
    assert why_not(instance(healthy=False, state=None)) is Reason.UNHEALTHY


@given(st.lists(ANYBODY, max_size=8), st.sampled_from(POLICIES))
def test_no_policy_picks_the_unselectable(
    instances: list[ModelInstance], policy: str
) -> None:
    chosen = choose(instances, policy, key="session")
    if any(map(selectable, instances)):
        assert chosen is not None
        assert selectable(chosen)
    elif chosen is not None:
        assert why_not(chosen) in (Reason.FAILURES, Reason.FLAPPING)
    else:
        reasons = set(map(why_not, instances))
        assert not reasons & {Reason.FAILURES, Reason.FLAPPING}


def test_a_models_last_instances_are_not_held_out() -> None:
    failing, flapping = instance(1, held_out=FAILURES), instance(2, held_out=FLAPPING)
    out = [failing, instance(3, weight=0, held_out=FAILURES), flapping]
    assert able(out) == Candidates(out).able == (failing, flapping)
    well = instance(4)
    assert able([*out, well]) == (well,)
    assert all(pick([*out, well]) is well for _ in range(50))
    assert pick(out) in (failing, flapping)


def test_of_a_sample_nobody_knows_whether_they_are_the_last() -> None:
    assert pick([instance(held_out=FAILURES)], sample=True) is None
    assert pick([instance()], sample=True) == instance()
    assert pick([]) is None


def test_pick_is_uniform_and_knows_no_weight_but_0() -> None:
    random.seed(7)
    instances = [instance(n, weight=weight) for n, weight in enumerate([0, 1, 1000])]
    found = [pick(instances) for _ in range(2000)]
    assert {one.port for one in instances} == {8000}
    assert instances[0] not in found
    assert 900 < found.count(instances[1]) < 1100


@pytest.mark.parametrize("policy", POLICIES)
def test_nobody_there_is_nobody_chosen(policy: str) -> None:
    assert Chooser(policy).choose(Candidates([]), "session") is None
    assert Chooser(policy).choose(Candidates([instance(weight=0)]), "k") is None

"""Which overrides are in force on an instance, and what it looks like under them."""

from __future__ import annotations

import itertools
import time
from datetime import timedelta
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_registry import Identity, InvalidOverride, ModelInstance, Override, Selector
from redis_registry.core.orders import Decision, clearing, decided
from redis_registry.model import EPOCH
from redis_registry.wire.in_force import NOTHING, Overrides
from redis_registry.wire.overrides import decode_override, encode_override, literal
from tests.helpers import instance, instances

_numbers = itertools.count()


def made(
    selector: Selector | ModelInstance,
    at_us: int = 0,
    ends_us: int | None = None,
    **says: Any,
) -> Override:
    fields: dict[str, Any] = {
        "name": f"o{next(_numbers)}",
        "author": "me",
        "reason": "why",
        "at": EPOCH + timedelta(microseconds=at_us),
        **says,
    }
    if ends_us is not None:
        fields["expires"] = EPOCH + timedelta(microseconds=ends_us)
    return Override(selector=Selector.of(selector), **fields)


def test_an_instance_nobody_means_is_the_same_object() -> None:
    item = instance()
    assert NOTHING.apply(item, 0) is item
    others = Overrides([made(Selector(port=9), weight=0), made(instance(7), weight=0)])
    assert others.apply(item, 0) is item


def test_the_instance_given_is_left_as_it_is() -> None:
    item = instance(metadata={"a": "1"})
    seen = Overrides([made(item, weight=0, labels={"a": "2", "zone": "z"})]).apply(
        item, 0
    )
    assert (seen.weight, seen.metadata, seen.zone) == (0, {"a": "2"}, "z")
    assert (item.weight, item.metadata, item.zone) == (1, {"a": "1"}, None)


def test_the_later_wins_field_by_field_and_one_instance_over_patterns() -> None:
    item = instance(zone="a")
    early = made(Selector(model="glm*"), 1, weight=1, enabled=False, labels={"x": "1"})
    late = made(Selector(zone="a"), 2, weight=2, labels={"x": "2", "y": "2"})
    exact = made(item, 0, weight=3)
    for order in itertools.permutations([early, late, exact]):
        seen = Overrides(order).apply(item, 10)
        assert (seen.weight, seen.enabled) == (3, False)
        assert seen.metadata == {"x": "2", "y": "2"}
        assert seen.overrides == [early.name, late.name, exact.name]


def test_one_instance_is_spared_a_drain_of_many() -> None:
    rack = made(Selector(host="10.*"), 1, draining=True)
    spared = made(instance(1), 0, draining=False)
    both = Overrides([rack, spared])
    assert both.apply(instance(1), 5).ready
    drained = both.apply(instance(2), 5)
    assert (drained.readiness, drained.reason) == ("draining", "why")
    assert drained.since == rack.at


@pytest.mark.parametrize(("now", "weight"), [(9, 0), (10, 1), (11, 1)])
def test_it_ends_at_its_end(now: int, weight: float) -> None:
    one = Overrides([made(Selector(model="*"), ends_us=10, weight=0)])
    assert one.apply(instance(), now).weight == weight
    assert one.next_end_us(now) == (10 if now < 10 else None)
    assert len(one.in_force(now)) == (1 if now < 10 else 0)


def test_a_collection_is_replaced_not_changed() -> None:
    first, second = made(Selector(port=1), weight=0), made(Selector(port=2), weight=0)
    one = Overrides([first])
    two = one.put(second)
    assert (len(one), len(two), list(two.drop(first.name))) == (1, 2, [second])
    renamed = second.model_copy(update={"name": first.name})
    assert list(one.put(renamed)) == [renamed]
    assert list(one.drop("nobody")) == [first]


_hostile = st.text(
    st.sampled_from("a*?[]!-|:%{} \\é\n\x00"), min_size=1, max_size=8
).filter(lambda text: text == text.strip())


@given(names=st.tuples(_hostile, _hostile), others=st.tuples(_hostile, _hostile))
def test_an_instance_is_meant_exactly_whatever_its_names_hold(
    names: tuple[str, str], others: tuple[str, str]
) -> None:
    identity = Identity(*names, 1)
    selector = Selector.of(identity)
    assert selector.one_identity == identity
    assert selector.one_model == names[0]
    one = Overrides([made(selector, weight=0)])
    pattern = Overrides([made(selector.model_copy(update={"port": None}), weight=0)])
    for model, host in (names, others):
        other = ModelInstance(model_name=model, host=host, port=1)
        for overrides in (one, pattern):
            seen = overrides.apply(other, 0)
            assert bool(seen.overrides) == (other.identity == identity)


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("llama*", "llama3@llm", True),
        ("llama*", "Llama3@llm", False),
        ("llama?@llm", "llama3@llm", True),
        ("llama[34]@llm", "llama3@llm", True),
        ("llama[34]@llm", "llama5@llm", False),
        ("a*b", "a\nb", True),
        ("[*]", "*", True),
        ("[*]", "x", False),
        ("a", "ab", False),
    ],
)
def test_patterns_are_the_shells(pattern: str, text: str, fits: bool) -> None:
    one = Overrides([made(Selector(model=pattern), weight=0)])
    assert bool(one.apply(instance(model=text), 0).overrides) == fits
    assert literal(pattern) == {"a": "a", "[*]": "*"}.get(pattern)


def test_who_has_no_zone_fits_no_zone() -> None:
    one = Overrides([made(Selector(zone="*"), weight=0)])
    assert one.apply(instance(), 0).weight == 1
    assert one.apply(instance(zone="a"), 0).weight == 0


@given(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=40).filter(str.strip),
    st.dictionaries(
        st.text('a|:\n"', min_size=1, max_size=5), st.text("a|:é"), max_size=3
    ),
)
def test_what_is_stored_reads_back_and_is_no_row(
    reason: str, labels: dict[str, str]
) -> None:
    given_ = made(Selector(zone="*|"), reason=reason, labels=labels, weight=0.5)
    record = encode_override(given_)
    assert "|" not in record
    raw = f"5:0:op:{record}".encode()
    read = decode_override(given_.name.encode(), raw)
    assert read == given_.model_copy(update={"at": read.at})
    assert read.at_us == 5


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "say at least one of enabled"),
        ({"labels": {}}, "say at least one of"),
        ({"weight": -1}, "weight"),
        ({"weight": float("nan")}, "weight"),
        ({"weight": 0, "reason": " "}, "reason"),
        ({"weight": 0, "author": ""}, "author"),
        ({"weight": 0, "name": "a b"}, "name"),
        ({"weight": 0, "expires_secs": 0}, "expires_secs: .*greater than 0"),
        ({}, "^override: say at least one of [a-z, ]+$"),
        ({"weight": 0, "expires_secs": float("inf")}, "expires|finite|less than"),
        ({"labels": {str(n): "" for n in range(33)}}, "labels"),
        ({"wait": 0}, "there is no wait"),
    ],
)
def test_bad_decisions_are_refused_by_name(fields: Any, says: str) -> None:
    with pytest.raises(InvalidOverride, match=says):
        decided(Selector(port=1), cast("Decision", {"reason": "why", **fields}))


@pytest.mark.parametrize("meant", ["glm@llm", None, 5])
def test_who_is_meant_is_no_mere_name(meant: Any) -> None:
    with pytest.raises(InvalidOverride, match="Selector"):
        decided(meant, {"reason": "why", "enabled": False})


@pytest.mark.parametrize(
    ("name", "author", "reason", "says"),
    [
        (None, "ann", "", "name: .*valid string"),
        ("\ud800", "ann", "", "name: .*unicode"),
        ("o-1", " ", "", "author"),
        ("o-1", "a" * 129, "", "author"),
        ("o-1", "ann", "r" * 501, "reason"),
        ("o-1", "ann", 5, "reason"),
    ],
)
def test_who_clears_and_why_is_bounded_as_for_setting(
    name: Any, author: str, reason: Any, says: str
) -> None:
    with pytest.raises(InvalidOverride, match=says):
        clearing(name, author, reason)


def test_who_clears_and_why_is_told() -> None:
    assert clearing(" o-1 ", "ann", "done") == ("o-1", "by ann: done")
    assert clearing("o-1", "ann") == ("o-1", "by ann")
    assert clearing("o-1", None)[1].startswith("by ")


def test_a_selector_means_something() -> None:
    with pytest.raises(InvalidOverride, match=r"^selector: give at least one of model"):
        Selector.given()
    with pytest.raises(InvalidOverride, match="port"):
        Selector.given(port=0)
    too_large = made(Selector(port=1), labels={str(n): "x" * 500 for n in range(20)})
    with pytest.raises(InvalidOverride, match="4096"):
        encode_override(too_large)


def test_a_thousand_cost_a_read_little() -> None:
    crowd = instances(1000)
    overrides = Overrides(
        [made(item, weight=2) for item in crowd[:500]]
        + [made(Selector(zone=f"z{n}*"), weight=0) for n in range(500)]
    )
    for item in crowd:
        overrides.apply(item, 0)
    start = time.perf_counter()
    seen = [overrides.apply(item, 0) for item in crowd]
    assert time.perf_counter() - start < 0.1
    assert sum(item.weight == 2 for item in seen) == 500

"""Labels: who will do, in words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_registry import ConfigurationError, Labels
from redis_registry.selection import Requirement
from tests.selection.fleets import instance

ONE = instance(
    zone="a",
    host="h1",
    metadata={"gpu": "a100", "version": 1, "ready": True, "tags": ["x"], "none": None},
)


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("gpu=a100", True),
        ("gpu==a100", True),
        ("gpu=h100", False),
        ("gpu=a100,version!=1", False),
        ("gpu=a100 , version != 2", True),
        ("zone in (a,b)", True),
        ("zone in(b , c)", False),
        ("zone not in (b,c)", True),
        ("host=h1,model=glm@llm", True),
        ("ready=true", True),
        ("ready=True", False),
        ("missing=1", False),
        ("missing!=1", True),
        ("none=None", False),
        ("tags=x", False),
        ('"gpu"="a100"', True),
        ("cabin!=x", True),
    ],
)
def test_texts_and_what_they_match(text: str, matches: bool) -> None:
    assert Labels.parse(text).match(ONE) is matches


@pytest.mark.parametrize(
    "text",
    [
        "gpu",
        "gpu=",
        "=a",
        "gpu=a,",
        "gpu=a100 b",
        "zone in ()",
        "zonein (a)",
        "a=b,,c=d",
    ],
)
def test_what_cannot_be_read_is_shown_with_what_can(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"expected name=value"):
        Labels.parse(text)


def test_the_example_of_the_documentation() -> None:
    labels = Labels.parse("gpu=a100,version!=1,zone in (a,b)")
    assert labels.requirements == {
        Requirement("gpu", frozenset({"a100"})),
        Requirement("version", frozenset({"1"}), negated=True),
        Requirement("zone", frozenset({"a", "b"})),
    }
    assert str(labels) == "gpu=a100,version!=1,zone in (a,b)"


REQUIREMENTS = st.builds(
    Requirement,
    st.text(min_size=1),
    st.frozensets(st.text(), min_size=1, max_size=3),
    st.booleans(),
)


@given(st.frozensets(REQUIREMENTS, max_size=4))
def test_the_text_form_says_all(requirements: frozenset[Requirement]) -> None:
    labels = Labels(requirements)
    assert Labels.parse(str(labels)) == Labels.of(labels) == labels


def test_a_mapping_takes_one_value_or_several() -> None:
    assert Labels.of({"version": 1, "zone": ["a", "b"]}).match(ONE)
    assert Labels.of({"ready": True}).match(ONE)
    assert not Labels.of({"version": [2, 3]}).match(ONE)
    assert Labels.of({"version": 1}) == Labels.of("version=1")
    assert hash(Labels.of({"zone": "a"})) == hash(Labels.of("zone=a"))
    assert Labels.of(None).match(ONE)


@pytest.mark.parametrize("value", [[], [None], None, [["a"]], 1j])
def test_a_mapping_without_values_is_refused(value: object) -> None:
    with pytest.raises(ConfigurationError, match="labels: gpu="):
        Labels.of({"gpu": value})  # pyright: ignore[reportArgumentType]

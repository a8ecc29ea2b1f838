"""Any name is legal, no two share a key, and bad input stores nothing (promise W4)."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from redis_registry import InvalidInstance, ModelInstance, RedisModelRegistry
from redis_registry.wire.keys import (
    PartitionKeys,
    escape,
    identity_of,
    identity_text,
    partition_of,
)
from tests.conftest import Server

HOSTILE = [
    "a:b", "c", "a", "b:c", "{x}", "}{", "}", "*", "[a-z]?", "a b", "tab\there", "new\nline",
    "NUL\0in", 'quo"te', "back\\slash", "per%cent", "%3A", "a|b|c", "日本語モデル", "é", "e\u0301",
    "\u202egnp.exe", "🚀", "fe80::1%eth0", "[::1]", "x" * 255, "0", "-1", "' OR 1=1 --",
]  # fmt: skip


async def test_hostile_names_round_trip_and_stay_apart(
    registry: RedisModelRegistry,
) -> None:
    pairs = [(model, host) for model in HOSTILE for host in HOSTILE[:8]]
    pairs += [("m", host) for host in HOSTILE]
    stored = [
        ModelInstance(model_name=model, host=host, port=port, check_healthy=False)
        for model, host in dict.fromkeys(pairs)
        for port in (1, 65535)
    ]
    await registry.send_heartbeats(stored)

    found = await registry.get_all_model_instances(healthy_only=True)

    assert len(found) == len(stored)
    assert {item.identity for item in found} == {item.identity for item in stored}
    for model in HOSTILE:
        names = {item.model_name for item in await registry.get_all_instances(model)}
        assert names <= {model}
        chosen = await registry.select_one_health_instance(model)
        assert chosen is not None
        assert chosen.model_name == model


text = st.text(min_size=1, max_size=60).filter(lambda t: bool(t.strip()))


@given(model=text, host=text, port=st.integers(1, 65535))
@settings(max_examples=300, deadline=None)
def test_identities_survive_their_text_form(model: str, host: str, port: int) -> None:
    try:
        identity = ModelInstance(model_name=model, host=host, port=port).identity
    except ValidationError:
        return  # a lone surrogate
    written = identity_text(identity)

    assert identity_of(written) == identity
    assert written.count(":") == 2
    assert not set(written) & set("|{}\0\n ")


@given(namespace=text, model=text, partitions=st.integers(1, 64))
@settings(max_examples=200, deadline=None)
def test_every_key_of_a_partition_has_one_hash_tag(
    namespace: str, model: str, partitions: int
) -> None:
    number = partition_of(model.encode(errors="ignore").decode(), partitions)
    keys = PartitionKeys.of("rr", namespace, number)
    name = escape(model)
    made = [keys.named("meta"), keys.index(name), keys.instance(f"{name}:h:1")]

    def tag(key: str) -> str:  # the rule of the cluster specification
        start = key.index("{")
        return key[start + 1 : key.index("}", start)]

    assert {tag(key) for key in made} == {f"{escape(namespace)}/{number}"}
    assert 0 <= number < partitions


BAD: list[tuple[dict[str, Any], str]] = [
    ({"model_name": ""}, "model_name"),
    ({"model_name": " \n "}, "model_name"),
    (
        {"model_name": "x" * (1 << 20)},
        "model_name.*at most 512 characters",
    ),
    ({"model_name": "é" * 513}, "at most 512 characters"),
    ({"model_name": "a\ud800"}, "model_name: .*unicode"),
    ({"model_name": None}, "model_name"),
    ({"model_name": 3}, "model_name"),
    ({"host": ""}, "host"),
    ({"host": "h" * 256}, "host.*at most 255 characters"),
    ({"host": "\udfff"}, "host"),
    ({"port": 0}, "port"),
    ({"port": 65536}, "port"),
    ({"port": -1}, "port"),
    ({"port": "x"}, "port"),
    ({"port": 1.5}, "port"),
    ({"port": True}, "port"),
    ({"port": None}, "port"),
    ({"weight": -1}, "weight"),
    ({"weight": math.nan}, "weight"),
    ({"weight": math.inf}, "weight"),
    ({"weight": "heavy"}, "weight"),
    ({"enabled": "perhaps"}, "enabled"),
    ({"prompt_template": "\ud800"}, "prompt_template"),
    ({"prompt_template": "x" * 65_537}, "prompt_template.*at most 65536"),
    ({"prompt_template": 7}, "prompt_template"),
    ({"last_heartbeat": "yesterday"}, "last_heartbeat"),
    ({"incarnation": "a b"}, "incarnation"),
    ({"incarnation": "x" * 65}, "incarnation"),
    ({"heartbeat_timeout_secs": 0}, "heartbeat_timeout_secs"),
    ({"heartbeat_timeout_secs": math.inf}, "heartbeat_timeout_secs"),
    ({"metadata": [1]}, "metadata"),
]


@pytest.mark.parametrize(("wrong", "says"), BAD, ids=lambda v: str(v)[:40])
def test_bad_fields_are_refused_by_name(wrong: dict[str, Any], says: str) -> None:
    fields = {"model_name": "m", "host": "h", "port": 1, **wrong}

    with pytest.raises(InvalidInstance, match=says) as caught:
        ModelInstance.of(**fields)

    assert len(str(caught.value)) < 600


def test_fields_are_checked_when_they_are_set_too() -> None:
    item = ModelInstance(model_name="m", host="h", port=1)
    with pytest.raises(ValidationError, match="less than or equal to 65535"):
        item.port = 70_000
    assert item.port == 1


async def test_what_does_not_fit_on_the_wire_stores_nothing(
    real: RedisModelRegistry, server: Server
) -> None:
    await real.get_all_model_instances()
    before = server.raw.dbsize()
    too_much = ModelInstance(
        model_name="m", host="h", port=1, metadata={"note": "x" * 70_000}
    )
    not_json = ModelInstance(model_name="m", host="h", port=1, metadata={"f": object()})
    with pytest.raises(InvalidInstance, match="65536"):
        await real.register_instance(too_much)
    with pytest.raises(InvalidInstance, match="not JSON-like"):
        await real.send_heartbeat(not_json)

    assert await real.get_all_model_instances() == []
    assert server.raw.dbsize() == before

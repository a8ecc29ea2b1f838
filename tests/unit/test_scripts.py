"""The scripts' headers are contracts: calls that don't fit fail in Python, with a name."""

from __future__ import annotations

import re
from importlib import resources
from typing import Any

import pytest

from redis_registry import (
    Alias,
    Load,
    ModelInstance,
    Outcome,
    Override,
    Readiness,
    RegistrySettings,
    Selector,
    Verdict,
)
from redis_registry.store import operations as ops
from redis_registry.store.following import Overdue
from redis_registry.store.operations import Call, Operation, Operations, Term
from redis_registry.store.outliers import Tally
from redis_registry.store.replies import Orders, Page
from redis_registry.store.reserving import Fleet
from redis_registry.store.scripts import Script, load
from tests.helpers import instance, instances

LUA = resources.files("redis_registry.store").joinpath("lua")
NAMES = sorted(
    path.name.removesuffix(".lua")
    for path in LUA.iterdir()
    if path.name.endswith(".lua")
)


@pytest.mark.parametrize("name", NAMES)
def test_a_header_names_every_position_the_body_uses(name: str) -> None:
    script = load(name)
    body = re.sub(r"--[^\n]*", "", script.text)

    keys = {int(n) for n in re.findall(r"KEYS\[(\d+)\]", body)}
    args = {int(n) for n in re.findall(r"ARGV\[(\d+)\]", body)}

    assert keys
    assert max(keys) <= len(script.keys) or script.more_keys
    assert max(args) <= script.args or script.more_args
    assert "@include" not in script.text
    assert "KEYS *" not in body


@pytest.mark.parametrize("name", NAMES)
def test_scripts_are_identified_by_content_and_run_when_memory_is_full(
    name: str,
) -> None:
    script = load(name)
    first = script.text.splitlines()[0]

    adds = name in {"register", "override", "alias"}
    assert first == ("#!lua" if adds else "#!lua flags=allow-oom")
    plain = script.without_shebang()
    assert not plain.text.startswith("#!")
    assert plain.sha != script.sha
    assert load(name) is script


@pytest.mark.parametrize("name", NAMES)
def test_no_script_reads_a_host_clock_or_formats_micros_wrongly(name: str) -> None:
    text = load(name).text
    assert text.count("redis.call('TIME')") == 1
    assert "tostring(now)" not in text
    assert "os." not in re.sub(r"--[^\n]*", "", text)


def test_a_call_that_does_not_fit_is_refused() -> None:
    script = load("join")
    keys: list[str] = []
    script.check(keys, 0, ["x"])
    with pytest.raises(TypeError, match=r"join\.lua takes the keys"):
        script.check(["instance"], 0, ["x"])
    with pytest.raises(TypeError, match=r"join\.lua takes the keys"):
        script.check(keys, 1, ["x"])
    with pytest.raises(TypeError, match="takes 3 arguments, not 2"):
        script.check(keys, 0, [])
    with pytest.raises(TypeError, match="takes 3 arguments, not 4"):
        script.check(keys, 0, ["x", "y"])


def test_a_missing_script_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        load("no_such_script")


def _drive(operation: Operation[Any], replies: dict[str, Any]) -> list[Call[Any]]:
    """Run an operation without any I/O; the calls it made."""
    made: list[Call[Any]] = []
    try:
        calls = next(operation)
        while True:
            made += [call for call in calls if isinstance(call, Call)]
            calls = operation.send([replies[call.name] for call in calls])
    except StopIteration:
        return made


REPLIES: dict[str, Any] = {
    "join": 7,
    "register": (1, ""),
    "deregister": 1,
    "heartbeat": [],
    "revive": ["60000:"],
    "read": Page("e", 1, [], None),
    "override": b'1:0:x:{"selector":{"port":1},"weight":0,"author":"me","reason":"why"}',
    "alias": b"1:m:me",
    "clear": 1,
    "expire": 0,
    "orders": Orders(),
    "status": None,
    "sweep": None,
    "flip": "",
    "forget": 0,
    "rebase": -1,
    "mend": None,
    "release": 1,
    "ready": 1,
    "report": [],
    "reserve": "m{x}:h:1",
    "unreserve": 1,
    "renew": None,
    "adopt": [],
    "reclaim": 0,
    "flights": [0],
    "loads": [0, b"0"],
    "outcome": [Outcome(Verdict.COUNTED)],
    "claim_probe": True,
    "overdue": Overdue(0, "e", 0, -1, 0, False, frozenset(), frozenset()),
}


def every_operation(made: Operations, item: ModelInstance) -> list[Operation[Any]]:
    term = Term(3, "holder", 1, "epoch")
    member = "m{x}:h:1:60000:"
    return [
        made.register(item),
        made.deregister(item, remove=False),
        made.heartbeats([item]),
        made.heartbeats(instances(50, "other") + instances(50, "more")),
        made.read(item.model_name, healthy_only=True),
        made.read(None, healthy_only=False),
        made.sample(item.model_name),
        made.status(),
        made.sweep(3, "holder"),
        made.overdue(3),
        made.loads(item.model_name),
        made.page(3, "glm@llm", None),
        made.ready(item, Readiness.DRAINING, "why"),
        made.heartbeats([item], [Load(in_flight=1)]),
        made.flip(term, [member], {"*": 1}),
        made.forget(term, ["m{x}:h:1"]),
        made.rebase(term, 0),
        made.mend(term, "deadlines", "0"),
        made.release(term),
        made.reserve(3, Fleet(item.model_name, [item]), [0], "holder", 1),
        made.unreserve(3, "holder", [1]),
        made.renew(3, "holder", 1, ""),
        made.adopt(3, "holder", [(1, item.identity)]),
        made.reclaim(3),
        made.flights([item.identity]),
        made.report([Tally(item, failures=1)]),
        made.claim_probe(item),
        made.select(item.model_name),
        made.override(an_override(Selector.of(item)), expires_secs=None),
        made.override(an_override(Selector(host="a*")), expires_secs=1),
        made.clear_override("o", "by me"),
        made.set_alias(Alias(alias="other", model_name=item.model_name, author="me")),
        made.remove_alias(item.model_name, "by me"),
        made.orders(),
        made.expire(term),
    ]


def an_override(selector: Selector) -> Override:
    return Override(name="o", selector=selector, weight=0, author="me", reason="why")


def _slot_tag(key: str) -> str:
    """The cluster specification's rule: between the first ``{`` and the next ``}``."""
    start = key.index("{")
    return key[start + 1 : key.index("}", start)]


@pytest.mark.parametrize("model", ["glm@llm", "{a}b", "}{", "x:y", "日本"])
def test_every_key_of_every_call_is_in_one_slot(model: str) -> None:
    """So that Cluster is a matter of connection, not of scripts."""
    item = instance(model=model)
    made = Operations(RegistrySettings(namespace="n{s}"), actor="test")
    names: set[str] = set()
    for operation in every_operation(made, item):
        for call in _drive(operation, REPLIES):
            names.add(call.script.name)
            assert len({_slot_tag(key) for key in call.keys}) == 1
            assert len(call.keys) >= len(call.script.keys)
    missing = {**REPLIES, "heartbeat": [made._believe(item)[1]], "revive": ["unknown"]}
    for call in _drive(made.heartbeats([item]), missing):
        names.add(call.script.name)
        assert len({_slot_tag(key) for key in call.keys}) == 1
    assert names == set(NAMES)


def test_calls_are_bounded() -> None:
    made = Operations(RegistrySettings(), actor="test")
    calls = _drive(made.heartbeats(instances(2500)), {**REPLIES, "join": 1})
    beats = [call for call in calls if call.script.name == "heartbeat"]
    assert len(beats) == 3
    assert all(call.lane == "beat" for call in beats)
    assert ops.READ_PAGE <= 1000
    assert RegistrySettings().sweep_chunk <= 500


def test_a_script_knows_its_contract() -> None:
    script = load("flip")
    assert isinstance(script, Script)
    assert script.keys[:4] == ("meta", "events", "lease", "deadlines")
    assert script.more_keys
    assert script.more_args
    assert script.args == 7

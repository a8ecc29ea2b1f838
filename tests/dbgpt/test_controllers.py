"""Side by side: DB-GPT's own controller, and its place taken by this registry in two ways."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from dbgpt.model.base import ModelInstance
from dbgpt.model.cluster.controller.controller import ModelRegistryClient
from support import Controller, eventually

from redis_registry import SyncModelRegistry
from redis_registry.embedded import EmbeddedServer

NAIVE_ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?")
MODELS = "/api/controller/models"
HEARTBEAT = "/api/controller/heartbeat"

WHOLE = {
    "model_name": "glm@llm",
    "host": "10.0.0.1",
    "port": 8001,
    "weight": 0.5,
    "check_healthy": True,
    "healthy": False,
    "enabled": True,
    "prompt_template": "vicuna",
    "last_heartbeat": None,
    "remove_from_registry": False,
}
BARE = {"model_name": "bge@text2vec", "host": "10.0.0.2", "port": 8002}


def plain(value: Any) -> Any:
    """An answer without what differs from run to run."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        beat = value.get("last_heartbeat")
        if isinstance(beat, str) and NAIVE_ISO.fullmatch(beat):
            return {**value, "last_heartbeat": "<naive ISO>"}
        return dict(value)
    return value


# (method, path, what requests is to send); in this order, each builds on those before
REQUESTS: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "/api/health", {}),
    ("GET", MODELS, {}),
    ("POST", MODELS, {"json": WHOLE}),
    ("POST", MODELS, {"json": BARE}),
    ("POST", MODELS, {"json": {**BARE, "port": "8003", "unknown": 1}}),
    ("POST", MODELS, {"json": {**BARE, "port": 8004, "last_heartbeat": 1.5e9}}),
    (
        "POST",
        MODELS,
        {"json": {**BARE, "port": 8005, "last_heartbeat": "2026-01-02T03:04:05"}},
    ),
    ("POST", MODELS, {"json": {**BARE, "port": 8006, "enabled": False}}),
    ("POST", MODELS, {"json": {**BARE, "port": 8007, "weight": None}}),
    ("POST", MODELS, {"json": {**WHOLE, "enabled": False, "weight": 2}}),
    ("POST", HEARTBEAT, {"json": {**WHOLE, "weight": 9}}),
    ("POST", HEARTBEAT, {"json": {**BARE, "port": 8008, "weight": 3}}),
    ("GET", MODELS, {}),
    ("GET", MODELS, {"params": {"model_name": ""}}),
    ("GET", MODELS, {"params": {"model_name": "glm@llm"}}),
    ("GET", MODELS, {"params": {"model_name": "nobody@llm"}}),
    (
        "DELETE",
        MODELS,
        {
            "params": {
                **WHOLE,
                "remove_from_registry": "false",
                "last_heartbeat": "",
                "check_healthy": "true",
            }
        },
    ),
    ("DELETE", MODELS, {"params": {**BARE, "port": 8003}}),
    ("DELETE", MODELS, {"params": {**BARE, "port": 8004, "remove_from_registry": 1}}),
    ("DELETE", MODELS, {"params": {**BARE, "port": 9999}}),
    *(
        ("GET", MODELS, {"params": {"healthy_only": truth}})
        for truth in ("true", "True", "1", "on", "yes", "false", "0", "no")
    ),
    ("POST", HEARTBEAT, {"json": WHOLE}),
    ("GET", MODELS, {"params": {"model_name": "glm@llm", "healthy_only": "true"}}),
]

WRONG_FIELDS: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", MODELS, {"json": {}}),
    ("POST", MODELS, {"json": {"model_name": "a", "host": "b"}}),
    ("POST", MODELS, {"json": {**BARE, "port": "x"}}),
    ("POST", MODELS, {"json": {**BARE, "port": None}}),
    ("POST", MODELS, {"json": {**BARE, "model_name": 1}}),
    ("POST", MODELS, {"json": {**BARE, "last_heartbeat": "yesterday"}}),
    ("POST", HEARTBEAT, {"json": {}}),
    ("POST", HEARTBEAT, {"json": {**BARE, "weight": "heavy"}}),
    ("DELETE", MODELS, {}),
    ("DELETE", MODELS, {"params": {**BARE, "port": "x"}}),
    ("DELETE", MODELS, {"params": {**BARE, "remove_from_registry": "maybe"}}),
]
WRONG: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", MODELS, {"json": []}),
    ("POST", MODELS, {"data": b"null"}),
    ("POST", MODELS, {"data": b""}),
    ("POST", MODELS, {"data": b"{", "headers": {"content-type": "application/json"}}),
    ("GET", MODELS, {"params": {"healthy_only": "maybe"}}),
    ("GET", MODELS, {"params": {"healthy_only": ""}}),
    ("PUT", MODELS, {"json": WHOLE}),
    ("GET", HEARTBEAT, {}),
    ("GET", "/api/controller/nothing", {}),
]
BEYOND: list[dict[str, Any]] = [
    {**BARE, "port": 0},
    {**BARE, "port": 65536},
    {**BARE, "host": " "},
    {**BARE, "model_name": ""},
    {**BARE, "model_name": "x" * 513},
]
"""What DB-GPT stores and we refuse."""


def asked(
    controller: Controller, step: tuple[str, str, dict[str, Any]]
) -> requests.Response:
    method, path, sent = step
    return requests.request(method, controller.url + path, timeout=5, **sent)


def test_right_calls(theirs: Controller, ours: Controller) -> None:
    """Status, type and body of every call that is right are DB-GPT's."""
    for step in REQUESTS:
        expected, got = asked(theirs, step), asked(ours, step)
        assert expected.status_code == 200
        assert (got.status_code, plain(got.json())) == (
            200,
            plain(expected.json()),
        ), step
        assert got.headers["content-type"] == expected.headers["content-type"]


def findings(response: requests.Response) -> list[tuple[Any, ...]]:
    found = response.json()["detail"]
    assert all({"type", "loc", "msg", "input"} <= set(item) for item in found)
    return [(item["type"], item["loc"], item["msg"]) for item in found]


def test_wrong_calls(theirs: Controller, ours: Controller) -> None:
    """The status of every call that is wrong is DB-GPT's, and so is what it says of fields."""
    for step in [*WRONG_FIELDS, *WRONG]:
        expected, got = asked(theirs, step), asked(ours, step)
        assert got.status_code == expected.status_code, step
        assert "detail" in got.json()
        if step in WRONG_FIELDS:
            assert got.status_code == 422
            assert findings(got) == findings(expected), step


def test_what_dbgpt_would_store_and_nobody_could_use(
    served: Controller, hooked: Controller
) -> None:
    """Names and ports out of bounds are refused; DB-GPT itself knows only 500 for that."""
    for body in BEYOND:
        step = ("POST", MODELS, {"json": body})
        assert asked(served, step).status_code == 422, body
        assert asked(hooked, step).status_code == 500, body
    assert asked(served, ("GET", MODELS, {})).json() == []
    assert asked(hooked, ("GET", MODELS, {})).json() == []


Client = Callable[[Controller], ModelRegistryClient]


@pytest.fixture
def client() -> Iterator[Client]:
    """Makes DB-GPT's clients, and ends their threads."""
    made: list[ModelRegistryClient] = []

    def make(controller: Controller) -> ModelRegistryClient:
        made.append(ModelRegistryClient(controller.url))
        return made[-1]

    yield make
    for each in made:
        each._heartbeat_stop_event.set()


async def story(client: ModelRegistryClient) -> list[Any]:
    """Every method of DB-GPT's client, and what each answers."""
    glm = ModelInstance("glm@llm", "10.0.0.1", 8001, weight=0.5, prompt_template="v")
    twin = ModelInstance("glm@llm", "10.0.0.2", 8001)
    bge = ModelInstance("bge@text2vec", "10.0.0.1", 8002, enabled=False)
    gone = dataclasses.replace(glm, remove_from_registry=True)
    return [
        await client.get_all_instances("glm@llm"),
        await client.select_one_health_instance("glm@llm"),
        await client.register_instance(glm),
        await client.send_heartbeat(twin),
        await client.register_instance(bge),
        await client.get_all_instances("glm@llm"),
        await client.get_all_instances(),
        await client.get_all_model_instances(),
        client.sync_get_all_instances("glm@llm"),
        client.sync_get_all_instances(),
        await client.deregister_instance(twin),
        await client.get_all_instances("glm@llm"),
        await client.get_all_instances("glm@llm", healthy_only=True),
        await client.get_all_model_instances(healthy_only=True),
        client.sync_get_all_instances("glm@llm", healthy_only=True),
        await client.select_one_health_instance("glm@llm"),
        await client.select_one_health_instance("bge@text2vec"),
        await client.send_heartbeat(twin),
        await client.register_instance(dataclasses.replace(bge, enabled=True)),
        await client.deregister_instance(gone),
        await client.deregister_instance(gone),
        await client.get_all_model_instances(),
        await client.register_instance(glm),
        await client.get_all_model_instances(healthy_only=True),
    ]


async def test_the_client(
    theirs: Controller, each_of_ours: Controller, client: Client
) -> None:
    """Every method of DB-GPT's client gives what it gives with DB-GPT's controller."""
    before, after = client(theirs), client(each_of_ours)
    expected = plain(await story(before))
    assert plain(await story(after)) == expected
    assert [] in expected
    assert None in expected

    wrong = ModelInstance("glm@llm", "10.0.0.1", "a port")  # type: ignore[arg-type]
    for each in (before, after):
        with pytest.raises(Exception, match=r"code: 422, error msg: .*int_parsing"):
            await each.register_instance(wrong)


async def test_the_hook_reads_the_section(
    hooked: Controller, server: EmbeddedServer, namespace: str
) -> None:
    """Its timeout counts, and its checker flips."""
    asked(hooked, ("POST", MODELS, {"json": BARE}))

    with SyncModelRegistry.from_url(server.url, namespace=namespace) as registry:
        (instance,) = registry.get_all_model_instances()
        assert instance.heartbeat_timeout_secs == 2
        (status,) = registry.status()
        assert status.lease_holder is not None

        async def flipped() -> bool:
            return registry.status()[0].unhealthy == 1

        await eventually(flipped, "the silent instance is flipped")
        (listed,) = asked(hooked, ("GET", MODELS, {})).json()
        assert listed["healthy"] is False


async def test_it_closes_with_the_application(
    each_of_ours: Controller, server: EmbeddedServer, namespace: str
) -> None:
    """The checker starts with the controller, and its lease is given back at the end."""
    assert asked(each_of_ours, ("GET", "/api/health", {})).status_code == 200
    with SyncModelRegistry.from_url(server.url, namespace=namespace) as registry:

        async def swept() -> bool:
            return registry.status()[0].lease_holder is not None

        await eventually(swept, "the checker holds the lease")
        each_of_ours.stop()
        assert registry.status()[0].lease_holder is None, each_of_ours.log
    assert "Traceback" not in each_of_ours.log

"""Explanations, by HTTP and on the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import httpx
import pytest

from redis_registry import Readiness, SyncModelRegistry
from tests.conftest import Server
from tests.helpers import instance, instances

Json = dict[str, Any]


@pytest.fixture
def fleet(sync_registry: SyncModelRegistry) -> SyncModelRegistry:
    """Four workers: one starts, one is drained by an operator, one fails, one is well."""
    sync_registry.send_heartbeats(instances(4, heartbeat_timeout_secs=60))
    sync_registry.set_readiness(instance(1), Readiness.STARTING, "loading [weights]")
    sync_registry.override(
        instance(2), draining=True, reason="new disk", author="ann", name="disk"
    )
    for _ in range(5):
        sync_registry.report_failure(instance(3), "refused")
    sync_registry.set_alias("prod", "glm@llm", author="bob")
    return sync_registry


async def ask(web: httpx.AsyncClient, **query: Any) -> Json:
    reply = await web.get("/v1/explain", params=query)
    assert reply.status_code == 200, reply.text
    return reply.json()


@pytest.mark.usefixtures("fleet")
async def test_a_model_and_an_instance_are_explained(web: httpx.AsyncClient) -> None:
    model = await ask(web, model="prod")
    assert model["model_name"] == "glm@llm"
    assert model["alias"]["author"] == "bob"
    assert model["reasons"] == {"starting": 1, "draining": 1, "failures": 1}
    assert [one["port"] for one in model["instances"]] == [1, 2, 3, 4]
    one = await ask(web, model="glm@llm", host="10.0.0.1", port=2)
    assert (one["selectable"], one["reason"]) == (False, "draining")
    assert one["because"].startswith("ann set it draining")
    assert one["remedy"] == "clear_override('disk')"
    assert [item["name"] for item in one["overrides"]] == ["disk"]
    kinds = [item["kind"] for item in one["transitions"]]
    assert kinds == ["overridden", "registered"]


async def test_the_unknown_is_an_answer(web: httpx.AsyncClient) -> None:
    model = await ask(web, model="nobody")
    assert (model["known"], model["remedy"]) == (False, "registering it")
    one = await ask(web, model="nobody", host="h", port=1)
    assert (one["reason"], one["instance"]) == ("unknown", None)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({}, "Field required"),
        ({"model": "m", "host": "h"}, "give host and port"),
        ({"model": "m", "port": "1"}, "give host and port"),
        ({"model": "m", "host": "h", "port": "0"}, "greater than or equal"),
        ({"model": "m", "prot": "1"}, "Extra inputs"),
        ({"model": " "}, "there can't be a model"),
        ({"model": "m", "host": " ", "port": "1"}, "host"),
    ],
    ids=str,
)
async def test_mistakes_are_told(
    web: httpx.AsyncClient, query: Json, says: str
) -> None:
    reply = await web.get("/v1/explain", params=query)
    assert reply.status_code == 422
    assert says in reply.text


async def test_it_is_described(web: httpx.AsyncClient) -> None:
    described = (await web.get("/openapi.json")).json()
    asking = described["paths"]["/v1/explain"]["get"]
    required = {item["name"]: item["required"] for item in asking["parameters"]}
    assert required == {"model": True, "host": False, "port": False}
    for name in ("Explanation", "ModelExplanation", "Transition", "Reason"):
        assert name in described["components"]["schemas"]


def run(server: Server, *args: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "redis_registry", *args],
        capture_output=True,
        text=True,
        env=os.environ | {"REDIS_REGISTRY_URL": server.url, "COLUMNS": "160"},
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_person_asks_why(server: Server, fleet: SyncModelRegistry) -> None:
    lines = run(server, "explain", "glm@llm", "10.0.0.1:2").splitlines()
    assert lines[0] == "glm@llm at 10.0.0.1:2 takes no work: draining"
    labels = [line.split()[0] for line in lines[1:7]]
    assert labels == ["why", "remedy", "state", "last", "weight", "override"]
    assert "new disk (override disk)" in lines[1]
    assert "clear_override('disk')" in lines[2]
    assert "draining=yes by ann" in lines[6]
    assert lines[8].split() == ["WHEN", "WHAT", "WHY", "BY"]
    assert lines[9].split()[3:] == ["overridden", "disk:", "new", "disk", "ann"]
    starting = run(server, "explain", "prod", "10.0.0.1:1")
    assert "loading [weights]" in starting
    assert "prod is glm@llm by bob" in starting
    failing = run(server, "explain", "glm@llm", "10.0.0.1:3")
    assert "ejections in a row: 1" in failing
    well = run(server, "explain", "glm@llm", "10.0.0.1:4")
    assert well.startswith("glm@llm at 10.0.0.1:4 takes work\n")
    fleet.deregister_instance(instance(4, remove_from_registry=True))
    gone = run(server, "explain", "glm@llm", "10.0.0.1:4")
    assert gone.startswith("glm@llm at 10.0.0.1:4 takes no work: unknown\n")
    assert "10.0.0.1:4 was removed" in gone


def test_a_person_asks_about_a_model(server: Server, fleet: SyncModelRegistry) -> None:
    page = run(server, "explain", "prod")
    assert page.startswith("glm@llm: 1 of 4 take work\n")
    assert "3 may not: 1 starting, 1 draining, 1 failures" in page
    assert "10.0.0.1:1  starting  it has been starting" in page
    assert run(server, "explain", "nobody").startswith("nobody is unknown\n")
    found = json.loads(run(server, "explain", "glm@llm", "--json"))
    assert found["selectable"] == 1
    listed = run(server, "list")
    assert "held out: failures, " in listed
    assert "disk" in listed
    fleet.set_readiness(instance(4), Readiness.NOT_READY)
    held = run(server, "explain", "glm@llm", "10.0.0.1:3").splitlines()[0]
    assert held == "glm@llm at 10.0.0.1:3 takes work for want of others: failures"


@pytest.mark.parametrize("address", ["10.0.0.1", ":80", "[::1]"])
def test_an_address_needs_its_port(server: Server, address: str) -> None:
    with pytest.raises(AssertionError, match="HOST:PORT"):
        run(server, "explain", "m", address)

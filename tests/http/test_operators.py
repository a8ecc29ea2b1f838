"""Overrides and aliases, by HTTP and on the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import httpx
import pytest

from redis_registry import ModelInstance, Selector, SyncModelRegistry
from redis_registry.cli.common import place
from tests.conftest import Server
from tests.helpers import instance

Json = dict[str, Any]
SAID: Json = {"selector": {"model": "glm*"}, "author": "ann", "reason": "why"}


async def test_an_override_is_set_listed_and_cleared(
    web: httpx.AsyncClient, sync_registry: SyncModelRegistry
) -> None:
    sync_registry.register_instance(instance())
    said = {**SAID, "weight": 0, "expires_secs": 60, "name": "canary"}
    reply = await web.post("/v1/overrides", json=said)
    assert reply.status_code == 200, reply.text
    made = reply.json()
    assert (made["name"], made["weight"], made["author"]) == ("canary", 0, "ann")
    assert made["expires"] > made["at"]
    assert (await web.get("/v1/overrides")).json() == {"overrides": [made]}
    (found,) = (await web.get("/api/controller/models")).json()
    assert found["weight"] == 0
    shown = await web.get("/api/controller/models", params={"healthy_only": "true"})
    assert shown.json() == []
    who = {"name": "canary", "author": "bob"}
    for cleared in (True, False):
        reply = await web.delete("/v1/overrides", params=who)
        assert reply.json() == {"cleared": cleared}
    assert (await web.get("/v1/overrides")).json() == {"overrides": []}


async def test_an_alias_is_set_listed_and_removed(
    web: httpx.AsyncClient, sync_registry: SyncModelRegistry
) -> None:
    sync_registry.register_instance(instance())
    said = {"alias": "prod", "model_name": "glm@llm", "author": "ann"}
    made = (await web.post("/v1/aliases", json=said)).json()
    assert made["at"]
    assert (await web.get("/v1/aliases")).json() == {"aliases": [made]}
    asked = {"model_name": "prod"}
    (found,) = (await web.get("/api/controller/models", params=asked)).json()
    assert found["model_name"] == "glm@llm"
    who = {"alias": "prod", "author": "bob"}
    assert (await web.delete("/v1/aliases", params=who)).json() == {"cleared": True}
    assert (await web.get("/v1/aliases")).json() == {"aliases": []}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (SAID, "say at least one of"),
        ({**SAID, "enabled_": False}, "Extra inputs"),
        ({**SAID, "selector": {}, "weight": 1}, "at least one of model"),
        ({**SAID, "selector": {"name": "x"}, "weight": 1}, "Extra inputs"),
        ({"selector": {"model": "x"}, "reason": "x", "weight": 1}, "author"),
        ({**SAID, "reason": "", "weight": 1}, "reason"),
        ({**SAID, "weight": "much"}, "valid number"),
    ],
    ids=str,
)
async def test_mistakes_change_nothing(
    web: httpx.AsyncClient, body: Json, says: str
) -> None:
    reply = await web.post("/v1/overrides", json=body)
    assert reply.status_code == 422
    assert says in reply.text
    assert (await web.get("/v1/overrides")).json() == {"overrides": []}


async def test_it_is_described(web: httpx.AsyncClient) -> None:
    described = (await web.get("/openapi.json")).json()
    for path in ("/v1/overrides", "/v1/aliases"):
        assert set(described["paths"][path]) == {"get", "post", "delete"}
    clearing = described["paths"]["/v1/overrides"]["delete"]["parameters"]
    required = {item["name"]: item["required"] for item in clearing}
    assert required == {"name": True, "author": True, "reason": False}
    assert "Selector" in described["components"]["schemas"]
    missing = await web.delete("/v1/overrides")
    assert missing.status_code == 422


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        (None, None, None),
        ("10.0.0.1:8000", "10.0.0.1", 8000),
        ("10.0.*", "10.0.*", None),
        (":8000", None, 8000),
        ("[::1]:8000", "::1", 8000),
        ("[::1]", "::1", None),
        ("fe80::1", "fe80::1", None),
        ("node:x", "node:x", None),
        ("[ab]", "[ab]", None),
        ("[*]:80", "[*]", 80),
    ],
)
def test_an_address_as_people_write_it(
    address: str | None, host: str | None, port: int | None
) -> None:
    assert place(address) == (host, port)


def run(
    server: Server, *args: str, columns: str | None = "160"
) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"REDIS_REGISTRY_URL": server.url}
    env.pop("COLUMNS", None)
    if columns is not None:
        env["COLUMNS"] = columns
    return subprocess.run(
        [sys.executable, "-m", "redis_registry", *args],
        capture_output=True,
        text=True,
        env=env,
        timeout=30,
        check=False,
    )


def test_a_person_decides_looks_and_clears(
    server: Server, sync_registry: SyncModelRegistry
) -> None:
    assert run(server, "overrides").stdout == "no overrides\n"
    sync_registry.register_instance(instance(1))
    sync_registry.register_instance(instance(2))
    what = ("glm@llm", "10.0.0.1:1", "--drain", "--weight", "0.5", "--label", "a=b")
    why = (
        "--reason",
        "new disk",
        "--expires",
        "600",
        "--name",
        "disk",
        "--author",
        "ann",
    )
    done = run(server, "override", *what, *why)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("disk: model=glm@llm host=10.0.0.1 port=1 until 20")
    table = run(server, "overrides").stdout
    for shown in ("disk", "draining=yes weight=0.5 a=b", "ann", "s more", "new disk"):
        assert shown in table
    (line,) = run(server, "overrides", "--json").stdout.splitlines()
    assert json.loads(line)["reason"] == "new disk"
    listed = run(server, "list").stdout
    assert "draining: new disk" in listed
    assert "OVERRIDES" in listed
    assert run(server, "clear-override", "disk").returncode == 0
    done = run(server, "clear-override", "disk")
    assert (done.returncode, "no override 'disk'" in done.stderr) == (1, True)
    assert "OVERRIDES" not in run(server, "list").stdout


def test_what_others_wrote_is_shown_as_it_is(
    server: Server, sync_registry: SyncModelRegistry
) -> None:
    reason = "\x1b[31mred\x1b[0m [bold]x[/] :100:\nend"
    sync_registry.override(Selector(model="m"), draining=True, reason=reason)
    table = run(server, "overrides").stdout
    assert r"\x1b[31mred\x1b[0m [bold]x[/] :100:\nend" in table
    assert "\x1b" not in table


def test_a_program_that_reads_gets_an_instance_a_line(
    server: Server, sync_registry: SyncModelRegistry
) -> None:
    name = "a-model-whose-name-is-longer-than-a-terminal-is-wide@llm" * 3
    item = ModelInstance(
        model_name=name, host="10.0.0.1", port=8000, check_healthy=False
    )
    sync_registry.register_instance(item)
    why = "new disk " * 20 + "."
    made = sync_registry.override(item, draining=True, reason=why)
    explained = f"{why} (override {made.name})"
    for said, *command in (
        (why, "list"),
        (why, "overrides"),
        (explained, "explain", name),
    ):
        lines = run(server, *command, columns=None).stdout.splitlines()
        assert any("10.0.0.1" in line and said in line for line in lines), command


def test_a_person_points_aliases(
    server: Server, sync_registry: SyncModelRegistry
) -> None:
    assert run(server, "aliases").stdout == "no aliases\n"
    sync_registry.register_instance(instance())
    assert run(server, "alias", "prod", "glm@llm").stdout == "prod -> glm@llm\n"
    assert "glm@llm" in run(server, "aliases").stdout
    (line,) = run(server, "aliases", "--json").stdout.splitlines()
    assert json.loads(line)["alias"] == "prod"
    assert "glm@llm" in run(server, "list", "--model", "prod").stdout
    assert run(server, "alias", "prod", "--remove").returncode == 0
    assert run(server, "alias", "prod", "--remove").returncode == 1
    assert run(server, "alias", "prod").returncode == 2


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["override", "m", "--weight", "0"], "reason"),
        (["override", "--weight", "0", "--reason", "x"], "at least one of model"),
        (["override", "m", "--reason", "x"], "say at least one of"),
        (["override", "m", "--reason", "x", "--label", "x"], "NAME=VALUE"),
        (["alias", "a", "a"], "alias: a name can't be an alias of itself"),
        (["override", "m", "--drain", "--expires", "0"], "expires_secs"),
        (["clear-override", "o-1", "--author", "a" * 129], "author"),
    ],
    ids=str,
)
def test_mistakes_are_told_in_a_line(
    server: Server, args: list[str], says: str
) -> None:
    done = run(server, *args)
    assert done.returncode == 2
    assert says in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr

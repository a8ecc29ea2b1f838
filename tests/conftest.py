"""Servers, registries and leak checks for every test.

Servers are real child processes, one of each kind per xdist worker; a test gets one emptied.
At its end nothing may be left: no task, no connection, no key outside the documented keyspace,
and hash, index and deadline must agree.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import fakeredis
import pytest

from redis_registry import (
    GuardSettings,
    ModelInstance,
    RedisModelRegistry,
    SyncModelRegistry,
)
from redis_registry.embedded import EmbeddedServer, find_server
from redis_registry.roles.checker import Checker
from redis_registry.testing import Standalone
from tests.helpers import Store, connect, wait_for
from tests.replica import Replica

collect_ignore = ["dbgpt"]  # runs in a venv of its own: make test-dbgpt

for name in [name for name in os.environ if name.startswith("REDIS_REGISTRY_")]:
    del os.environ[name]

REDIS_7 = shutil.which("redis-server")
KINDS = {"valkey": find_server(), "redis7": REDIS_7}
_servers: dict[str, EmbeddedServer] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--run-load", action="store_true", help="run the long acceptance tests too"
    )


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    if config.getoption("--run-load"):
        return
    skip = pytest.mark.skip(reason="a long acceptance run: make test-load")
    for item in items:
        if "tests/load/" in item.nodeid:
            item.add_marker(skip)


@pytest.fixture(scope="session", autouse=True)
def _stop_servers() -> Iterator[None]:
    yield
    for server in _servers.values():
        server.stop()


@dataclass(frozen=True)
class Server:
    """A real server, emptied for one test."""

    kind: str
    process: EmbeddedServer
    raw: Any

    @property
    def url(self) -> str:
        return self.process.url

    @property
    def store(self) -> Store:
        return Store(self.raw)


def _binary(kind: str) -> str:
    binary = KINDS[kind]
    if binary is None:
        pytest.skip("redis-server (Debian's 7.0) is not installed: apt-get install it")
    return binary


def running(kind: str) -> EmbeddedServer:
    """This process's server of a kind, started on first use."""
    if kind not in _servers:
        server = EmbeddedServer(binary=_binary(kind))
        server.start()
        _servers[kind] = server
    return _servers[kind]


@pytest.fixture(params=["valkey", "redis7"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A real server with nothing in it; checked for leaks afterwards."""
    process = running(request.param)
    raw = connect(process.url)
    raw.flushall()
    raw.script_flush()
    yield Server(request.param, process, raw)
    store = Store(raw)
    wait_for(lambda: not store.connections(), "our connections are closed")
    if request.node.get_closest_marker("damages") is None:
        store.check()
    raw.close()


@pytest.fixture(params=["valkey", "redis7"])
def own_server(request: pytest.FixtureRequest) -> Iterator[Standalone]:
    """A server of the test's own, which it may kill; it writes every command to disk."""
    options = {"appendonly": "yes", "appendfsync": "always"}
    with Standalone(binary=_binary(request.param), options=options) as made:
        yield made


@pytest.fixture
async def no_tasks_left() -> AsyncIterator[None]:
    yield
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert not left, f"tasks left behind: {left}"


FAST: dict[str, Any] = {"heartbeat_interval_secs": 0.5, "heartbeat_timeout_secs": 1.0}


@pytest.fixture(params=["valkey", "redis7", "fake"])
async def registry(
    request: pytest.FixtureRequest, no_tasks_left: None
) -> AsyncIterator[RedisModelRegistry]:
    """A registry with its checker, timeout 1 s, on each kind of server and on fakeredis."""
    if request.param == "fake":
        client = fakeredis.FakeAsyncRedis()
        async with RedisModelRegistry(client, **FAST) as found:
            yield found
        await client.aclose()
        return
    process = running(request.param)
    raw = connect(process.url)
    raw.flushall()
    async with RedisModelRegistry.from_url(process.url, **FAST) as found:
        yield found
    store = Store(raw)
    wait_for(lambda: not store.connections(), "our connections are closed")
    store.check()
    raw.close()


@pytest.fixture
async def real(
    server: Server, no_tasks_left: None
) -> AsyncIterator[RedisModelRegistry]:
    """A registry on a real server, without a checker, timeout 1 s."""
    async with RedisModelRegistry.from_url(
        server.url, run_checker=False, **FAST
    ) as found:
        yield found


@pytest.fixture
def sync_registry(server: Server) -> Iterator[SyncModelRegistry]:
    """The sync face on a real server, timeout 1 s."""
    with SyncModelRegistry.from_url(server.url, **FAST) as found:
        yield found


SLOW: dict[str, Any] = {"heartbeat_interval_secs": 20, "heartbeat_timeout_secs": 60}
"""Production's times: tests that use them age the data instead of waiting."""


@dataclass
class Bench:
    """A registry whose sweeps a test makes itself, one by one.

    Attributes:
        registry: Without a checker of its own.
        store: What Redis holds.
    """

    registry: RedisModelRegistry
    server: Server
    checkers: list[Checker] = field(default_factory=list[Checker])

    @property
    def store(self) -> Store:
        return self.server.store

    def checker(self, holder: str = "tester") -> Checker:
        made = Checker(
            self.registry._operations, self.registry._executor, holder=holder
        )
        self.checkers.append(made)
        return made

    async def sweep(self) -> Checker:
        """One pass, by the first checker."""
        checker = self.checkers[0] if self.checkers else self.checker()
        await checker._sweep(0)
        return checker

    async def states(self, model: str = "glm@llm") -> dict[int, str]:
        """State of each instance of a model, by port."""
        found = await self.registry.get_all_instances(model)
        return {item.port: str(item.state) for item in found}

    async def count(self, model: str = "glm@llm") -> Counter[str]:
        return Counter((await self.states(model)).values())


MakeBench = Callable[..., Awaitable[Bench]]


@pytest.fixture
async def make_bench(server: Server, no_tasks_left: None) -> AsyncIterator[MakeBench]:
    """Builds benches with any settings on top of production's times."""
    made: list[RedisModelRegistry] = []

    async def build(**options: Any) -> Bench:
        registry = RedisModelRegistry.from_url(
            server.url, run_checker=False, **(SLOW | options)
        )
        made.append(registry)
        await registry.status()
        return Bench(registry, server)

    yield build
    for registry in made:
        await registry.aclose()


@pytest.fixture
async def bench(make_bench: MakeBench) -> Bench:
    """A bench with production's times and no guard."""
    return await make_bench(guard=GuardSettings(enabled=False))


@pytest.fixture
def worker() -> ModelInstance:
    return ModelInstance(model_name="glm@llm", host="10.0.0.1", port=8001)


@pytest.fixture
def replicas() -> Iterator[list[Replica]]:
    made: list[Replica] = []
    yield made
    for replica in made:
        if replica.process.poll() is None:
            replica.process.send_signal(signal.SIGCONT)
            replica.process.kill()
            replica.process.wait()

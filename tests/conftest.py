"""Servers, registries and leak checks for every test.

Servers are real child processes, one of each kind per xdist worker; a test gets one emptied.
With ``--topology`` it is a Sentinel's master or a Cluster, of three partitions then.
At its end nothing may be left: no task, no connection, no key outside the documented keyspace,
and hash, index and deadline must agree.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import fakeredis
import pytest

from redis_registry import (
    GuardSettings,
    ModelInstance,
    RedisModelRegistry,
    SyncModelRegistry,
)
from redis_registry.embedded import find_server
from redis_registry.roles.checker import Checker
from redis_registry.store.replies import Status
from redis_registry.testing.fixtures import registry_network
from tests.helpers import Store, connect, wait_for
from tests.places import PARTITIONS, TOPOLOGIES, Place
from tests.replica import Replica

collect_ignore = ["dbgpt"]  # runs in a venv of its own: make test-dbgpt

for name in [name for name in os.environ if name.startswith("REDIS_REGISTRY_")]:
    del os.environ[name]

network = registry_network  # three hosts, or the test is skipped
LONG = ("tests/upgrade/", "tests/testing/")
REDIS_7 = shutil.which("redis-server")
KINDS = {"valkey": find_server(), "redis7": REDIS_7}
_places: dict[str, Place] = {}
_make = TOPOLOGIES["standalone"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--topology",
        choices=list(TOPOLOGIES),
        default="standalone",
        help="what the tests run on",
    )
    parser.addoption(
        "--run-load", action="store_true", help="run the long acceptance tests too"
    )


def pytest_configure(config: pytest.Config) -> None:
    global _make  # noqa: PLW0603  all of a run is on one topology
    topology = str(config.getoption("--topology"))
    _make = TOPOLOGIES[topology]
    if topology == "cluster":  # for the programs that tests start too
        os.environ["REDIS_REGISTRY_PARTITIONS"] = str(PARTITIONS)


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    if not config.getoption("--run-load"):
        skip = pytest.mark.skip(reason="a long acceptance run: make test-load")
        for item in items:
            if "tests/load/" in item.nodeid:
                item.add_marker(skip)
    # The long ones first: at the end one worker would be at them, and the others idle.
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))
    if config.getoption("--topology") != "standalone":
        items[:] = _of_other_topologies(config, items)


def _of_other_topologies(
    config: pytest.Config, items: list[pytest.Item]
) -> list[pytest.Item]:
    """Those that the topology makes a difference to; the others are left out, or skipped."""
    kept: list[pytest.Item] = []
    left: list[pytest.Item] = []
    for item in items:
        (kept if _has_place(item) else left).append(item)
        mark = item.get_closest_marker("standalone")
        if mark is not None:
            item.add_marker(pytest.mark.skip(reason=f"of one server: {mark.args[0]}"))
    config.hook.pytest_deselected(items=left)
    return kept


def _has_place(item: pytest.Item) -> bool:
    """Whether a test is given what it runs on, and that is no fakeredis."""
    found = cast("Any", item)
    fake = "callspec" in vars(found) and found.callspec.params.get("registry") == "fake"
    return not fake and not PLACES.isdisjoint(found.fixturenames)


@pytest.fixture(scope="session", autouse=True)
def _stop_servers() -> Iterator[None]:
    yield
    for place in _places.values():
        place.stack.close()


@dataclass(frozen=True)
class Server:
    """What tests run on, emptied for one of them."""

    kind: str
    process: Place
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


def running(kind: str) -> Place:
    """This process's servers of a kind, started on first use."""
    if kind not in _places:
        _places[kind] = _make(_binary(kind), {})
    return _places[kind]


@contextmanager
def emptied(kind: str, *, damages: bool = False) -> Generator[Server]:
    """Servers of a kind with nothing in them; checked for leaks afterwards.

    Args:
        kind: Which.
        damages: What is left in them is not to be checked.
    """
    place = running(kind)
    raw = connect(place.url)
    raw.flushall()
    raw.script_flush()
    yield Server(kind, place, raw)
    store = Store(raw)
    wait_for(
        lambda: not store.connections() and not place.asking(),
        "our connections are closed",
    )
    if not damages:
        store.check()
    raw.close()


@pytest.fixture(autouse=True)
def _partitions(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a Cluster too a registry may have one partition only."""
    if request.node.get_closest_marker("one_partition") is not None:
        monkeypatch.delenv("REDIS_REGISTRY_PARTITIONS", raising=False)


@pytest.fixture(params=["valkey", "redis7"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A real server, or what the topology has instead, with nothing in it."""
    damages = request.node.get_closest_marker("damages") is not None
    with emptied(request.param, damages=damages) as found:
        yield found


@pytest.fixture
def url(server: Server) -> str:
    """Where it is: for tests that empty it themselves, again and again."""
    return server.url


@pytest.fixture(params=["valkey", "redis7"])
def own_server(request: pytest.FixtureRequest) -> Iterator[Place]:
    """One of the test's own, which it may kill; it writes every command to disk."""
    options = {"appendonly": "yes", "appendfsync": "always"}
    with _make(_binary(request.param), options) as made:
        yield made


@pytest.fixture(params=["valkey", "redis7"])
def forgetful_server(request: pytest.FixtureRequest) -> Iterator[Place]:
    """One of the test's own that writes to disk only what it is told to save."""
    with _make(_binary(request.param), {}) as made:
        yield made


PLACES = frozenset({"server", "own_server", "forgetful_server", "registry"})
"""The fixtures that give a test what it runs on."""


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
    with emptied(request.param) as server:
        async with RedisModelRegistry.from_url(server.url, **FAST) as found:
            yield found


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
        partitions = self.registry._operations.partitions
        return Store(self.server.raw, partitions=partitions)

    @property
    def home(self) -> int:
        """The partition of the usual model, of which most tests are."""
        return self.store.home

    async def status(self) -> Status:
        """What that partition knows of itself."""
        return (await self.registry.status())[self.home]

    def checker(self, holder: str = "tester") -> Checker:
        made = Checker(
            self.registry._operations, self.registry._executor, holder=holder
        )
        self.checkers.append(made)
        return made

    async def sweep(self) -> Checker:
        """One pass, by the first checker."""
        checker = self.checkers[0] if self.checkers else self.checker()
        await checker._sweep(self.home)
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

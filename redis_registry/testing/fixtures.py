"""Fixtures for pytest: ``pytest_plugins = ["redis_registry.testing.fixtures"]``.

======================  ===================================================================
``registry_server``     :class:`Standalone`
``registry_sentinels``  :class:`SentinelSet`
``registry_cluster``    :class:`Cluster`
``registry_network``    :class:`Network` of three hosts; the test is skipped where it can't be
``registry_proxy``      :class:`Proxy` in front of ``registry_server``
``sync_registry``       ``SyncModelRegistry`` on ``registry_server``, with a timeout of 1 s
``registry``            the same, async; where pytest-asyncio is installed
``registry_binary``     which server all of them run; override it to choose another
======================  ===================================================================

Each test gets its own, for tests break them; a module that wants to share one enters it itself.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import ExitStack
from importlib.util import find_spec
from typing import Any

import pytest

from redis_registry.errors import NotAvailableHere
from redis_registry.registry import RedisModelRegistry
from redis_registry.sync_registry import SyncModelRegistry
from redis_registry.testing.clusters import Cluster
from redis_registry.testing.netns import Network
from redis_registry.testing.proxy import Proxy
from redis_registry.testing.sentinels import SentinelSet
from redis_registry.testing.servers import Standalone

_FAST: dict[str, Any] = {"heartbeat_interval_secs": 0.5, "heartbeat_timeout_secs": 1}


@pytest.fixture(scope="session")
def registry_binary() -> str | None:
    """Path of the server to run; ``None``: :func:`redis_registry.embedded.find_server`."""
    return None


@pytest.fixture
def registry_server(registry_binary: str | None) -> Generator[Standalone]:
    """One server of the test's own."""
    with Standalone(binary=registry_binary) as server:
        yield server


@pytest.fixture
def registry_sentinels(registry_binary: str | None) -> Generator[SentinelSet]:
    """A primary, a replica and three sentinels of the test's own."""
    with SentinelSet(binary=registry_binary) as sentinels:
        yield sentinels


@pytest.fixture
def registry_cluster(registry_binary: str | None) -> Generator[Cluster]:
    """Three primaries and three replicas of the test's own."""
    with Cluster(binary=registry_binary) as cluster:
        yield cluster


@pytest.fixture
def registry_network() -> Generator[Network]:
    """Three hosts of the test's own; the test is skipped where they can't be had."""
    with ExitStack() as stack:
        try:
            network = stack.enter_context(Network(3))
        except NotAvailableHere as error:
            pytest.skip(str(error))
        yield network


@pytest.fixture
def registry_proxy(registry_server: Standalone) -> Generator[Proxy]:
    """A proxy in front of ``registry_server``."""
    with Proxy(registry_server.port) as proxy:
        yield proxy


@pytest.fixture
def sync_registry(registry_server: Standalone) -> Generator[SyncModelRegistry]:
    """A registry on ``registry_server``, with a timeout of 1 s."""
    with SyncModelRegistry.from_url(registry_server.url, **_FAST) as registry:
        yield registry


if find_spec("pytest_asyncio") is not None:
    import pytest_asyncio

    @pytest_asyncio.fixture(loop_scope="function")
    async def registry(
        registry_server: Standalone,
    ) -> AsyncGenerator[RedisModelRegistry]:
        """A registry on ``registry_server``, with a timeout of 1 s."""
        async with RedisModelRegistry.from_url(registry_server.url, **_FAST) as made:
            yield made

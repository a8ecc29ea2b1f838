"""DB-GPT's own registry tests, their bodies unchanged, on this registry.

The tests are taken at run time from DB-GPT's source archive; only the fixtures that make a
registry are ours, and the class that one of the bodies names.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from planting import Storage

from redis_registry.embedded import EmbeddedServer
from redis_registry.integrations.dbgpt import DBGPTModelRegistry

SOURCE = Path(os.environ["DBGPT_OWN_TESTS"])
SHA256 = "e0dda29f2c28cf207df8287e4ae35303044b32b104f5b18b68d1a909df3b4b09"
"""Of that file in DB-GPT 0.8.2."""


def _load() -> Any:
    """Import DB-GPT's file under the name it has there, so that its imports work."""
    assert hashlib.sha256(SOURCE.read_bytes()).hexdigest() == SHA256, SOURCE
    name = f"dbgpt.model.cluster.tests.registry_impl.{SOURCE.stem}"
    spec = importlib.util.spec_from_file_location(name, SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


own = _load()
model_instance = own.model_instance
model_instance_2 = own.model_instance_2
model_instance_3 = own.model_instance_3
model_instance_storage_item = own.model_instance_storage_item
thread_pool_executor = own.thread_pool_executor
globals().update(
    {name: test for name, test in vars(own).items() if name.startswith("test_")}
)


Make = Callable[..., DBGPTModelRegistry]


@pytest.fixture
async def in_memory_storage(
    server: EmbeddedServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Make]:
    """Makes registries, and closes them; DB-GPT's bodies hand it on as their storage."""
    made: list[DBGPTModelRegistry] = []

    def make(
        *, storage: object, executor: object, **options: Any
    ) -> DBGPTModelRegistry:
        registry = DBGPTModelRegistry.from_url(
            server.url, namespace=namespace, **options
        )
        registry._storage = Storage(registry)
        made.append(registry)
        return registry

    monkeypatch.setattr(own, "StorageModelRegistry", make)
    yield make
    for registry in made:
        await registry.aclose()


@pytest.fixture
def registry(in_memory_storage: Make) -> DBGPTModelRegistry:
    return in_memory_storage(
        storage=None, executor=None, heartbeat_interval_secs=1, heartbeat_timeout_secs=2
    )

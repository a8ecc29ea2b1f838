"""DBGPTModelRegistry in DB-GPT's process: as a registry, as a component, and as a hook."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import dbgpt.util.fastapi
import pytest
from dbgpt.component import ComponentType, SystemApp
from dbgpt.core.interface.storage import InMemoryStorage
from dbgpt.model.base import ModelInstance
from dbgpt.model.cluster.controller import controller as controller_module
from dbgpt.model.cluster.registry import ModelRegistry
from dbgpt.model.cluster.registry_impl.storage import (
    ModelInstanceStorageItem,
    StorageModelRegistry,
)
from dbgpt.util.serialization.json_serialization import JsonSerializer
from planting import Storage
from support import eventually

from redis_registry import (
    ConfigurationError,
    InvalidInstance,
    RegistryUnavailable,
    SyncModelRegistry,
)
from redis_registry.embedded import EmbeddedServer, free_port
from redis_registry.integrations.dbgpt import DBGPTModelRegistry, install

GLM = ModelInstance(
    "glm@llm",
    "10.0.0.1",
    8001,
    weight=0.5,
    healthy=True,
    prompt_template="vicuna",
    last_heartbeat=datetime.fromisoformat("2001-02-03"),
)
TWIN = ModelInstance("glm@llm", "10.0.0.2", 8001, check_healthy=False)
BGE = ModelInstance("bge@text2vec", "10.0.0.1", 8002, enabled=False, weight=None)


@pytest.fixture
async def registry(
    server: EmbeddedServer, namespace: str
) -> AsyncIterator[DBGPTModelRegistry]:
    registry = DBGPTModelRegistry.from_url(server.url, namespace=namespace)
    yield registry
    await registry.aclose()


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A local time that is not UTC."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "XXX-05:30")
        time.tzset()
        yield
    time.tzset()


def plain(answer: Any) -> Any:
    """An answer without its times, which must be naive and are compared elsewhere."""
    if isinstance(answer, list):
        return [plain(item) for item in answer]
    if not isinstance(answer, ModelInstance):
        return answer
    assert isinstance(answer.last_heartbeat, datetime)
    assert answer.last_heartbeat.tzinfo is None
    return dataclasses.replace(answer, last_heartbeat=None)


async def story(registry: ModelRegistry) -> list[Any]:
    """Everything DB-GPT's callers may do, and what each answers."""
    changed = dataclasses.replace(
        GLM, weight=2.0, prompt_template=None, enabled=False, check_healthy=False
    )
    gone = dataclasses.replace(GLM, remove_from_registry=True)
    return [
        await registry.get_all_model_instances(),
        await registry.register_instance(dataclasses.replace(GLM)),
        await registry.send_heartbeat(dataclasses.replace(TWIN)),
        await registry.register_instance(dataclasses.replace(BGE)),
        await registry.get_all_instances("glm@llm"),
        await registry.get_all_instances("nobody@llm"),
        await registry.get_all_model_instances(),
        registry.sync_get_all_instances("glm@llm"),
        await registry.send_heartbeat(changed),
        await registry.get_all_instances("glm@llm"),
        await registry.register_instance(changed),
        await registry.get_all_instances("glm@llm"),
        await registry.deregister_instance(TWIN),
        await registry.get_all_instances("glm@llm"),
        await registry.get_all_instances("glm@llm", healthy_only=True),
        await registry.get_all_instances("bge@text2vec", healthy_only=True),
        await registry.get_all_model_instances(healthy_only=True),
        registry.sync_get_all_instances("glm@llm", healthy_only=True),
        await registry.select_one_health_instance("glm@llm"),
        await registry.select_one_health_instance("bge@text2vec"),
        await registry.select_one_health_instance("nobody@llm"),
        await registry.send_heartbeat(TWIN),
        await registry.get_all_instances("glm@llm", healthy_only=True),
        await registry.deregister_instance(gone),
        await registry.deregister_instance(gone),
        await registry.get_all_model_instances(),
    ]


async def test_it_answers_as_the_registry_it_replaces(
    registry: DBGPTModelRegistry,
) -> None:
    """The same calls get the same answers, in the same order, as StorageModelRegistry's."""
    storage = InMemoryStorage(serializer=JsonSerializer())
    with ThreadPoolExecutor(2) as executor:
        expected = await story(StorageModelRegistry(storage, executor=executor))
    assert plain(await story(registry)) == plain(expected)


@pytest.mark.usefixtures("elsewhere")
async def test_times_are_naive_local_and_strictly_later(
    registry: DBGPTModelRegistry,
) -> None:
    seen: list[datetime] = []
    for _ in range(20):
        await registry.send_heartbeat(GLM)
        (instance,) = await registry.get_all_instances("glm@llm")
        seen.append(instance.last_heartbeat)
    assert seen == sorted(set(seen))
    assert abs(datetime.now() - seen[-1]) < timedelta(seconds=5)


@pytest.mark.parametrize("nameless", [None, ""])
async def test_no_name_is_every_model(
    registry: DBGPTModelRegistry, nameless: str | None
) -> None:
    """As DB-GPT's SQL storage and its controller have it."""
    for instance in (GLM, BGE):
        await registry.register_instance(instance)
    expected = await registry.get_all_model_instances()
    assert len(expected) == 2
    assert await registry.get_all_instances(nameless) == expected
    assert registry.sync_get_all_instances(nameless) == expected

    await registry.deregister_instance(BGE)
    expected = await registry.get_all_model_instances(healthy_only=True)
    assert len(expected) == 1
    assert await registry.get_all_instances(nameless, healthy_only=True) == expected
    assert registry.sync_get_all_instances(nameless, healthy_only=True) == expected
    assert await registry.select_one_health_instance(nameless) is None


@pytest.mark.usefixtures("elsewhere")
async def test_a_planted_old_heartbeat_is_a_dead_instance(
    registry: DBGPTModelRegistry,
) -> None:
    """What stands in for DB-GPT's storage plants what it is told to, and reads believe it."""
    storage = Storage(registry)
    item = ModelInstanceStorageItem.from_model_instance(GLM)
    item.last_heartbeat = datetime.now()
    storage.save(item)
    (planted,) = await registry.get_all_instances("glm@llm", healthy_only=True)
    assert abs(planted.last_heartbeat - item.last_heartbeat) < timedelta(milliseconds=1)

    item.last_heartbeat -= timedelta(seconds=61)
    storage.save(item)
    assert await registry.get_all_instances("glm@llm", healthy_only=True) == []
    (planted,) = await registry.get_all_instances("glm@llm")
    assert planted.healthy is False


async def test_white_space_is_stripped_when_stored(
    registry: DBGPTModelRegistry,
) -> None:
    """DB-GPT stores it unstripped and can never find it again."""
    spaced = dataclasses.replace(GLM, model_name=" glm@llm ", host=" 10.0.0.1 ")
    for _ in range(2):
        await registry.register_instance(spaced)
        await registry.send_heartbeat(spaced)
    (instance,) = await registry.get_all_instances("glm@llm")
    assert (instance.model_name, instance.host) == ("glm@llm", "10.0.0.1")


async def test_answers_are_nobody_elses(registry: DBGPTModelRegistry) -> None:
    """DB-GPT's embedded registry hands out its own list and objects."""
    given = dataclasses.replace(GLM)
    await registry.register_instance(given)
    assert given == GLM
    found = await registry.get_all_instances("glm@llm")
    found[0].healthy = False
    found.clear()
    (instance,) = await registry.get_all_instances("glm@llm")
    assert instance.healthy is True


@pytest.mark.parametrize("wrong", [None, {"model_name": "glm@llm"}, "glm@llm"])
async def test_what_is_no_instance_is_refused(
    registry: DBGPTModelRegistry, wrong: Any
) -> None:
    for call in (
        registry.register_instance,
        registry.deregister_instance,
        registry.send_heartbeat,
    ):
        with pytest.raises(InvalidInstance, match="expected DB-GPT's ModelInstance"):
            await call(wrong)


async def test_a_wrong_field_is_named(registry: DBGPTModelRegistry) -> None:
    with pytest.raises(InvalidInstance, match="port"):
        await registry.register_instance(dataclasses.replace(GLM, port=0))
    assert await registry.get_all_model_instances() == []


def use_from_several_loops(url: str, namespace: str) -> None:
    registry = DBGPTModelRegistry.from_url(url, namespace=namespace, run_checker=False)

    async def beat(port: int) -> None:
        for _ in range(20):
            await registry.send_heartbeat(dataclasses.replace(GLM, port=port))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda port: asyncio.run(beat(port)), range(1, 5)))
    assert len(registry.sync_get_all_instances("glm@llm", healthy_only=True)) == 4

    async def last() -> None:
        await beat(5)
        await registry.aclose()

    asyncio.run(last())


# Connections of a loop that has ended can't be closed any more.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_several_loops_and_threads_share_one(
    server: EmbeddedServer, namespace: str
) -> None:
    """Built where no loop runs, as DB-GPT builds it; some loops end, others go on."""
    use_from_several_loops(server.url, namespace)
    gc.collect()
    with SyncModelRegistry.from_url(server.url, namespace=namespace) as found:
        assert len(found.get_all_instances("glm@llm")) == 5


async def test_it_is_a_component(server: EmbeddedServer, namespace: str) -> None:
    """Registered in a SystemApp, it is found as DB-GPT looks for it, started and closed."""
    app = SystemApp()
    registry = app.register(DBGPTModelRegistry, url=server.url, namespace=namespace)
    assert registry.system_app is app
    assert app.get_component(ComponentType.MODEL_REGISTRY, ModelRegistry) is registry

    await app.async_after_start()
    with SyncModelRegistry.from_url(server.url, namespace=namespace) as looking:

        async def swept() -> bool:
            return looking.status()[0].lease_holder is not None

        await eventually(swept, "the checker holds the lease")
        await app.async_before_stop()
        assert looking.status()[0].lease_holder is None
    assert len(asyncio.all_tasks()) == 1


async def test_redis_may_come_later(namespace: str) -> None:
    """A controller starts without Redis, says so to its callers, and works once it is there."""
    port = free_port()
    server = EmbeddedServer(port=port)
    registry = DBGPTModelRegistry.from_url(
        f"redis://127.0.0.1:{port}/0",
        namespace=namespace,
        operation_timeout_secs=0.3,
    )
    await registry.start()
    with pytest.raises(RegistryUnavailable):
        await registry.register_instance(GLM)
    with server:

        async def works() -> bool:
            try:
                return await registry.register_instance(GLM)
            except RegistryUnavailable:
                return False

        await eventually(works, "the registry finds its Redis")
        await registry.aclose()


async def test_a_reader_runs_no_checker(server: EmbeddedServer, namespace: str) -> None:
    registry = DBGPTModelRegistry.from_url(
        server.url, namespace=namespace, run_checker=False
    )
    await registry.start()
    assert await registry.get_all_model_instances() == []
    assert not [task for task in asyncio.all_tasks() if "checker" in task.get_name()]
    await registry.aclose()


Handlers = dict[str, list[Any]]


@pytest.fixture
def handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Handlers]:
    """DB-GPT's global event handlers and controller, put back afterwards."""
    found: Handlers = {"startup": [], "shutdown": []}
    monkeypatch.setattr(
        dbgpt.util.fastapi, "_GLOBAL_STARTUP_HANDLERS", found["startup"]
    )
    monkeypatch.setattr(
        dbgpt.util.fastapi, "_GLOBAL_SHUTDOWN_HANDLERS", found["shutdown"]
    )
    backend = controller_module.controller.backend
    yield found
    controller_module.controller.backend = backend


async def test_install_reads_section_params_and_environment(
    server: EmbeddedServer,
    namespace: str,
    handlers: Handlers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """DB-GPT calls a hook before it replaces ``${env:…}``; params go before the section."""
    monkeypatch.setenv("RR_TEST_URL", server.url)
    monkeypatch.setenv("REDIS_REGISTRY_NAMESPACE", namespace)
    section = {
        "port": 8000,
        "heartbeat_interval_secs": "${env:RR_TEST_INTERVAL:-7}",
        "heartbeat_timeout_secs": 90,
    }

    returned = install(
        section, url="${env:RR_TEST_URL}", heartbeat_timeout_secs="${env:NONE_OF:-30}"
    )

    assert returned is section
    (start,), (stop,) = handlers["startup"], handlers["shutdown"]
    await start()
    registry = controller_module.controller.backend.registry
    assert isinstance(registry, DBGPTModelRegistry)
    assert registry.heartbeat_interval_secs == 7
    assert registry.heartbeat_timeout_secs == 30
    assert registry.settings.url == server.url
    assert registry.settings.namespace == namespace
    await controller_module.controller.register_instance(GLM)
    assert len(await controller_module.controller.get_all_instances()) == 1
    await stop()
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"url": "${env:RR_TEST_NOT_SET}"}, "url: .*RR_TEST_NOT_SET is not set"),
        ({"heartbeat_timeout_secs": -1}, "heartbeat_timeout_secs"),
        ({"uri": "redis://localhost"}, "unknown setting uri"),
    ],
)
def test_install_refuses_at_once(
    handlers: Handlers, options: dict[str, Any], complaint: str
) -> None:
    """The controller doesn't come up with settings that can't work."""
    with pytest.raises(ConfigurationError, match=complaint):
        install({}, **options)
    assert handlers == {"startup": [], "shutdown": []}


def test_without_dbgpt_the_import_says_what_to_install(tmp_path: Path) -> None:
    code = "import sys; sys.modules['dbgpt'] = None; import redis_registry.integrations.dbgpt"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 1
    assert "pip install 'redis-registry[dbgpt]'" in done.stderr.splitlines()[-1]

"""DB-GPT 0.8.2 under the same load as ours; runs in DB-GPT's environment and imports only it.

``dbgpt_side.py registries`` answers one JSON line for each on standard input:

    {"do": "open", "storage": "memory" | "sqlite", "count": N, "per_name": M}  -> {"value": N}
    {"do": "beat", "storage": …, "callers": C, "secs": S}        -> heartbeats a second
    {"do": "read", "storage": …, "callers": C, "secs": S}        -> reads of one name a second

``dbgpt_side.py controller PORT COUNT`` is DB-GPT's own HTTP controller.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from datetime import datetime
from itertools import cycle
from pathlib import Path
from time import perf_counter

from dbgpt.core.interface.storage import InMemoryStorage
from dbgpt.model.base import ModelInstance
from dbgpt.model.cluster.registry import EmbeddedModelRegistry
from dbgpt.model.cluster.registry_impl.db_storage import (
    ModelInstanceEntity,
    ModelInstanceItemAdapter,
)
from dbgpt.model.cluster.registry_impl.storage import (
    ModelInstanceStorageItem,
    StorageModelRegistry,
)
from dbgpt.storage.metadata.db_manager import initialize_db
from dbgpt.storage.metadata.db_storage import SQLAlchemyStorage
from dbgpt.util.serialization.json_serialization import JsonSerializer


def fleet(count, per_name):
    """The same instances as ours."""
    return [
        ModelInstance(
            model_name=f"model-{i // per_name}@llm",
            host=f"10.{i >> 16 & 255}.{i >> 8 & 255}.{i & 255}",
            port=8000 + i % 8,
            healthy=True,
            last_heartbeat=datetime.now(),
        )
        for i in range(count)
    ]


def sqlite_storage():
    """As StorageModelRegistry.from_url builds it, with the table that it forgets to create."""
    engine_args = {
        "pool_size": 5,
        "max_overflow": 10,
        "pool_timeout": 30,
        "pool_recycle": 3600,
        "pool_pre_ping": True,
    }
    path = Path(os.environ["DBGPT_BENCHMARK_HOME"]) / "registry.db"
    db = initialize_db(f"sqlite:///{path}", "registry", engine_args)
    db.create_all()
    adapter, serializer = ModelInstanceItemAdapter(), JsonSerializer()
    return SQLAlchemyStorage(db, ModelInstanceEntity, adapter, serializer)


STORAGES = {"memory": InMemoryStorage, "sqlite": sqlite_storage}


class Side:
    """Registries by the name of their storage."""

    def __init__(self):
        self.opened = {}

    async def open(self, storage, count, per_name):
        """Fill a storage directly (through the registry it would take minutes), then use it."""
        instances = fleet(count, per_name)
        backend = STORAGES[storage]()
        backend.save_list(
            [ModelInstanceStorageItem.from_model_instance(item) for item in instances]
        )
        self.opened[storage] = StorageModelRegistry(backend), instances
        return count

    async def beat(self, storage, callers, secs):
        """Heartbeats a second of `callers` loops."""
        registry, instances = self.opened[storage]
        return await calls(registry.send_heartbeat, instances, callers, secs)

    async def read(self, storage, callers, secs):
        """Reads of one name a second."""
        registry, instances = self.opened[storage]
        names = [item.model_name for item in instances]
        return await calls(registry.get_all_instances, names, callers, secs)


async def calls(call, items, callers, secs):
    """As the function of that name in harness.py, which this file can't import."""
    until = perf_counter() + secs

    async def caller(share):
        done = 0
        for item in cycle(share):
            await call(item)
            done += 1
            if perf_counter() >= until:
                break
        return done

    started = perf_counter()
    done = await asyncio.gather(*(caller(items[i::callers]) for i in range(callers)))
    return sum(done) / (perf_counter() - started)


async def registries(answers):
    """Answer requests until standard input ends."""
    side, loop = Side(), asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        request = json.loads(line)
        try:
            value = await getattr(side, request.pop("do"))(**request)
            answer = {"value": value}
        except Exception as error:  # noqa: BLE001  the other side is told
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


def controller(port, count):
    """DB-GPT's controller with its default registry, as its own launcher builds it."""
    from dbgpt.model.cluster.controller.controller import initialize_controller
    from dbgpt.model.parameter import ModelControllerParameters

    os.chdir(os.environ["DBGPT_BENCHMARK_HOME"])
    registry = EmbeddedModelRegistry()
    for item in fleet(count, 10):
        registry.registry[item.model_name].append(item)
    params = ModelControllerParameters(host="127.0.0.1", port=port)
    initialize_controller(registry=registry, controller_params=params)


def main():
    """Standard output is for answers alone; whatever DB-GPT prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    logging.disable(logging.INFO)
    if sys.argv[1] == "controller":
        controller(int(sys.argv[2]), int(sys.argv[3]))
    else:
        asyncio.run(registries(answers))


if __name__ == "__main__":
    main()

"""Agents as processes, on real servers."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from redis_registry import ModelInstance, SyncModelRegistry
from redis_registry.embedded import free_port
from tests.conftest import Server
from tests.helpers import wait_for

TOY = [sys.executable, str(Path(__file__).with_name("toy_server.py"))]


class Agent:
    """``redis-registry agent`` around the toy server, or around whatever is given."""

    def __init__(self, log: Path, *options: str, command: list[str] | None = None):
        self.port = free_port()
        self.at = f"http://127.0.0.1:{self.port}"
        self.log = log
        toy = [*TOY, str(self.port)]
        given = [word.replace("PORT", str(self.port)) for word in options]
        words = [
            *(sys.executable, "-m", "redis_registry", "agent"),
            *("--model", "toy@llm", "--host", "127.0.0.1", "--port", str(self.port)),
            *("--probe-interval-secs", "0.1", "--heartbeat-timeout-secs", "1.5"),
            *given,
            *(["--", *(toy if command is None else command)] if command != [] else []),
        ]
        with log.open("wb") as output:
            self.process = subprocess.Popen(words, stdout=output, stderr=output)

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def term(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        return self.process.wait(15)

    def said(self) -> str:
        return self.log.read_text()

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.at + path, timeout=10)


@pytest.fixture
def reader(server: Server) -> Iterator[SyncModelRegistry]:
    with SyncModelRegistry.from_url(server.url, heartbeat_timeout_secs=1.5) as registry:
        yield registry


@pytest.fixture
def agent(server: Server, tmp_path: Path) -> Iterator[Callable[..., Agent]]:
    """Start an agent; at the end nothing of it is left."""
    made: list[Agent] = []

    def start(*options: str, command: list[str] | None = None, url: str = "") -> Agent:
        log = tmp_path / f"agent{len(made)}"
        where = ("--url", url or server.url)
        made.append(Agent(log, *where, *options, command=command))
        return made[-1]

    yield start
    for one in made:
        children = one.children() if one.process.poll() is None else []
        one.process.kill()
        one.process.wait()
        for child in children:
            if child.is_running():
                child.kill()


def only(reader: SyncModelRegistry) -> ModelInstance | None:
    found = reader.get_all_instances("toy@llm")
    assert len(found) < 2
    return found[0] if found else None


def ready(reader: SyncModelRegistry) -> None:
    def is_ready() -> bool:
        found = only(reader)
        return found is not None and found.healthy is True and found.ready

    wait_for(is_ready, "the worker is ready", within_secs=15)

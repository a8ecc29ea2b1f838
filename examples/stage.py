"""The demo's processes: one server, two controllers, six workers, each with a log of its own.

None of them outlives the demo: it ends them by their process ids, and on Linux the kernel ends
them should the demo itself be killed.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from examples.pause import pause
from redis_registry.embedded import EmbeddedServer

__all__ = [
    "INTERVAL_SECS",
    "TIMEOUT_SECS",
    "Child",
    "Controller",
    "NotStarted",
    "Stage",
    "Worker",
    "strip_environment",
]

INTERVAL_SECS = 1.0
"""How often a controller sweeps, and how often a worker beats."""
TIMEOUT_SECS = 3.0
"""Silence after which a worker counts as dead."""

CONTROLLERS = ("A", "B")
MODELS = ("llama3@llm", "bge-m3@text2vec", "jina-v2@reranker")
WORKERS = 6
FIRST_WORKER_PORT = 9001
START_SECS = 15.0
STOP_SECS = 5.0
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_ROOT = Path(__file__).resolve().parent.parent


class NotStarted(Exception):
    """A process of the demo ended, or did not answer, while it was to start."""


def _die_with(parent: int) -> None:
    """Linux: have the kernel kill the child when the demo is gone, however it went."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # gone already
            os._exit(1)


@dataclass(eq=False)
class Child:
    """A process of ours: ``python -m`` something.

    Attributes:
        name: For people.
        arguments: What follows ``python -m``.
        log: Where its output goes.
    """

    name: str
    arguments: Sequence[str]
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def pid(self) -> int:
        """Its process id, also after its end; 0 before its start."""
        return self.process.pid if self.process else 0

    @property
    def ended(self) -> bool:
        """Whether it ran and ended, by whomever."""
        return self.process is not None and self.process.poll() is not None

    def start(self) -> None:
        """Start it, out of reach of the terminal's Ctrl-C, which is for the demo."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *self.arguments],
                cwd=_ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=partial(_die_with, os.getpid()),  # noqa: PLW1509  only calls prctl
                process_group=0,
            )

    def kill(self) -> None:
        """``kill -9``: it gets no chance to say anything."""
        if self.process:
            self.process.kill()
            self.process.wait()

    def stop(self) -> None:
        """``kill``: it may say goodbye first."""
        if self.process:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECS)
            except subprocess.TimeoutExpired:
                self.kill()


@dataclass(eq=False)
class Controller(Child):
    """One replica of ``redis-registry serve``."""

    letter: str
    port: int

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def await_answer(self) -> None:
        """Wait until it takes connections.

        Raises:
            NotStarted: It ended, or took too long.
            Interrupted: A signal asked us to end.
        """
        until = time.monotonic() + START_SECS
        while not self._listens():
            if self.ended or time.monotonic() > until:
                why = "ended" if self.ended else f"took longer than {START_SECS:g} s"
                tail = self.log.read_text(errors="replace").splitlines()[-5:]
                raise NotStarted("\n".join([f"{self.name} {why}; its log:", *tail]))
            pause(0.02)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True


@dataclass(eq=False)
class Worker(Child):
    """One ``examples.worker``."""

    model: str
    port: int


def _free_port(wanted: int) -> int:
    """The wanted port or the next free one."""
    for port in range(wanted, 65536):
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
    raise NotStarted(f"no port is free from {wanted} on")


class Stage:
    """All processes of the demo; leaving it ends them.

    Attributes:
        home: The directory of the logs.
        keep_logs: Leave the logs when all is over.
    """

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="redis-registry-demo-"))
        self.keep_logs = False
        self.server = EmbeddedServer()
        self.controllers: list[Controller] = []
        self.workers: list[Worker] = []

    @property
    def children(self) -> list[Child]:
        """Controllers and workers."""
        return [*self.controllers, *self.workers]

    def add_controllers(self, port: int) -> None:
        """Cast the controllers, on ports from ``port`` on; the server must run already."""
        for letter in CONTROLLERS:
            port = _free_port(port)
            arguments = ["redis_registry", "serve", "--url", self.server.url]
            arguments += ["--port", f"{port}", "--log-format", "console"]
            arguments += ["--heartbeat-interval-secs", f"{INTERVAL_SECS}"]
            arguments += ["--heartbeat-timeout-secs", f"{TIMEOUT_SECS}"]
            log = self.home / f"controller-{letter}.log"
            name = f"controller {letter}"
            self.controllers.append(Controller(name, arguments, log, letter, port))
            port += 1

    def add_workers(self) -> None:
        """Cast the workers; half of them ask controller A first, the others B."""
        for number in range(WORKERS):
            model = MODELS[number * len(MODELS) // WORKERS]
            port = FIRST_WORKER_PORT + number
            urls = [controller.url for controller in self.controllers]
            urls = urls if number % 2 == 0 else urls[::-1]
            arguments = ["examples.worker", "--model", model, "--port", f"{port}"]
            arguments += ["--controllers", ",".join(urls)]
            arguments += ["--interval", f"{INTERVAL_SECS}"]
            log = self.home / f"worker-{port}.log"
            self.workers.append(Worker(f"{model} :{port}", arguments, log, model, port))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for child in self.children:
            child.kill()
        self.server.stop()
        if not self.keep_logs:
            shutil.rmtree(self.home)


def strip_environment() -> None:
    """Remove ``REDIS_REGISTRY_*``: nobody's own settings change the demo."""
    for name in [name for name in os.environ if name.startswith("REDIS_REGISTRY_")]:
        del os.environ[name]

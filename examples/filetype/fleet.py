"""Three workers under agents, killed and restarted all the while; a client that never fails.

Run: ``python -m examples.filetype.fleet --requests 1000``; ends with 0 when no request failed.
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from examples.filetype.client import MODEL, Client, NoAnswer
from redis_registry import SyncModelRegistry
from redis_registry.embedded import EmbeddedServer, free_port

WORKERS = 3
TIMEOUT_SECS = 2.0
START_SECS = 60.0
STOP_SECS = 15.0


class Worker:
    """A server under an agent, on a port of its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.port = free_port()
        self.start()

    def start(self) -> None:
        """Start the agent, which starts the server."""
        at = f"http://127.0.0.1:{self.port}"
        server = [sys.executable, "-m", "examples.filetype.server"]
        self._agent = subprocess.Popen(
            [
                *(sys.executable, "-m", "redis_registry", "agent"),
                *("--url", self._url, "--model", MODEL),
                *("--host", "127.0.0.1", "--port", str(self.port)),
                *("--health", f"{at}/health", "--metrics", f"{at}/metrics"),
                *("--in-flight-metric", "filetype_requests_in_flight"),
                *("--heartbeat-timeout-secs", str(TIMEOUT_SECS)),
                *("--probe-interval-secs", "0.2", "--settle-secs", "0.3"),
                *("--log-level", "error"),
                *("--", *server, "--port", str(self.port)),
            ],
        )

    def crash_the_server(self) -> None:
        """The agent sees it at once, deregisters, and ends."""
        for child in self._servers():
            child.kill()

    def crash_the_host(self) -> None:
        """Nobody says goodbye: only silence tells."""
        servers = self._servers()
        os.kill(self._agent.pid, signal.SIGKILL)
        for child in servers:
            child.kill()

    def roll(self) -> None:
        """The polite end, as of a deployment."""
        self._agent.terminate()

    def wait(self) -> None:
        """Until its processes have ended."""
        servers = self._servers()
        self._agent.wait(STOP_SECS)
        psutil.wait_procs(servers, STOP_SECS)

    def end(self) -> None:
        """End it for good."""
        if self._agent.poll() is None:
            self.roll()
        self.wait()

    def _servers(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self._agent.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []


@contextmanager
def trouble(workers: list[Worker], every_secs: float) -> Generator[Counter[str]]:
    """Worker after worker is ended, in one way after the other, and started again."""
    done: Counter[str] = Counter()
    stop = threading.Event()

    def make() -> None:
        turns = zip(
            itertools.cycle(workers),
            itertools.cycle(["crash_the_server", "roll", "crash_the_host", "roll"]),
            strict=False,
        )
        for worker, how in turns:
            if stop.wait(every_secs):
                return
            getattr(worker, how)()
            done[how] += 1
            worker.wait()
            worker.start()

    thread = threading.Thread(target=make)
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join()


def run(requests: int, *, per_sec: float, every_secs: float) -> int:
    """Ask so many times while there is trouble; how many requests failed."""
    sample = Path(__file__).read_bytes()
    answers: Counter[str] = Counter()
    with ExitStack() as stack:
        server = stack.enter_context(EmbeddedServer())
        workers = [Worker(server.url) for _ in range(WORKERS)]
        for worker in workers:
            stack.callback(worker.end)
        registry = stack.enter_context(SyncModelRegistry.from_url(server.url))
        client = Client(registry)
        _wait_for_all(registry)
        done = stack.enter_context(trouble(workers, every_secs))
        began = time.monotonic()
        slowest = 0.0
        for number in range(requests):
            time.sleep(max(began + number / per_sec - time.monotonic(), 0))
            asked = time.monotonic()
            try:
                answers[client.ask(sample)["label"]] += 1
            except NoAnswer as error:
                print(f"request {number}: {error}", flush=True)
            slowest = max(slowest, time.monotonic() - asked)
        secs = time.monotonic() - began
    failed = requests - answers.total()
    ways = ", ".join(f"{how.replace('_', ' ')} {times}" for how, times in done.items())
    print(
        f"{requests} requests in {secs:.0f} s, {done.total()} workers ended ({ways}): "
        f"{failed} failed, {client.again} answered by another worker, slowest {slowest:.2f} s; "
        f"answers: {dict(answers)}",
        flush=True,
    )
    return failed


def _wait_for_all(registry: SyncModelRegistry) -> None:
    until = time.monotonic() + START_SECS
    while sum(item.ready for item in registry.get_all_instances(MODEL)) < WORKERS:
        if time.monotonic() > until:
            msg = f"the workers are not ready within {START_SECS:g} s"
            raise NoAnswer(msg)
        time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--per-sec", type=float, default=30.0)
    parser.add_argument("--every-secs", type=float, default=2.0)
    asked = parser.parse_args()
    failed = run(asked.requests, per_sec=asked.per_sec, every_secs=asked.every_secs)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

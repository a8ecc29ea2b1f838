"""What the DB-GPT tests share: controllers as processes, and waiting for conditions."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import requests

from redis_registry.embedded import free_port

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "how-to" / "dbgpt.md"
DBGPT = Path(sys.executable).with_name("dbgpt")
SERVE = ROOT / ".venv" / "bin" / "redis-registry"
START_SECS = 30.0
STOP_SECS = 10.0


class Controller:
    """One controller, ours or DB-GPT's, as a child process on a port of its own.

    Whoever first asks for its URL waits until it answers, so that several start at once.

    Args:
        command: Makes its command line of a port.
        home: Where it runs, and leaves its logs.
    """

    def __init__(self, command: Callable[[int], list[str]], home: Path) -> None:
        self.port = free_port()
        self._command = command(self.port)
        self._home = home
        self._log = home / "controller.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._answered = False

    def start(self) -> None:
        """Start it; also after :meth:`kill`, on the same port."""
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._home,
                env={**os.environ, "DBGPT_LOG_DIR": str(self._home / "logs")},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def url(self) -> str:
        """Where it listens."""
        url = f"http://127.0.0.1:{self.port}"
        until = time.monotonic() + START_SECS
        while not self._answered:
            assert self._process is not None, "it was not started"
            try:
                self._answered = requests.get(f"{url}/api/health", timeout=1).ok
            except requests.RequestException:
                ended = self._process.poll()
                if ended is not None or time.monotonic() > until:
                    self.kill()
                    pytest.fail(f"{self._command} gave up ({ended}):\n{self.log}")
                time.sleep(0.02)
        return url

    @property
    def log(self) -> str:
        """The end of what it printed."""
        return self._log.read_text(errors="replace")[-4000:]

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self._answered = False

    def stop(self) -> None:
        """End it as an operator would."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(STOP_SECS)
        except subprocess.TimeoutExpired:
            self.kill()
            pytest.fail(f"{self._command} did not end on SIGINT:\n{self.log}")
        self._process = None
        self._answered = False


def guide_block(language: str, holding: str, **changes: str) -> str:
    """A fenced block of the guide, so that what is documented is what is tested.

    Args:
        language: Of the fence.
        holding: What tells it from the others.
        **changes: New values of ``name = value`` lines or arguments.
    """
    blocks = re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    (block,) = [block for block in blocks if holding in block]
    for name, value in changes.items():
        block, found = re.subn(
            rf'\b({name} ?= ?)("[^"]*"|[\d.]+)',
            lambda old, value=value: old[1] + value,
            block,
        )
        assert found, f"the guide sets no {name}"
    return block


async def eventually(
    holds: Callable[[], Awaitable[bool]], what: str, *, within: float = 10.0
) -> None:
    """Wait for a condition, asked every 50 ms; bounded."""
    until = time.monotonic() + within
    while not await holds():
        if time.monotonic() > until:
            pytest.fail(f"not within {within:g} s: {what}")
        await asyncio.sleep(0.05)

"""A process that holds reservations until its input ends.

``python -m tests.holder URL MODEL COUNT TTL_SECS``

Prints ``ready`` once it holds them all; answers each line of input with how many of them are lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

from redis_registry import RedisModelRegistry

ROOT = Path(__file__).resolve().parents[1]


async def main(url: str, model: str, count: int, ttl_secs: float) -> None:
    async with (
        RedisModelRegistry.from_url(
            url, run_checker=False, reservation_ttl_secs=ttl_secs
        ) as registry,
        contextlib.AsyncExitStack() as stack,
    ):
        held = [
            await stack.enter_async_context(registry.reserve(model))
            for _ in range(count)
        ]
        print("ready", flush=True)  # noqa: T201  for the parent
        while await asyncio.to_thread(sys.stdin.readline):
            print(sum(made.lost for made in held), flush=True)  # noqa: T201


class HolderProcess:
    """One such process."""

    def __init__(self, url: str, model: str, count: int, ttl_secs: float) -> None:
        command = [sys.executable, "-m", "tests.holder", url, model]
        self.process = subprocess.Popen(
            [*command, str(count), str(ttl_secs)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._line() == "ready"

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def lost(self) -> int:
        """How many of its reservations it has been told are lost."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return int(self._line())

    def end(self) -> None:
        """Let it release what it holds and end."""
        self.process.communicate(timeout=20)


@contextlib.contextmanager
def holding(
    url: str, model: str, count: int, ttl_secs: float
) -> Generator[HolderProcess]:
    """A process that holds so many; killed at the end if it still runs."""
    made = HolderProcess(url, model, count, ttl_secs)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.process.kill()
        made.process.communicate()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))

"""DB-GPT's side of a comparison: ``dbgpt_side.py`` in DB-GPT's own environment."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.harness import Missing
from benchmarks.tools import ROOT, child, free_port, listening, output_of

__all__ = ["DBGPT", "controller", "opened_dbgpt"]

SIDE = Path(__file__).parent / "dbgpt_side.py"
SETUP = ROOT / "tests" / "dbgpt" / "run.sh"
VENV = ROOT / ".venv-dbgpt" / "bin" / "python"
SETUP_SECS = 300.0


async def _python() -> str:
    """The Python that has DB-GPT; made when it isn't there.

    Raises:
        Missing: It can't be made; the message says why.
    """
    why = "tests/dbgpt/run.sh --setup-only makes it"
    if not VENV.exists() and SETUP.exists():
        try:
            await output_of(["bash", str(SETUP), "--setup-only"], secs=SETUP_SECS)
        except (RuntimeError, TimeoutError) as error:
            why = f"tests/dbgpt/run.sh --setup-only: {error}"
    if not VENV.exists():
        raise Missing(f"DB-GPT is not here (.venv-dbgpt): {why}")
    return str(VENV)


def _environment(home: str) -> dict[str, str]:
    return {**os.environ, "DBGPT_LOG_DIR": home, "DBGPT_BENCHMARK_HOME": home}


@dataclass(frozen=True, slots=True)
class DBGPT:
    """A process with DB-GPT's registries, asked one thing at a time."""

    process: Any

    async def ask(self, **what: Any) -> float:
        """Send one request; its number.

        Raises:
            RuntimeError: It failed.
        """
        self.process.stdin.write(json.dumps(what).encode() + b"\n")
        await self.process.stdin.drain()
        line = await self.process.stdout.readline()
        answer = json.loads(line or b'{"error": "it ended"}')
        if "error" in answer:
            raise RuntimeError(f"DB-GPT's side: {what}: {answer['error']}")
        return float(answer["value"])


@asynccontextmanager
async def opened_dbgpt() -> AsyncGenerator[DBGPT]:
    """DB-GPT's registries, in a process of their own."""
    python = await _python()
    with TemporaryDirectory(prefix="benchmark-dbgpt-") as home:
        command = [python, str(SIDE), "registries"]
        async with child(command, env=_environment(home)) as process:
            yield DBGPT(process)


@asynccontextmanager
async def controller(instances: int) -> AsyncGenerator[int]:
    """DB-GPT's HTTP controller with ``instances`` registered, in its own process; its port."""
    python = await _python()
    port = free_port()
    with TemporaryDirectory(prefix="benchmark-dbgpt-") as home:
        command = [python, str(SIDE), "controller", str(port), str(instances)]
        async with child(command, env=_environment(home)) as process:
            await listening(port, process, "DB-GPT's controller")
            yield port

"""The programs the benchmarks drive, and what to do when one is not here."""

from __future__ import annotations

import asyncio
import csv
import shutil
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.harness import Missing
from redis_registry.embedded import free_port

__all__ = ["child", "found", "output_of", "redis_benchmark", "redis_server"]

ROOT = Path(__file__).parent.parent
STOP_SECS = 10.0
_DEBIAN = {
    "redis-benchmark": "redis-tools",
    "redis-server": "redis-server",
    "wrk": "wrk",
}


def found(program: str) -> str:
    """Where a program of Debian's is.

    Raises:
        Missing: It is not on PATH; the message names its package.
    """
    path = shutil.which(program)
    if path is None:
        raise Missing(f"{program} is not on PATH: apt-get install {_DEBIAN[program]}")
    return path


def redis_server() -> str:
    """Debian's Redis 7.0."""
    return found("redis-server")


async def output_of(command: Sequence[str], *, secs: float = 60) -> str:
    """What a command prints; its failure is ours.

    Raises:
        RuntimeError: It exited with another code than 0.
    """
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(secs):
            out, err = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        raise RuntimeError(
            f"{command[0]} failed ({process.returncode}): {err.decode()}"
        )
    return out.decode()


async def redis_benchmark(port: int, *, members: int, requests: int) -> float:
    """ZADDs a second of Debian's redis-benchmark: 50 connections, 64 in a pipeline each."""
    text = await output_of(
        [
            found("redis-benchmark"),
            *("-p", str(port), "-t", "zadd", "-P", "64", "--csv"),
            *("-r", str(members), "-n", str(requests)),
        ]
    )
    rows = {row[0]: row for row in csv.reader(text.splitlines()) if len(row) > 1}
    return float(rows["ZADD"][1])


@asynccontextmanager
async def child(
    command: Sequence[str], *, env: Mapping[str, str] | None = None
) -> AsyncGenerator[asyncio.subprocess.Process]:
    """A process of ours with pipes to it; it is ended with the block."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env=env,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(STOP_SECS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def listening(port: int, process: asyncio.subprocess.Process, what: str) -> None:
    """Wait until somebody listens on a port.

    Raises:
        Missing: The process ended, or 20 s passed.
    """
    for _ in range(400):
        if process.returncode is not None:
            raise Missing(f"{what} did not start: it exited with {process.returncode}")
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return
    raise Missing(f"{what} did not listen on port {port} within 20 s")


__all__ += ["free_port", "listening"]

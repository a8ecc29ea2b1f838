"""Heartbeats over HTTP: one replica of ours against DB-GPT's controller, the same load."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from benchmarks.dbgpt_driver import controller
from benchmarks.figures import Figure, Floor
from benchmarks.fleet import opened
from benchmarks.harness import Missing, Run, benchmark, per_sec
from benchmarks.tools import child, found, free_port, listening, output_of

INSTANCES = 1000
CONNECTIONS = 32
SCRIPT = Path(__file__).parent / "heartbeat.lua"


@benchmark
async def http(run: Run) -> AsyncGenerator[Figure]:
    """Heartbeats a second of one `redis-registry serve` and of DB-GPT's own controller.

    POST /api/controller/heartbeat with the body that DB-GPT's worker sends, 1,000 instances in
    turn, by wrk with one thread and 32 connections. Ours runs on the embedded server with its
    checker on; DB-GPT's runs in its own process with its default EmbeddedModelRegistry.
    """
    async with (
        opened() as place,
        _serve(place.url) as ours,
        controller(INSTANCES) as theirs,
    ):
        for port in (ours, theirs):
            await _wrk(port, 0.5)  # the first beats register the 1,000
        taken = await run.interleave(
            {
                "ours": partial(_wrk, ours, 2 * run.secs),
                "dbgpt": partial(_wrk, theirs, 2 * run.secs),
            }
        )
        listed = len(await place.registry.get_all_model_instances(healthy_only=True))
    if listed != INSTANCES:
        raise RuntimeError(f"{listed} instances are listed, not {INSTANCES}")
    yield Figure(
        "HTTP heartbeats, one replica",
        per_sec(taken["ours"], "redis-registry serve"),
        per_sec(taken["dbgpt"], "DB-GPT controller"),
        Floor(10, least=True),
    )


async def _wrk(port: int, secs: float) -> float:
    """Requests a second; every answer must be 200."""
    said = await output_of(
        [
            found("wrk"),
            *(
                "-t1",
                f"-c{CONNECTIONS}",
                f"-d{max(1, round(secs))}s",
                "-s",
                str(SCRIPT),
            ),
            f"http://127.0.0.1:{port}/api/controller/heartbeat",
        ]
    )
    failed = re.search(r"Non-2xx[^\n]*|Socket errors[^\n]*", said)
    rate = re.search(r"Requests/sec:\s*([\d.]+)", said)
    if failed or rate is None:
        raise RuntimeError(f"wrk: {failed.group() if failed else said}")
    return float(rate.group(1))


@asynccontextmanager
async def _serve(url: str) -> AsyncGenerator[int]:
    """One replica of ours in a process of its own; its port."""
    port = free_port()
    program = Path(sys.executable).parent / "redis-registry"
    if not program.exists():
        raise Missing("redis-registry is not installed beside this Python: make setup")
    command = [str(program), "serve", "--url", url, "--log-level", "warning"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    async with child(command) as process:
        await listening(port, process, "redis-registry serve")
        yield port

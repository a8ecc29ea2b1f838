"""``python -m benchmarks``: take every figure, side by side in one run.

Exit code 0: every floor is met. 1: one is not, or could not be measured.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from time import perf_counter

import uvloop
from rich.console import Console

from benchmarks import (
    against_dbgpt,
    heartbeats,
    http_door,
    mass_expiry,
    memory,
    reads,
    selection,
    sweeps,
)
from benchmarks.figures import Figure
from benchmarks.harness import BENCHMARKS, Benchmark, Missing, Run
from benchmarks.machine import commit, machine
from benchmarks.report import save, show

MOST_SECS = 240
WIDTH = 132  # where the output is no terminal

# Importing a module enters its benchmarks into the list.
MODULES = (
    against_dbgpt,
    heartbeats,
    http_door,
    mass_expiry,
    memory,
    reads,
    selection,
    sweeps,
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Takes the project's figures side by side in one run: the sides of a "
        "comparison have their turns A B C, A B C, ...; medians are reported, and each is held "
        "against its floor. Exit code 1 when a floor is not met or could not be measured.",
        epilog="Needs Debian's redis-tools, redis-server and wrk, and DB-GPT in .venv-dbgpt "
        "(made by tests/dbgpt/run.sh). What is missing is said, with what to install.",
    )
    add = parser.add_argument
    add(
        "--only",
        metavar="NAME",
        action="append",
        choices=sorted(BENCHMARKS),
        help=f"run only this one; may be repeated ({', '.join(sorted(BENCHMARKS))})",
    )
    rounds = "rounds of each side that count (default: 5; quick: at most 3)"
    add("--rounds", type=int, default=5, help=rounds)
    quick = "a tenth of the instances, turns of 0.3 s: for development, no result"
    add("--quick", action="store_true", help=quick)
    listing = "say exactly what each one measures, and end"
    add("--list", action="store_true", help=listing)
    return parser


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    arguments = parser.parse_args(given)
    if arguments.rounds < 1:
        parser.error("--rounds: at least 1")
    return arguments


async def _measure(bench: Benchmark, run: Run, console: Console) -> list[Figure]:
    """One benchmark's figures; what could not be measured becomes a figure that says so."""
    started = perf_counter()
    figures: list[Figure] = []
    try:
        async with asyncio.timeout(MOST_SECS):
            figures.extend([figure async for figure in bench.measure(run)])
    except Missing as missing:
        figures.append(Figure(bench.name, missing=str(missing)))
    except Exception as error:  # noqa: BLE001  the others' figures must not be lost
        console.print_exception()
        figures.append(Figure(bench.name, missing=f"{type(error).__name__}: {error}"))
    took = perf_counter() - started
    console.print(f"[dim]{bench.name}: {len(figures)} figures in {took:.0f} s[/]")
    return figures


async def _all(benches: Sequence[Benchmark], run: Run, console: Console) -> int:
    facts, at = machine(), commit()
    results = {bench.name: await _measure(bench, run, console) for bench in benches}
    show(console, results, facts)
    failed = [f.name for figures in results.values() for f in figures if f.ok is False]
    console.print(f"[dim]written to {save(results, facts, run, at).name}[/]")
    if failed:
        console.print(f"[bold red]{len(failed)} floors not met:[/] {', '.join(failed)}")
    if run.quick:
        console.print("[yellow]a quick run: its figures are no result[/]")
    return 1 if failed else 0


def main(given: Sequence[str] | None = None) -> int:
    """Run the benchmarks that were asked for; the exit code."""
    arguments = _arguments(given)
    names = arguments.only or list(BENCHMARKS)
    benches = [BENCHMARKS[name] for name in names]
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    if arguments.list:
        for bench in benches:
            console.print(f"[bold]{bench.name}[/]\n{bench.says}\n", highlight=False)
        return 0
    rounds = min(arguments.rounds, 3) if arguments.quick else arguments.rounds
    run = Run(rounds=rounds, quick=arguments.quick)
    # As `redis-registry serve` runs.
    return uvloop.run(_all(benches, run, console))


if __name__ == "__main__":
    sys.exit(main())

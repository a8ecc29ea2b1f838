"""Plays scenarios, random rows of faults, and broken versions of the package; judges what came of it.

Each run leaves its notebooks in a directory of its own; those of a run that broke a promise are kept and named.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from signal import SIGKILL

from redis_registry.errors import NotAvailableHere
from tests.chaos.mutants import CHAOS_MUTANTS, broken
from tests.chaos.report import write_report
from tests.chaos.result import Kind, Result, Task
from tests.chaos.scenarios import SCENARIOS, Scenario
from tests.chaos.tested import TESTED, Tested

ROOT = Path(__file__).resolve().parents[2]
MUTANT_SEEDS = 3
TOPOLOGIES = ("standalone", "sentinel", "cluster")


def tasks(asked: argparse.Namespace) -> list[Task]:
    """What the command line asks for, in order."""
    if asked.mutants:
        return [Task("mutant", mutant.name, asked.seed) for mutant in CHAOS_MUTANTS]
    if asked.random:
        seeds = range(asked.seed, asked.seed + asked.random)
        turns = itertools.cycle(asked.topology or TOPOLOGIES)
        return [
            Task("random", topology, seed, asked.secs)
            for seed, topology in zip(seeds, turns, strict=False)
        ]
    seeds = range(asked.seed, asked.seed + asked.seeds)
    played: list[tuple[Kind, str]] = [
        ("scenario", s.name) for s in SCENARIOS if _wanted(asked, s)
    ]
    tested: list[tuple[Kind, str]] = [
        ("tested", t.name)
        for t in TESTED
        if t.tests and not asked.played and _wanted(asked, t)
    ]
    return [Task(kind, name, seed) for kind, name in played + tested for seed in seeds]


def _wanted(asked: argparse.Namespace, one: Scenario | Tested) -> bool:
    if asked.scenario:
        return one.name in asked.scenario
    return not asked.priority or one.priority in asked.priority


def play(task: Task, binary: str | None) -> Result:
    """Do one task; a broken version that its first seed does not convict has two seeds more.

    Some faults show in a race only, which a starved machine may not run.
    """
    seeds = MUTANT_SEEDS if task.kind == "mutant" else 1
    for seed in range(task.seed, task.seed + seeds - 1):
        result = _play_once(replace(task, seed=seed), binary)
        if result.good:
            return result
    return _play_once(replace(task, seed=task.seed + seeds - 1), binary)


def _play_once(task: Task, binary: str | None) -> Result:
    """In a process of its own: servers and clocks of several don't get in each other's way."""
    begun = time.monotonic()
    home = Path(tempfile.mkdtemp(prefix=f"chaos-{task.name}-{task.seed}-"))
    place = broken(task.name, home) if task.kind == "mutant" else ROOT
    command = [
        sys.executable,
        "-m",
        "tests.chaos.play",
        *task.words(),
        "--home",
        str(home),
    ]
    command += ["--package", str(place)]
    if binary:
        command += ["--binary", binary]
    playing = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        result = Result.parsed(task, *playing.communicate(timeout=task.limit_secs))
    except subprocess.TimeoutExpired:
        result = Result(task, [f"it did not end within {task.limit_secs:g} s"])
    finally:  # it may have started processes that would go on, and slow down all others
        with suppress(ProcessLookupError):
            os.killpg(playing.pid, SIGKILL)
        playing.communicate()
    return result.ended(home, time.monotonic() - begun)


def run_all(found: Sequence[Task], jobs: int, binary: str | None) -> list[Result]:
    """Do all, some at once; a line for each as it ends. What needs the whole machine is alone."""
    results: dict[int, Result] = {}
    crowds = {tested.name for tested in TESTED if tested.crowd}
    with ThreadPoolExecutor(jobs) as pool, ThreadPoolExecutor(1) as alone:
        places = {
            pool.submit(play, task, binary): place
            for place, task in enumerate(found)
            if task.name not in crowds
        }
        others = list(places)

        def play_alone(task: Task) -> Result:
            wait(others)
            return play(task, binary)

        places |= {
            alone.submit(play_alone, task): place
            for place, task in enumerate(found)
            if task.name in crowds
        }
        try:
            for done in as_completed(places):
                result = results[places[done]] = done.result()
                sys.stdout.write(f"[{len(results)}/{len(found)}] {result.line()}\n")
                sys.stdout.flush()
        except KeyboardInterrupt:  # what is done counts; what has begun ends
            for one in (pool, alone):
                one.shutdown(cancel_futures=True)
            sys.stdout.write(
                f"interrupted: {len(found) - len(results)} were not played\n"
            )
    return [results[place] for place in sorted(results)]


def summary(results: Sequence[Result]) -> str:
    """What it all comes to."""
    failed = [result for result in results if not result.good]
    total = {
        name: sum(getattr(result, name) for result in results)
        for name in ("operations", "events", "observations", "flips")
    }
    said = ", ".join(f"{count:,} {name}" for name, count in total.items())
    lines = [
        f"{len(results) - len(failed)} of {len(results)} as they should be; judged: {said}"
    ]
    lines += [
        f"  {result.line()}\n    again: {result.task.again()}" for result in failed
    ]
    return "\n".join(lines)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Without options: every scenario of the fault matrix, once.",
    )  # fmt: skip
    names = sorted({s.name for s in SCENARIOS} | {t.name for t in TESTED})
    parser.add_argument(
        "--scenario",
        action="append",
        choices=names,
        metavar="NAME",
        help="only this one; may be repeated (--list names them)",
    )
    parser.add_argument(
        "--list",
        action="store_true",
        help="name all scenarios, with their row and what must hold",
    )
    parser.add_argument(
        "--priority",
        action="append",
        choices=("P0", "P1"),
        help="only rows of this priority",
    )
    parser.add_argument("--seed", type=int, default=1, help="the first seed (1)")
    parser.add_argument(
        "--seeds", type=int, default=1, help="how many seeds for each scenario (1)"
    )
    parser.add_argument(
        "--played",
        action="store_true",
        help="leave out the rows that plain tests prove",
    )
    parser.add_argument(
        "--random", type=int, metavar="N", help="N random rows of faults instead"
    )
    parser.add_argument(
        "--secs", type=float, default=30.0, help="length of a random row (30)"
    )
    parser.add_argument(
        "--topology",
        action="append",
        choices=TOPOLOGIES,
        help="of random rows; without it all in turn",
    )
    parser.add_argument(
        "--mutants",
        action="store_true",
        help="versions of the package that break a promise: each must be convicted",
    )
    parser.add_argument(
        "--binary", help="the server to run, instead of the embedded one"
    )
    parser.add_argument("--jobs", type=int, default=3, help="how many runs at once (3)")
    parser.add_argument(
        "--report",
        action="store_true",
        help="write the results to docs/explanation/faults.md",
    )
    parser.add_argument(
        "--json", metavar="FILE", help="write the results there too, a line each"
    )
    return parser.parse_args()


def list_all() -> None:
    for one in sorted([*SCENARIOS, *TESTED], key=lambda one: (one.row, one.name)):
        sys.stdout.write(f"{one.row:3} {one.priority} {one.name:40} {one.what}\n")


def main() -> int:
    asked = options()
    if asked.list:
        list_all()
        return 0
    found = tasks(asked)
    results = run_all(found, asked.jobs, asked.binary)
    sys.stdout.write(summary(results) + "\n")
    if asked.json:
        lines = [json.dumps(result.as_json()) + "\n" for result in results]
        Path(asked.json).write_text("".join(lines))
    if asked.report:
        write_report(ROOT / "docs/explanation/faults.md", results)
    return 0 if all(result.good for result in results) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except NotAvailableHere as error:
        sys.exit(str(error))

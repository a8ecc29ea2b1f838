"""Explore every interleaving of script calls in small worlds, with the real Lua.

Exits with 1 when an invariant does not hold (the shortest trace is printed, and made again on
the real servers that are installed), or when broken scripts go unnoticed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Generator
from contextlib import contextmanager

from redis_registry.embedded import EmbeddedServer, find_server
from tests.explore.mutants import BROKEN
from tests.explore.replay import Differs, replay, walk
from tests.explore.search import Found, Violation, explore, told
from tests.explore.world import World
from tests.explore.worlds import WORLDS
from tests.helpers import connect
from tests.mutants.catalogue.mutant import Edit

MUTANT_STATES = 30_000
WALKS, WALK_STEPS = 5, 200


def say(line: str) -> None:
    """One line, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def servers() -> list[tuple[str, str]]:
    """Name and binary of each real server that is installed."""
    redis = shutil.which("redis-server")
    return [("valkey", find_server()), *([("redis", redis)] if redis else [])]


@contextmanager
def running(binary: str) -> Generator[str]:
    """A server of our own; its URL."""
    with EmbeddedServer(binary=binary) as server:
        yield server.url


def tell_progress(found: Found) -> None:
    """One line for each depth."""
    rate = found.transitions / max(found.secs, 0.001)
    say(
        f"  depth {found.depth:3}  {found.states:9,} states  "
        f"{found.transitions:11,} transitions  {rate:6,.0f}/s"
    )


def tell_violation(violation: Violation, edits: tuple[Edit, ...] = ()) -> None:
    """What is wrong, how to get there, and whether a real server does so too."""
    say(f"VIOLATION {violation.what}")
    for line in told(violation.trace):
        say(f"  {line}")
    for name, binary in servers():
        with running(binary) as url:
            try:
                calls = replay(violation.trace, connect(url), edits)
            except Differs as error:
                say(f"NOT SO ON {name}: {error}")
            else:
                say(f"the same on {name}: {calls} calls")


def try_world(world: World, asked: argparse.Namespace) -> Found:
    """Explore one world, and compare some long ways through it with real servers."""
    say(f"{world.name}: {world.about}")
    found = explore(
        world,
        jobs=asked.jobs,
        most_states=asked.states,
        most_depth=asked.depth,
        progress=tell_progress,
    )
    if found.violation:
        tell_violation(found.violation)
        return found
    how = "all there are" if found.complete else f"all within {found.depth} steps"
    say(
        f"  {found.states:,} states ({how}), {found.transitions:,} transitions, "
        f"{found.secs:.0f} s, no violation"
    )
    for name, binary in servers():
        with running(binary) as url:
            calls = sum(
                replay(walk(world, WALK_STEPS, seed), connect(url))
                for seed in range(WALKS)
            )
        say(f"  {calls} calls at random: the same on {name}")
    return found


def try_worlds(asked: argparse.Namespace) -> int:
    """Explore the worlds that were asked for."""
    found = [try_world(WORLDS[name], asked) for name in asked.world or WORLDS]
    wrong = sum(one.violation is not None for one in found)
    say(
        f"{sum(one.states for one in found):,} states, "
        f"{sum(one.transitions for one in found):,} transitions, "
        f"{sum(one.secs for one in found):.0f} s, {wrong} violations"
    )
    return 1 if wrong else 0


def try_mutants(asked: argparse.Namespace) -> int:
    """Break the scripts in every known way; each must be noticed."""
    survived = 0
    for broken in BROKEN:
        found = explore(
            broken.world,
            edits=broken.edits,
            jobs=asked.jobs,
            most_states=min(asked.states, MUTANT_STATES),
        )
        if found.violation is None:
            survived += 1
            say(f"SURVIVED   {broken.what}")
            continue
        name = found.violation.what.partition(":")[0]
        steps = len(found.violation.trace)
        say(f"convicted  {broken.what} ({name}, {steps} steps)")
        if asked.traces:
            tell_violation(found.violation, broken.edits)
    say(f"{len(BROKEN) - survived} of {len(BROKEN)} mutants convicted")
    return 1 if survived else 0


def main() -> int:
    """Do what the command line asks for."""
    worlds = "\n".join(f"  {world.name:9} {world.about}" for world in WORLDS.values())
    parser = argparse.ArgumentParser(
        prog="python -m tests.explore",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"worlds:\n{worlds}\n\nSee docs/explanation/exploration.md.",
    )
    parser.add_argument(
        "--world",
        choices=WORLDS,
        action="append",
        help="only this one; may be repeated",
    )
    parser.add_argument(
        "--states",
        type=int,
        default=10_000_000,
        help="of each world: stop after the depth at which there are so many",
    )
    parser.add_argument(
        "--depth", type=int, default=1000, help="stop after so many steps"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=os.cpu_count() or 1,
        help="processes (default: all cores)",
    )
    parser.add_argument(
        "--mutants",
        action="store_true",
        help="break the scripts: each break must be noticed",
    )
    parser.add_argument(
        "--traces", action="store_true", help="with --mutants: show the traces"
    )
    asked = parser.parse_args()
    return try_mutants(asked) if asked.mutants else try_worlds(asked)


if __name__ == "__main__":
    sys.exit(main())

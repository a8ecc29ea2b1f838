"""Register, expire, forget, a million times, while faults come by chance: nothing may stay behind.

One Redis (AOF), behind a proxy; a worker that registers and falls silent, two controllers that
flip and forget, a reader with views, a watch, choices, reservations, reports and decisions. Three
members live through all of it, the second controller (which reserves too) is killed and replaced. Each cycle is an
instance that nobody was before; when the run ends all of them are forgotten.

What each process and Redis hold is measured when all is at rest: after a warm-up, in which streams
fill up to their bound, caches and pools to their size and each fault has come some times; and at the end.
Exits with 1 when a figure is not back within 2 % (counts of up to 50: equal), when an instance that
lives was declared dead, or when a loop has died.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from contextlib import ExitStack

from redis_registry.testing import Proxy, Standalone
from tests.helpers import wait_for
from tests.load.programs import Program
from tests.soak.faults import Faults
from tests.soak.measuring import (
    BOUNDED,
    Figures,
    amiss,
    held_by_redis,
    median,
    rss_kb,
)
from tests.soak.settings import ALLOCATOR, MOST_PRESENT, STAYING

BASE = "rr:{default/0}:"
PASSING = {
    "tally",
    "guard",
    "out",
    "served",
    "overrides",
    "aliases",
    "holders",
    "reports",
}
"""Keys that go when nothing happens."""

LOOKS = 5
ROUNDS = 3
"""How often each fault comes in the warm-up: who fell behind is at its largest then."""

PROGRESS_SECS = 10.0
PATIENCE_SECS = 120.0

DURABLE = {
    # A process that is killed loses nothing then that it has answered: what is written is in the
    # hands of the kernel before the answer is.
    "appendonly": "yes",
    "appendfsync": "no",
    "auto-aof-rewrite-min-size": "16mb",
}


def say(line: str) -> None:
    """One line, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _line(name: str, before: float, after: float) -> str:
    change = f"{100 * (after - before) / before:+.2f} %" if before else ""
    bound = f"at most {BOUNDED[name]:,}" if name in BOUNDED else change
    return f"  {name:42} {before:14,.0f} {after:14,.0f}  {bound}"


class Soak:
    """One run.

    Args:
        asked: The command line.
        server: Redis.
        proxy: Between it and all others.
        lasting: The members that live through all of it, by name.
        faults: What happens to them.
    """

    def __init__(
        self,
        asked: argparse.Namespace,
        server: Standalone,
        lasting: dict[str, Program],
        faults: Faults,
    ) -> None:
        self.asked = asked
        self.server = server
        self.lasting = lasting
        self.faults = faults
        self.began = time.monotonic()
        self._told = 0.0

    def run(self) -> int:
        """All of it; how many things are amiss."""
        self._all("go on")
        self._warm_up()
        self._peak()
        start = self._measure("start")
        self._all("go on")
        self._cycle(self.asked.cycles, self.asked.minutes)
        self._peak()
        end = self._measure("end")
        wrong = self._compare(start, end)
        return wrong + self._truth()

    # --- what is done -------------------------------------------------------------------------

    def _warm_up(self) -> None:
        say(f"warm-up: {self.asked.warm_up:,} cycles, each fault {ROUNDS} times")
        self.lasting["worker"].ask(f"more {self.asked.warm_up}")
        for name in [*self.faults.kinds] * ROUNDS:
            if not self.asked.calm:
                self.faults.one(name)
                self.faults.pause()
            self._progress()
        self._await_cycles()

    def _peak(self) -> None:
        """As many as may be are listed at once, some times, and go: each look comes after that."""
        for _ in range(0 if self.asked.calm else ROUNDS):
            self.lasting["worker"].ask(f"more {2 * MOST_PRESENT}")
            self.faults.flood(lambda: self._passing() >= MOST_PRESENT)
            self._progress()
        self._await_cycles()

    def _cycle(self, cycles: int, minutes: float) -> None:
        """So many cycles, and then the rest of the minutes, if any are left, in steps."""
        until = time.monotonic() + 60 * minutes
        self.lasting["worker"].ask(f"more {cycles}")
        while time.monotonic() < until or self._left() > 0:
            if self._left() <= 0:
                self.lasting["worker"].ask(f"more {cycles // 100}")
            if not self.asked.calm:
                self.faults.one()
            self.faults.pause()
            self._progress()
        self._await_cycles()

    def _left(self) -> int:
        told = self.lasting["worker"].ask("figures")
        return int(told["target"] - told.get("registered", 0))

    def _await_cycles(self) -> None:
        """All are registered, and forgotten."""

        def over() -> bool:
            self._progress()
            told = self.lasting["worker"].ask("figures")
            done = told["target"] == told.get("registered", 0)
            return done and self._passing() == 0

        wait_for(over, "all cycles are over", within_secs=3600)

    def _passing(self) -> int:
        """How many instances are listed beside those that stay."""
        down, living = (
            int(str(self.server.call("ZCARD", BASE + name)))
            for name in ("down", "deadlines")
        )
        return down + living - STAYING

    def _all(self, words: str) -> None:
        for one in [*self.lasting.values(), self.faults.visitor]:
            one.ask(words)

    # --- what is told -------------------------------------------------------------------------

    def _progress(self) -> None:
        now = time.monotonic()
        if now < self._told + PROGRESS_SECS:
            return
        self._told = now
        figures = self.lasting["worker"].ask("figures")
        passing, done = self._passing(), int(figures.get("registered", 0))
        memory = " ".join(
            f"{name} {rss_kb(one.pid) // 1024}" for name, one in self.lasting.items()
        )
        say(
            f"{now - self.began:6.0f} s  {done - passing:9,} cycles, {passing:6,} under way; "
            f"{self.faults.done.total():4} faults; MB: {memory}"
        )

    def _measure(self, when: str) -> dict[str, Figures]:
        """All at rest; each figure is the median of some looks."""
        self._all("rest")
        self.lasting["worker"].ask("fill")
        keys = self._quiet_keys()
        # Which scripts it has is luck, since the last flush; each look calls the same ones.
        self.server.call("SCRIPT", "FLUSH", "SYNC")
        looks: dict[str, list[Figures]] = {
            name: [] for name in [*self.lasting, "Redis"]
        }
        for _ in range(LOOKS):
            for name, one in self.lasting.items():
                looks[name].append(one.ask("measure"))
            looks["Redis"].append(held_by_redis(self.server))
            time.sleep(0.5)  # another moment
        say(f"measured at the {when}: {len(keys)} keys")
        return {name: median(some) for name, some in looks.items()}

    def _quiet_keys(self) -> list[str]:
        """Wait until what ends by itself has ended; the keys that are left."""
        instances = "rr:{default/0}:i:"

        def keys() -> list[str]:
            found = self.server.call("KEYS", "*")
            assert isinstance(found, list)
            return sorted(map(str, found))

        def quiet() -> bool:
            names = {
                k.removeprefix("rr:{default/0}:") for k in keys() if instances not in k
            }
            return not names & PASSING

        wait_for(quiet, "what ends by itself has ended", within_secs=PATIENCE_SECS)
        return keys()

    def _compare(self, start: dict[str, Figures], end: dict[str, Figures]) -> int:
        wrong = 0
        for who, before in start.items():
            after = end[who]
            bad = amiss(before, after)
            wrong += len(bad)
            say(f"\n{who}")
            for name in sorted({*before, *after}):
                line = _line(name, before.get(name, 0.0), after.get(name, 0.0))
                say(line + ("  AMISS" if name in bad else ""))
        return wrong

    def _truth(self) -> int:
        """Nobody living was declared dead, and everybody lives."""
        figures = {name: one.ask("figures") for name, one in self.lasting.items()}
        for name, told in figures.items():
            say(f"\n{name}: " + ", ".join(f"{k} {v:,.0f}" for k, v in told.items()))
        say("faults: " + ", ".join(f"{k} {v}" for k, v in self.faults.done.items()))
        reader = figures["reader"]
        wrong = int(reader.get("false deaths", 0))
        wrong += STAYING - int(reader["shown"]) + (reader["staleness"] > 3)
        secs = time.monotonic() - self.began
        cycles = figures["worker"]["registered"]
        say(
            f"{cycles:,.0f} cycles in {secs:,.0f} s, {self.faults.done.total()} faults, seed {self.asked.seed}"
        )
        return wrong


def soak(asked: argparse.Namespace) -> int:
    """Build it all and run it."""
    with ExitStack() as stack:
        server = stack.enter_context(Standalone(options=DURABLE))
        proxy = stack.enter_context(Proxy(server.port))

        def member(role: str) -> Program:
            return Program(
                *("member", role, proxy.url, asked.seed),
                package="tests.soak",
                environment=ALLOCATOR,
            )

        lasting = {name: member(name) for name in ("worker", "controller", "reader")}
        for one in lasting.values():
            stack.callback(one.kill)
        for one in lasting.values():
            assert one.hear() == "ready"
        chance = random.Random(asked.seed)
        faults = Faults(server, proxy, lasting, lambda: member("visitor"), chance)
        stack.enter_context(faults)
        return Soak(asked, server, lasting, faults).run()


def main() -> int:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cycles", type=int, default=1_000_000)
    parser.add_argument(
        "--warm-up", type=int, default=150_000, help="cycles before the first look"
    )
    parser.add_argument(
        "--minutes", type=float, default=30, help="go on for as long at least"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--calm", action="store_true", help="no faults")
    wrong = soak(parser.parse_args())
    say(f"{wrong} amiss" if wrong else "all of it is back where it was")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

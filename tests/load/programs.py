"""Starting, hearing and ending the helper programs of the load runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis_registry.testing import Host

ROOT = Path(__file__).resolve().parents[2]

SHARE = float(os.environ.get("LOAD_SHARE", "1"))
"""For trying: the share of workers, repetitions and minutes to run with."""


def part(number: int, least: int = 1) -> int:
    """So many of a full run's number."""
    return max(round(number * SHARE), least)


class Program:
    """One module of tests, run as a process; it ends when its input does.

    Args:
        module: Its name, in the package.
        words: Its command line.
        package: Where it is.
        on: The host that it runs on; ``None``: this machine itself.
        environment: Set for it, beside what is set here.
    """

    def __init__(
        self,
        module: str,
        *words: object,
        package: str = "tests.load",
        on: Host | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        command = [sys.executable, "-m", f"{package}.{module}", *map(str, words)]
        self.process = subprocess.Popen(
            on.command(*command) if on else command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | dict(environment or {}),
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def hear(self) -> Any:
        """The next thing it says: a line of JSON."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"{self.process.args} ended with {self.process.wait()}"
        return json.loads(line)

    def ask(self, word: str) -> Any:
        """Tell it something, and hear its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        return self.hear()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it with kill -9."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()


@contextmanager
def programs(
    made: Sequence[Program], word: str = "ready"
) -> Generator[Sequence[Program]]:
    """Wait until each has said that it is ready; kill those that still run at the end."""
    try:
        for program in made:
            assert program.hear() == word
        yield made
    finally:
        for program in made:
            program.kill()


def say(what: object) -> None:
    """Said by a program to who started it."""
    print(json.dumps(what), flush=True)  # noqa: T201  its output is for the parent

"""Starting and ending :mod:`tests.node` processes, some of them with a wrong clock."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from redis_registry.testing import wrong_clock

ROOT = Path(__file__).resolve().parents[1]


class Node:
    """One node process.

    Args:
        url: Its Redis.
        model: Model of its instances.
        first: Their first port.
        count: How many.
        skew_secs: Its clock's error.
        options: More of its command line.
    """

    def __init__(
        self,
        url: str,
        model: str,
        first: int,
        count: int,
        *options: str,
        skew_secs: float = 0,
    ) -> None:
        command = [
            sys.executable,
            "-m",
            "tests.node",
            url,
            model,
            str(first),
            str(count),
        ]
        self.process = subprocess.Popen(
            [*command, *options],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | (wrong_clock(skew_secs) if skew_secs else {}),
        )

    def ready(self) -> None:
        """Wait until its instances are registered."""
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def kill(self) -> None:
        """End it with kill -9."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


@contextmanager
def nodes(made: list[Node]) -> Generator[list[Node]]:
    """Wait until all are ready; end those that still run."""
    try:
        for node in made:
            node.ready()
        yield made
    finally:
        for node in made:
            node.kill()

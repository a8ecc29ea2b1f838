"""Starting and ending :mod:`tests.node` processes, some of them with a wrong clock."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FAKETIME = shutil.which("faketime")


class Node:
    """One node process.

    Args:
        url: Its Redis.
        model: Model of its instances.
        first: Their first port.
        count: How many.
        skew: Its clock's error, as faketime writes it (``+1h``).
        options: More of its command line.
    """

    def __init__(
        self,
        url: str,
        model: str,
        first: int,
        count: int,
        *options: str,
        skew: str | None = None,
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
        if skew is not None:
            if FAKETIME is None:
                pytest.skip("faketime is not installed: apt-get install it")
            command = [FAKETIME, "-f", skew, *command]
        self.process = subprocess.Popen(
            [*command, *options],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"FAKETIME_DONT_FAKE_MONOTONIC": "1"},
        )

    def ready(self) -> None:
        """Wait until its instances are registered."""
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def kill(self) -> None:
        """End it with kill -9, its interpreter included when a wrapper runs it."""
        if self.process.poll() is None:
            task = Path(f"/proc/{self.process.pid}/task/{self.process.pid}")
            for pid in (task / "children").read_text().split():
                os.kill(int(pid), signal.SIGKILL)
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

"""Two releases: one as a wheel, unpacked; and this tree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
TREE = HERE.parents[1]
WHEEL = next(HERE.glob("*.whl"))


class Member:
    """One process of :mod:`tests.upgrade.member`, of a release.

    Args:
        home: Where the package of that release is.
        url: Its Redis.
        name: What it calls itself in its instances' metadata.
        first: The first port of its instances.
        count: How many it has.
    """

    def __init__(self, home: Path, url: str, name: str, first: int, count: int) -> None:
        words = [home, url, name, first, count]
        self.name = name
        self.ports = list(range(first, first + count))
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(HERE / "member.py"), *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Before what is installed: that leads to this tree.
            env=os.environ | {"PYTHONPATH": str(home)},
        )
        self.holder = ""

    def ready(self) -> None:
        """Wait until its instances are ready."""
        self.holder = self._hear()["ready"]

    def ask(self, *words: str) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()
        return self._hear()

    def call(self, method: str, *given: object) -> Any:
        """Call a method of its registry; instances are given as dicts."""
        return self.ask("call", method, json.dumps(given))

    def _hear(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"{self.name} ended with {self.process.wait()}"
        return json.loads(line)

    def leave(self) -> None:
        """It drains, says goodbye, and ends."""
        assert self.ask("leave") == "gone"
        assert self.process.wait(10) == 0
        self.kill()

    def kill(self) -> None:
        """End it with kill -9."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()


Enlist = Callable[..., Member]


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Where each release's package is."""
    old = tmp_path_factory.mktemp("old")
    with zipfile.ZipFile(WHEEL) as wheel:
        wheel.extractall(old)
    return {"old": old, "new": TREE}


@pytest.fixture
def enlist(homes: dict[str, Path]) -> Iterator[Enlist]:
    """Starts members: ``enlist("old", url, first=1, count=3)``; they end with the test."""
    made: list[Member] = []

    def one(release: str, url: str, *, first: int = 1, count: int = 0) -> Member:
        name = f"{release}-{len(made)}"
        made.append(Member(homes[release], url, name, first, count))
        return made[-1]

    yield one
    for member in made:
        member.kill()

"""A server understands the configurations that the guide recommends."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

from redis_registry.embedded import free_port
from redis_registry.testing import Standalone

GUIDE = Path(__file__).resolve().parents[2] / "docs/how-to/topologies.md"


class Configured(Standalone):
    """One server, or sentinel, with a file of configuration."""

    kind = ""
    lines = ""

    def _command(self, binary: str, home: Path) -> list[str]:
        file = home / "guide.conf"
        file.write_text(self.lines)
        program, *options = super()._command(binary, home)
        if self.kind == "sentinel":
            port = ["--port", str(self.port), "--dir", str(home)]
            return [program, str(file), *port, "--sentinel"]
        return [program, str(file), *options]


def _recommended() -> list[tuple[str, str]]:
    """Each file that the guide shows: of what, and its lines."""
    found: list[tuple[str, str]] = []
    for block in re.findall(r"```\n(.*?)```", GUIDE.read_text(), re.DOTALL):
        heads = list(re.finditer(r"^# (redis|sentinel)\.conf", block, re.MULTILINE))
        ends = [*(head.start() for head in heads), len(block)]
        for head, (start, end) in zip(heads, pairwise(ends), strict=True):
            found.append((head[1], block[start:end]))
    return found


@pytest.mark.parametrize(("kind", "lines"), _recommended())
def test_the_recommended_configuration_is_understood(kind: str, lines: str) -> None:
    # Else it is the port and 10,000, where this machine's own connections may be.
    server = Configured(options={"cluster-port": str(free_port())})
    server.kind, server.lines = kind, lines.replace("10.0.0.1", "127.0.0.1")
    if kind == "sentinel" and "sentinel monitor" not in lines:
        server.lines = f"sentinel monitor mymaster 127.0.0.1 6379 2\n{lines}"
    with server:
        assert server.call("PING") == "PONG"


def test_the_guide_shows_such_files() -> None:
    kinds = [kind for kind, _ in _recommended()]
    assert kinds == ["sentinel", "redis", "redis", "sentinel", "redis"]

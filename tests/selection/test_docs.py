"""The how-to's blocks run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

from redis_registry import ModelInstance
from redis_registry.selection import POLICIES
from tests.selection.fleets import fleet

PAGE = Path(__file__).resolve().parents[2] / "docs/how-to/choose-a-policy.md"


def test_the_blocks_of_the_how_to_run() -> None:
    called: list[ModelInstance] = []
    names = {
        "instances": fleet(3),
        "call": called.append,
        "redis_now": lambda: 1000.0,
    }
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(block, names)
    assert len(called) == 1


def test_its_table_has_every_policy() -> None:
    assert sorted(re.findall(r"^\| `(\w+)`", PAGE.read_text(), re.MULTILINE)) == sorted(
        POLICIES
    )

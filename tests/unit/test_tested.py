"""The table of the rows that plain tests prove names tests that there are."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.tested import TESTED

ROOT = Path(__file__).resolve().parents[2]


def test_every_test_that_is_named_exists() -> None:
    for row in TESTED:
        for name in row.tests:
            path, _, test = name.partition("::")
            text = (ROOT / path).read_text()
            assert not test or f"def {test}(" in text, name


def test_each_name_and_each_row_is_there_once() -> None:
    assert len({row.name for row in TESTED}) == len(TESTED)
    assert len({row.row for row in TESTED}) == len(TESTED)

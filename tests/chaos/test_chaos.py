"""The machine itself: its parts that can be judged without a run. Its runs are `make test-faults`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.faults import FAULTS
from tests.chaos.mutants import CHAOS_MUTANTS, broken
from tests.chaos.notebook import Notebook, read_notes
from tests.chaos.scenarios import SCENARIOS
from tests.chaos.spans import common, length_within, merged
from tests.chaos.tested import TESTED

UNPLAYED = {39}
"""Rows of the matrix that have a command of their own: `make soak`."""


def test_a_note_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    book = Notebook(tmp_path / "a.notes", "a")
    book.write("one", text="ü\n")
    book.close()
    with book.path.open("ab") as file:
        file.write(b'{"at": 1, "who"')
    assert [(note["what"], note["text"]) for note in read_notes(book.path)] == [
        ("one", "ü\n")
    ]


def test_spans() -> None:
    assert merged([(3, 4), (0, 1), (1, 2)]) == [(0, 2), (3, 4)]
    assert length_within([(0, 2), (3, 10)], 1, 5) == 3
    assert common([(0, 4), (6, 9)], [(1, 2), (3, 7)]) == [(1, 2), (3, 4), (6, 7)]


def test_each_scenario_has_a_name_of_its_own() -> None:
    names = Counter([s.name for s in SCENARIOS] + [t.name for t in TESTED])
    assert [name for name, count in names.items() if count > 1] == []


def test_every_row_of_the_matrix_is_there() -> None:
    rows = {s.row for s in SCENARIOS} | {t.row for t in TESTED}
    assert set(range(1, 47)) - rows == UNPLAYED


@pytest.mark.parametrize("mutant", CHAOS_MUTANTS, ids=lambda mutant: mutant.name)
def test_a_broken_version_can_be_made(mutant: tuple[str, ...], tmp_path: Path) -> None:
    """Its edits fit the code; and its scenario exists."""
    made = broken(mutant[0], tmp_path)
    assert (made / "redis_registry/__init__.py").exists()
    assert mutant[1] in {scenario.name for scenario in SCENARIOS}


@pytest.mark.parametrize("topology", ["standalone", "sentinel", "cluster"])
def test_redis_itself_can_be_struck_on_each_topology(topology: str) -> None:
    struck = {f.name for f in FAULTS if f.of_redis and topology in f.topologies}
    assert len(struck) >= 4

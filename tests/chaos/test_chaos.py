"""The machine itself: its parts that can be judged without a run. Its runs are `make test-faults`."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.auditor import Auditor, _Place
from tests.chaos.faults import FAULTS
from tests.chaos.judge import CHECKS, judge
from tests.chaos.judge.history import History
from tests.chaos.mutants import CHAOS_MUTANTS, ChaosMutant, broken
from tests.chaos.notebook import Notebook, read_notes
from tests.chaos.result import Result, Task
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


def test_a_broken_version_is_convicted_by_its_own_check_only() -> None:
    task = Task("mutant", "flip-without-fence", 1)

    assert not Result(task, ["it broke down: ImportError"]).good
    assert not Result(task, ["nothing_dies_quietly: not within 60 s"]).good
    assert Result(task, ["older_terms_are_refused: flip of controller1.1"]).good


@pytest.mark.parametrize("mutant", CHAOS_MUTANTS, ids=lambda mutant: mutant.name)
def test_the_check_that_must_convict_a_broken_version_exists(
    mutant: ChaosMutant,
) -> None:
    assert mutant.by in CHECKS


def _opened(home: Path) -> Notebook:
    stage = Notebook(home / "stage.notes", "stage")
    settings = {"heartbeat_timeout_secs": 1.5, "socket_timeout_secs": 0.7}
    stage.write("opens", settings=settings, topology="standalone", partitions=1)
    return stage


def _entry(
    stage: Notebook,
    epoch: str,
    rev: int,
    what: str = "recovery|restarted",
    about: str = "*",
) -> None:
    stage.write(
        "entry", partition=0, epoch=epoch, rev=rev, after=time.monotonic(), port=1,
        head=f"{epoch}|{what}|somebody|1700000000000000", about=about, other=False,
    )  # fmt: skip


def _convicted(home: Path) -> set[str]:
    return {violation.check for violation in judge(home).violations}


def test_a_run_in_which_nothing_was_seen_is_convicted(tmp_path: Path) -> None:
    _opened(tmp_path).close()

    assert _convicted(tmp_path) == {"there_is_something_to_judge"}


def test_an_epoch_that_goes_on_from_nowhere_is_convicted(tmp_path: Path) -> None:
    stage = _opened(tmp_path)
    for epoch, rev in [("one", 1), ("one", 2), ("two", 3), ("three", 1000)]:
        _entry(stage, epoch, rev)
    stage.close()

    assert _convicted(tmp_path) >= {"epochs_go_on"}
    assert list(CHECKS["epochs_go_on"](History(tmp_path))) == [
        "partition 0: epoch three begins with 1000; no epoch has the revision before"
    ]


@pytest.mark.parametrize(("epoch", "convicted"), [("one", True), ("two", False)])
def test_a_write_of_an_older_epochs_term_is_convicted(
    tmp_path: Path, epoch: str, convicted: bool
) -> None:
    stage = _opened(tmp_path)
    _entry(stage, "one", 1)
    _entry(stage, "two", 2)
    stage.close()
    controller = Notebook(tmp_path / "controller.notes", "controller")
    controller.write("born", role="controller")
    controller.write(
        "call", script="mend", partition=0, begun=time.monotonic(), deadline_secs=3.0,
        holder="c", token=1, epoch=epoch, answer="",
    )  # fmt: skip
    controller.close()

    assert ("older_epochs_are_refused" in _convicted(tmp_path)) == convicted


@pytest.mark.parametrize(
    ("aheads", "convicted"),
    [([], True), ([900.0], True), ([900.0, 900.02], False), ([900.02, 900.0], True)],
    ids=["steady", "noted-once", "redis-clock-faster", "redis-clock-slower"],
)
def test_a_flip_before_its_time_is_convicted_unless_the_clocks_of_the_machine_went_apart(
    tmp_path: Path, aheads: list[float], convicted: bool
) -> None:
    stage = _opened(tmp_path)
    flipped = "a:h:1|11r|1500:life|x|x|1700000000000000|1700000000000000|2|||||\udc92\x01\udc80"
    for ahead in aheads:
        stage.write("clock", ahead=ahead)
    worker = Notebook(tmp_path / "worker.notes", "worker")
    worker.write("born", role="worker")
    # 10 ms less than a timeout before the flip.
    worker.write(
        "call", script="report", partition=0, begun=time.monotonic() - 1.49,
        deadline_secs=3.0, beats=["a:h:1:1500:life"], answer="",
    )  # fmt: skip
    worker.close()
    _entry(stage, "one", 1)
    _entry(stage, "one", 2, "unhealthy|expired", flipped)
    stage.close()

    assert ("nobody_who_has_beaten_is_flipped" in _convicted(tmp_path)) == convicted


def test_what_a_server_took_before_it_was_killed_or_paused_is_not_dated_after_that(
    tmp_path: Path,
) -> None:
    auditor = Auditor(Notebook(tmp_path / "stage.notes", "stage"), lambda: (), 1)
    former, promoted = _Place(1, 0), _Place(2, 0)
    auditor._complete = 10.0  # rounds went on without it
    auditor._read_at = {former: 4.0}
    assert auditor._after(former) == auditor._after(promoted) == 4.0

    auditor._read_at[promoted] = 9.0
    assert auditor._after(promoted) == 9.0
    assert auditor._after(former) == 4.0  # it comes back, with what nobody read

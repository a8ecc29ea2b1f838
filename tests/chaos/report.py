"""Writes what came of a session into a page: each part of it between two marks, the rest is left as it is."""

from __future__ import annotations

import platform
import re
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from tests.chaos.result import Result
from tests.chaos.scenarios import SCENARIOS
from tests.chaos.tested import TESTED

__all__ = ["write_report"]


def write_report(page: Path, results: Sequence[Result]) -> None:
    """Replace those parts of the page that the results are about."""
    text = page.read_text()
    parts = {
        "scenarios": _scenarios(
            [r for r in results if r.task.kind in {"scenario", "tested"}]
        ),
        "random": _random([r for r in results if r.task.kind == "random"]),
        "mutants": _mutants([r for r in results if r.task.kind == "mutant"]),
    }
    for name, lines in parts.items():
        if lines:
            marks = f"<!-- {name} -->", f"<!-- end of {name} -->"
            new = "\n".join([marks[0], _when(), "", *lines, marks[1]])
            found = f"{re.escape(marks[0])}.*?{re.escape(marks[1])}"
            text = re.sub(found, lambda _, new=new: new, text, flags=re.DOTALL)
    page.write_text(text)


def _when() -> str:
    now = datetime.now(UTC)
    return f"Written by the run of {now:%Y-%m-%d %H:%M} UTC, CPython {platform.python_version()}."


def _scenarios(results: Sequence[Result]) -> list[str]:
    by_name: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        by_name[result.task.name].append(result)
    if not by_name:
        return []
    rows = [(s.row, s.priority, s.name, s.what, s.topology) for s in SCENARIOS]
    rows += [(t.row, t.priority, t.name, t.what, "tests") for t in TESTED]
    lines = [
        "| row | | scenario | what befalls them, and must hold | on | seeds | calls | events |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row, priority, name, what, on in sorted(rows):
        if found := by_name.get(name):
            good = sum(result.good for result in found)
            calls = sum(result.operations for result in found)
            events = sum(result.events for result in found)
            lines.append(
                f"| {row} | {priority} | `{name}` | {what} | {on} | {good} of {len(found)} | {calls or ''} | {events or ''} |"
            )
    unbuilt = [f"- row {t.row} (`{t.name}`): {t.what}" for t in TESTED if not t.tests]
    return (
        [*lines, "", "Not built yet, so nothing to test:", "", *unbuilt]
        if unbuilt
        else lines
    )


def _random(results: Sequence[Result]) -> list[str]:
    by_topology: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        by_topology[result.task.name].append(result)
    if not by_topology:
        return []
    lines = [
        "| on | rows of faults | without a violation | calls judged | events | observations | flips | epochs | seeds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for topology, found in by_topology.items():
        total = [
            sum(getattr(r, name) for r in found)
            for name in ("operations", "events", "observations", "flips", "epochs")
        ]
        figures = " | ".join(f"{figure:,}" for figure in total)
        seeds = _listed([r.task.seed for r in found])
        good = sum(r.good for r in found)
        lines.append(f"| {topology} | {len(found)} | {good} | {figures} | {seeds} |")
    return lines


def _mutants(results: Sequence[Result]) -> list[str]:
    if not results:
        return []
    lines = ["| broken version | convicted by |", "|---|---|"]
    for result in results:
        checks = sorted({violation.split(":", 1)[0] for violation in result.violations})
        lines.append(
            f"| {result.task.name} | {', '.join(f'`{c}`' for c in checks) or 'nobody'} |"
        )
    return lines


def _listed(seeds: list[int]) -> str:
    """All of them; of many in even steps the first two and the last."""
    steps = {after - before for before, after in pairwise(seeds)}
    if len(seeds) > 5 and len(steps) == 1:
        return f"{seeds[0]}, {seeds[1]}, … {seeds[-1]}"
    return ", ".join(map(str, seeds))

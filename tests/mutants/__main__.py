"""Break the package line by line; every break must turn its test red.

Works on copies of the tree, two at a time. Exits with 1 when a mutant survives, or when an edit
no longer fits the code (then the catalogue must follow).
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mutants.catalogue import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[2]
LIMIT_SECS = 150


def convict(mutant: Mutant) -> str:
    """Run its test on a broken copy; ``convicted``, or what went wrong."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as place:
        copy = Path(place)
        for part in ("redis_registry", "tests"):
            shutil.copytree(ROOT / part, copy / part)
        shutil.copy(ROOT / "pyproject.toml", copy)
        for edit in mutant.edits:
            path = copy / edit.path
            text = path.read_text()
            if edit.old not in text:
                return f"STALE: {edit.path} has no {edit.old!r}"
            path.write_text(text.replace(edit.old, edit.new))
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x",
            "--tb=no",
            "-p",
            "no:randomly",
        ]
        command += [
            "-p",
            "no:hypothesispytest",
            "-p",
            "no:cacheprovider",
            mutant.test,
            "-k",
            "not redis7",
        ]
        try:
            done = subprocess.run(
                command, cwd=copy, capture_output=True, timeout=LIMIT_SECS, check=False
            )
        except subprocess.TimeoutExpired:
            return "convicted (it never ended)"
        return {1: "convicted", 0: "SURVIVED"}.get(
            done.returncode,
            f"BROKEN RUN ({done.returncode}): {done.stdout.decode()[-400:]}{done.stderr.decode()[-400:]}",
        )


def chosen() -> list[Mutant]:
    """The mutants that the command line asks for; ends with a usage error when there are none."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Without options: all of tests/mutants/catalogue.",
    )
    parser.add_argument(
        "--promise",
        metavar="R7",
        action="append",
        help="only those of this promise (docs/explanation/promises.md); may be repeated",
    )
    parser.add_argument(
        "--file",
        metavar="PATH",
        action="append",
        help="only those that break this file, or whose test is in it; may be repeated",
    )
    asked = parser.parse_args()
    found = [
        mutant
        for mutant in MUTANTS
        if (not asked.promise or mutant.promise in asked.promise)
        and (not asked.file or not mutant.files.isdisjoint(asked.file))
    ]
    if not found:
        parser.error("no mutant is both of these promises and of these files")
    return found


def main() -> int:
    """Try them, and say what became of each."""
    mutants = chosen()
    with ThreadPoolExecutor(2) as pool:
        verdicts = list(pool.map(convict, mutants))
    failed = 0
    for mutant, verdict in zip(mutants, verdicts, strict=True):
        failed += not verdict.startswith("convicted")
        sys.stdout.write(f"{mutant.promise}  {verdict:10}  {mutant.what}\n")
    sys.stdout.write(f"{len(mutants) - failed} of {len(mutants)} mutants convicted\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

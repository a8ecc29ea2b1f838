"""The small real model under agents: a client that never fails while workers come and go."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest


@pytest.mark.timeout(180)
def test_a_thousand_requests_while_workers_are_killed_and_restarted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = [sys.executable, "-m", "examples.filetype.fleet", "--requests", "1000"]
    done = subprocess.run(
        [*command, "--per-sec", "50"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (figures,) = re.findall(
        r"1000 requests in (\d+) s, (\d+) workers ended .*: 0 failed", done.stdout
    )
    assert int(figures[1]) >= 5, "there was trouble"
    with capsys.disabled():
        print(f"\n  {done.stdout.strip()}")  # noqa: T201  the figures

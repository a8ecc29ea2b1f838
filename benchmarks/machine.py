"""What the figures were taken on."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.harness import Missing
from benchmarks.tools import ROOT, redis_server
from redis_registry.embedded import find_server

__all__ = ["commit", "machine"]


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1] for line in lines if line.startswith("model name")]
    return models[0].strip() if models else platform.processor() or "unknown"


def _version(binary: str) -> str:
    """What a server says of itself, without where it lies."""
    said = subprocess.run(
        [binary, "--version"], capture_output=True, text=True, check=True
    )
    words = [word for word in said.stdout.split() if word.startswith("v=")]
    return f"{Path(binary).name} {words[0].removeprefix('v=') if words else '?'}"


def _debian() -> str:
    try:
        return _version(redis_server())
    except Missing:
        return "not here"


def commit() -> str:
    """The short commit, with a mark when files differ from it."""
    said = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude", "*"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    return said.stdout.strip() or "unknown"


def machine() -> dict[str, Any]:
    """CPU, kernel, interpreter and servers."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "embedded server": _version(find_server()),
        "debian server": _debian(),
        "load at start": round(os.getloadavg()[0], 2),
    }

"""A controller replica as a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from redis_registry.embedded import free_port
from tests.helpers import wait_for


class Replica:
    """One controller process."""

    def __init__(self, *options: str, log: Path, port: int | None = None) -> None:
        self.port = port or free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        self.log = log
        command = [sys.executable, "-m", "redis_registry", "serve", *options]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port), "--log-format", "json"],
                stderr=output,
                stdout=subprocess.DEVNULL,
            )

    def health(self) -> int:
        try:
            return httpx.get(f"{self.base}/api/health", timeout=5).status_code
        except httpx.HTTPError:
            return 0

    def up(self) -> None:
        wait_for(lambda: self.health() == 200, "the replica is up", within_secs=20)

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(15)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

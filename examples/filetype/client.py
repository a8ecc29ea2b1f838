"""Asks a model that the registry knows, and keeps getting answers while workers come and go.

Run: ``python -m examples.filetype.client redis://localhost:6379/0 README.md``
"""

from __future__ import annotations

import http.client
import json
import sys
import time
from pathlib import Path
from typing import Any

from redis_registry import Identity, RegistryUnavailable, SyncModelRegistry
from redis_registry.selection import pick

MODEL = "filetype@classifier"
ANSWER_SECS = 2.0
PAUSE_SECS = 0.05


class NoAnswer(Exception):
    """Nobody answered in time."""


class Client:
    """Asks one of those who may take work; when that one fails, another.

    Args:
        registry: Who tells which there are.
        patience_secs: How long a caller is kept waiting for an answer at most.
    """

    def __init__(
        self, registry: SyncModelRegistry, *, patience_secs: float = 10.0
    ) -> None:
        self.registry = registry
        self.patience_secs = patience_secs
        self.again = 0
        """Attempts that failed and were made good by another worker."""

    def ask(self, data: bytes) -> dict[str, Any]:
        """The answer of any worker. It may be asked twice, so ask only what may be repeated.

        Raises:
            NoAnswer: There was none within the patience.
        """
        until = time.monotonic() + self.patience_secs
        failed: dict[Identity, str] = {}
        while time.monotonic() < until:
            try:
                known = self.registry.get_all_instances(MODEL, healthy_only=True)
            except RegistryUnavailable as error:
                raise NoAnswer(str(error)) from error
            worker = pick(item for item in known if item.identity not in failed)
            if worker is None:  # all have failed: perhaps one of them is back
                failed.clear()
                time.sleep(PAUSE_SECS)
                continue
            try:
                return _post(worker.host, worker.port, data)
            except (OSError, http.client.HTTPException, ValueError) as error:
                failed[worker.identity] = repr(error)
                self.again += 1
        told = "; ".join(f"{who}: {why}" for who, why in failed.items())
        raise NoAnswer(f"nobody answered in {self.patience_secs:g} s: {told or 'none'}")


def _post(host: str, port: int, data: bytes) -> dict[str, Any]:
    connection = http.client.HTTPConnection(host, port, timeout=ANSWER_SECS)
    try:
        connection.request("POST", "/", body=data)
        reply = connection.getresponse()
        body = reply.read()
        if reply.status != http.HTTPStatus.OK:
            raise http.client.HTTPException(f"status {reply.status}")
        return json.loads(body)
    finally:
        connection.close()


def main() -> None:
    url, *paths = sys.argv[1:]
    with SyncModelRegistry.from_url(url) as registry:
        client = Client(registry)
        for path in paths:
            print(path, client.ask(Path(path).read_bytes())["label"])


if __name__ == "__main__":
    main()

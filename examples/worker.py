"""A model worker as the registry sees it: it registers, beats, and says goodbye.

It speaks plain HTTP to any one of the controllers, with nothing but the standard library, so it
can be read, copied and translated. A real worker would also serve its model on ``--port``.

    python -m examples.worker --model llama3@llm --port 9001 --interval 20 \
        --controllers http://127.0.0.1:8001,http://127.0.0.1:8002
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections import deque
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlencode, urlsplit

MODELS, HEARTBEAT = "/api/controller/models", "/api/controller/heartbeat"


class Controllers:
    """All controllers; the one that answered last is asked first."""

    def __init__(self, urls: Sequence[str], patience_secs: float) -> None:
        self._urls = deque(urls)
        self._patience_secs = patience_secs

    def call(self, method: str, target: str, body: str | None = None) -> bool:
        """Ask one after the other until one does it; whether one did."""
        for _ in range(len(self._urls)):
            url = self._urls[0]
            try:
                self._ask(url, method, target, body)
            except (OSError, HTTPException) as error:
                say(f"{url} failed ({error}); asking the next")
                self._urls.rotate(-1)
            else:
                return True
        say("no controller did it; the next beat tries again")
        return False

    def _ask(self, url: str, method: str, target: str, body: str | None) -> None:
        link = HTTPConnection(urlsplit(url).netloc, timeout=self._patience_secs)
        try:
            link.request(method, target, body, {"Content-Type": "application/json"})
            reply = link.getresponse()
            text = reply.read().decode()
        finally:
            link.close()
        if 400 <= reply.status < 500:  # noqa: PLR2004  we are wrong: no use to go on
            sys.exit(f"{url} refuses: {reply.status} {text}")
        if reply.status != 200:  # noqa: PLR2004  it, or its Redis, is in trouble
            raise HTTPException(f"{reply.status} {text}")


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def work(controllers: Controllers, instance: dict[str, str], interval: float) -> None:
    """Register, beat until SIGTERM, deregister."""
    body, path = json.dumps(instance), MODELS
    try:
        while True:
            began = time.monotonic()
            if controllers.call("POST", path, body):
                path = HEARTBEAT  # a registry that lost us registers us by it
            time.sleep(max(0.0, began + interval - time.monotonic()))
    finally:
        controllers.call("DELETE", f"{MODELS}?{urlencode(instance)}")


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="A model worker that only beats.")
    parser.add_argument("--model", required=True, help="what it serves: llama3@llm")
    parser.add_argument("--host", default="127.0.0.1", help="where it is reached")
    parser.add_argument("--port", required=True, help="of its model server")
    parser.add_argument("--controllers", required=True, help="http://a,http://b")
    parser.add_argument("--interval", type=float, default=20.0, help="of beats, in s")
    return parser


def main() -> None:
    given = arguments().parse_args()
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    controllers = Controllers(given.controllers.split(","), min(2, given.interval / 2))
    instance = {"model_name": given.model, "host": given.host, "port": given.port}
    work(controllers, instance, given.interval)


if __name__ == "__main__":
    main()

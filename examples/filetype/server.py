"""Tells what kind of file it is sent, with a small neural network (magika). Knows no registry.

Run: ``python -m examples.filetype.server --port 8000``; then
``curl --data-binary @README.md localhost:8000``
"""

from __future__ import annotations

import argparse
import json
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from magika import Magika

MOST_BYTES = 10_000_000


class Server(ThreadingHTTPServer):
    """Answers ``POST /``; ``/health`` once the model is loaded; ``/metrics``."""

    daemon_threads = False  # work in flight is finished before the process ends

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.model: Magika | None = None
        self.in_flight = 0
        self._lock = threading.Lock()

    def load(self) -> None:
        from magika import Magika  # noqa: PLC0415  the port answers while it loads

        self.model = Magika()

    def count(self, change: int) -> None:
        with self._lock:
            self.in_flight += change


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    @property
    def ours(self) -> Server:
        return cast("Server", self.server)

    def do_GET(self) -> None:
        if self.path == "/health":
            self._answer(200 if self.ours.model else 503, b"")
        elif self.path == "/metrics":
            gauge = f"filetype_requests_in_flight {self.ours.in_flight}\n"
            self._answer(200, gauge.encode())
        else:
            self._answer(404, b"")

    def do_POST(self) -> None:
        size = int(self.headers.get("content-length") or 0)
        model = self.ours.model
        if model is None or size > MOST_BYTES:
            self._answer(413 if model else 503, b"")
            return
        self.ours.count(1)
        try:
            guess = model.identify_bytes(self.rfile.read(size)).output
            told = {"label": guess.label, "mime_type": guess.mime_type}
            self._answer(200, json.dumps(told).encode())
        finally:
            self.ours.count(-1)

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of each request."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    with Server(parser.parse_args().port) as server:

        def stop(number: int, frame: object) -> None:
            del number, frame
            threading.Thread(target=server.shutdown).start()

        signal.signal(signal.SIGTERM, stop)
        threading.Thread(target=server.load, daemon=True).start()
        server.serve_forever()


if __name__ == "__main__":
    main()

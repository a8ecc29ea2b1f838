"""A server that knows no registry: slow on demand, ill on demand, with metrics as vLLM's."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

STATE: dict[str, Any] = {"well": True, "in_flight": 0}
METRICS = """# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{model_name="m",engine="0"}} {running}
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{{model_name="m"}} 0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{{model_name="m"}} 0.25
"""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        match self.path.split("?")[0]:
            case "/health":
                self.answer(200 if STATE["well"] else 500)
            case "/metrics":
                self.answer(200, METRICS.format(running=STATE["in_flight"]))
            case "/ill":
                STATE["well"] = False
                self.answer(200)
            case "/well":
                STATE["well"] = True
                self.answer(200)
            case "/slow":
                STATE["in_flight"] += 1
                time.sleep(float(self.path.partition("?")[2]))
                STATE["in_flight"] -= 1
                self.answer(200, "whole")
            case "/crash":
                os._exit(9)
            case _:
                self.answer(404)

    def answer(self, status: int, text: str = "") -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


def main() -> None:
    port, how = int(sys.argv[1]), sys.argv[2:]
    if "late" in how:
        time.sleep(0.6)
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)

    def stop(*_: Any) -> None:
        if "deaf" not in how:
            threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    server.serve_forever(poll_interval=0.02)
    sys.exit(7)


if __name__ == "__main__":
    main()

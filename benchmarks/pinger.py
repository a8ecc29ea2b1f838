"""A client of its own process that measures PINGs while something else happens to the server.

Usage: ``python -m benchmarks.pinger PORT``. It pings every half a millisecond until its standard
input closes, then prints JSON: count, p50, p99 and the longest, in microseconds.
"""

from __future__ import annotations

import json
import select
import socket
import sys
from time import perf_counter, sleep

PAUSE_SECS = 0.0005


def ping_until_closed(port: int) -> list[float]:
    """Latencies in microseconds."""
    taken: list[float] = []
    with socket.create_connection(("127.0.0.1", port)) as link:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.sendall(b"PING\r\n")
        link.recv(64)
        print("ready", flush=True)
        while not select.select([sys.stdin], [], [], 0)[0]:
            started = perf_counter()
            link.sendall(b"PING\r\n")
            link.recv(64)
            taken.append((perf_counter() - started) * 1_000_000)
            sleep(PAUSE_SECS)
    return sorted(taken)


def main() -> None:
    """Measure, then print."""
    taken = ping_until_closed(int(sys.argv[1]))
    result = {
        "count": len(taken),
        "p50": taken[len(taken) // 2],
        "p99": taken[len(taken) * 99 // 100],
        "most": taken[-1],
    }
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()

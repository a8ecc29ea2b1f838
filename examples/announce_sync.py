"""The same for a program of threads.

Run: ``python -m examples.announce_sync redis://localhost:6379/0``
"""

import sys
import time

from redis_registry import ModelInstance, SyncModelRegistry


def main(url: str) -> None:
    instance = ModelInstance(model_name="llama3@llm", host="127.0.0.1", port=8000)
    with (
        SyncModelRegistry.from_url(url) as registry,
        registry.announce(instance) as announced,
    ):
        time.sleep(0.2)
        announced.ready()
        for in_flight in (1, 2, 0):
            announced.report(in_flight=in_flight, capacity=8)
            time.sleep(0.2)


if __name__ == "__main__":
    main(sys.argv[1])

"""A worker in ten lines: announced, ready, loaded, drained.

Run: ``python -m examples.announce redis://localhost:6379/0``
"""

import asyncio
import sys

from redis_registry import ModelInstance, RedisModelRegistry


async def main(url: str) -> None:
    instance = ModelInstance(model_name="llama3@llm", host="127.0.0.1", port=8000)
    async with (
        RedisModelRegistry.from_url(url, run_checker=False) as registry,
        registry.announce(instance) as announced,  # listed as starting
    ):
        await asyncio.sleep(0.2)  # load the model
        await announced.ready()  # from now on it is selected
        for in_flight in (1, 2, 0):
            announced.report(in_flight=in_flight, capacity=8)
            await asyncio.sleep(0.2)  # work
    # the block's end drained and deregistered it


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))

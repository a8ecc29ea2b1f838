"""A long-lived process of the soak, and its questions and answers.

``python -m tests.soak.member ROLE URL SEED``; the roles are in :mod:`tests.soak.roles`. Says
``ready``, then answers each line of its input with one line of JSON.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import threading
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor

from tests.load.programs import say
from tests.soak.measuring import held_by_process
from tests.soak.roles import ROLES, Role
from tests.soak.settings import fill_caches

POOL = 4


async def questions() -> AsyncGenerator[list[str]]:
    """The lines of the input, as words."""
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader()
    await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := await reader.readline():
        yield line.decode().split()


async def answer(role: Role, words: list[str]) -> object:
    match words:
        case ["measure"]:
            await role.settle()
            return held_by_process(role.roots())
        case ["figures"]:
            return role.figures()
        case ["fill"]:
            return await role.fill()
        case ["rest"]:
            return await role.rest()
        case ["go", "on"]:
            return role.go_on()
        case ["more", count]:
            return role.more(int(count))
        case _:
            raise ValueError(words)


async def fill_pool() -> None:
    """Have all threads of the loop's pool from the start: it starts one when none is free."""
    loop, pool = asyncio.get_running_loop(), ThreadPoolExecutor(POOL)
    loop.set_default_executor(pool)
    all_there = threading.Barrier(POOL)
    await asyncio.gather(*(asyncio.to_thread(all_there.wait) for _ in range(POOL)))


async def main(name: str, url: str, seed: str) -> None:
    logging.disable()  # faults make every second line a warning
    fill_caches()
    await fill_pool()
    async with ROLES[name](url, random.Random(f"{name} {seed}")) as role:
        say("ready")
        async for words in questions():
            say(await answer(role, words))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

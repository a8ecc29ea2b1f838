"""A long-lived process of the soak, and its questions and answers.

``python -m tests.soak.member ROLE URL SEED``; the roles are in :mod:`tests.soak.roles`. Says
``ready``, then answers each line of its input with one line of JSON.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
from collections.abc import AsyncGenerator

from tests.load.programs import say
from tests.soak.measuring import held_by_process
from tests.soak.roles import ROLES, Role
from tests.soak.settings import fill_caches


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


async def main(name: str, url: str, seed: str) -> None:
    logging.disable()  # faults make every second line a warning
    fill_caches()
    async with ROLES[name](url, random.Random(f"{name} {seed}")) as role:
        say("ready")
        async for words in questions():
            say(await answer(role, words))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

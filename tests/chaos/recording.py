"""Writes down every script call of a process: who was meant, when it began and ended, its answer.

A call may be repeated inside (a reply was lost): it has taken effect, once or more often, between
its beginning and its end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Self

from redis_registry.store.calls import Call, Command
from redis_registry.store.executor import AsyncExecutor
from redis_registry.store.replies import Sweep
from redis_registry.store.sync_executor import SyncExecutor
from tests.chaos.failpoints import Failpoints
from tests.chaos.notebook import Note, Notebook

__all__ = ["record_calls"]

_Args = Sequence[str]


def _beaten(args: _Args) -> list[str]:
    members: list[str] = []
    at = 2
    while at < len(args):
        count = int(args[at + 1])
        members += args[at + 2 : at + 2 + count]
        at += 2 + count
    return members


def _taken(members: Sequence[str], missed: Sequence[str]) -> Note:
    late = set(missed)
    return {"beats": [member for member in members if member not in late]}


def _of_heartbeat(args: _Args, reply: Any) -> Note:
    return _taken(_beaten(args), reply)


def _of_report(args: _Args, reply: Any) -> Note:
    return _taken(args[3::3], reply)


def _of_revive(args: _Args, reply: Any) -> Note:
    beats: list[str] = []
    for claimed, tail in zip(args[5:], reply, strict=True):
        if tail not in {"unknown", "superseded"}:
            beats.append(f"{claimed.rsplit(':', 1)[0]}:{tail}")
    return {"beats": beats}


def _of_register(args: _Args, reply: Any) -> Note:
    revision, told = reply
    note: Note = {"identity": args[2], "revision": revision, "mode": args[13]}
    note |= {"readiness": args[7], "incarnation": args[9]}
    if revision >= 0:
        note |= {"epoch": told, "beats": [f"{args[2]}:{args[8]}:{args[9]}"]}
    return note


def _of_writer(args: _Args, reply: Any) -> Note:
    return {"identity": args[2], "revision": reply}


def _of_ready(args: _Args, reply: Any) -> Note:
    return _of_writer(args, reply) | {"incarnation": args[3], "readiness": args[4]}


def _of_sweep(args: _Args, reply: Any) -> Note:
    sweep: Sweep = reply
    note: Note = {"holder": args[2], "token": sweep.token, "epoch": sweep.epoch}
    return note | {"overdue": len(sweep.members)}


def _of_term(args: _Args, reply: Any) -> Note:
    """What a checker does within its term."""
    return {
        "holder": args[2],
        "token": int(args[3]),
        "epoch": args[4],
        "answer": reply if isinstance(reply, (str, int)) else "",
    }


_ABOUT: dict[str, Callable[[_Args, Any], Note]] = {
    "heartbeat": _of_heartbeat,
    "report": _of_report,
    "revive": _of_revive,
    "register": _of_register,
    "deregister": _of_writer,
    "ready": _of_ready,
    "sweep": _of_sweep,
    **dict.fromkeys(
        ("flip", "forget", "expire", "rebase", "mend", "release"), _of_term
    ),
}


def _partition(call: Call[Any] | Command[Any]) -> int:
    return int(call.keys[0].partition("}")[0].rpartition("/")[2]) if call.keys else 0


def _texts(args: Sequence[str | bytes]) -> _Args:
    return [
        item if isinstance(item, str) else item.decode(errors="replace")
        for item in args
    ]


class _Recorded:
    """One call, from its beginning to its end."""

    def __init__(
        self,
        book: Notebook,
        points: Failpoints,
        call: Call[Any] | Command[Any],
        deadline_secs: float,
    ) -> None:
        self._book, self._points, self._call = book, points, call
        self._deadline_secs = deadline_secs
        points.reached(call.name, "before")
        self._begun = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def answered(self, reply: Any) -> Any:
        call = self._call
        more: Note = {}
        if isinstance(call, Call) and call.name in _ABOUT:
            more = _ABOUT[call.name](_texts(call.args), reply)
        self._write(**more)
        self._points.reached(call.name, "after")
        return reply

    def __exit__(
        self, _kind: object, error: BaseException | None, _trace: object
    ) -> None:
        if error is not None:
            more: Note = {}
            if isinstance(self._call, Call) and _ABOUT.get(self._call.name) is _of_term:
                more = _of_term(_texts(self._call.args), "")
            self._write(error=type(error).__name__, why=str(error)[:300], **more)

    def _write(self, **more: Any) -> None:
        self._book.write(
            "call",
            script=self._call.name,
            partition=_partition(self._call),
            begun=self._begun,
            deadline_secs=self._deadline_secs,
            **more,
        )


def record_calls(book: Notebook, points: Failpoints) -> None:
    """From now on this process's executors note what they do."""
    plain, plain_sync = AsyncExecutor.call, SyncExecutor.call

    async def call(
        self: AsyncExecutor,
        call: Any,
        deadline_secs: float | None = None,
        turns: asyncio.Semaphore | None = None,
    ) -> Any:
        secs = deadline_secs or self._policy.settings.operation_timeout
        with _Recorded(book, points, call, secs) as recorded:
            return recorded.answered(await plain(self, call, deadline_secs, turns))

    def call_sync(
        self: SyncExecutor,
        call: Any,
        until: float | None = None,
        lane: str | None = None,
    ) -> Any:
        secs = until - time.monotonic() if until else 0.0
        with _Recorded(book, points, call, secs) as recorded:
            return recorded.answered(plain_sync(self, call, until, lane))

    AsyncExecutor.call = call
    SyncExecutor.call = call_sync

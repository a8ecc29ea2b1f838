"""Runs the real Lua on a store in memory, at a clock that the caller moves.

A store's *contents* are plain data that a run never changes: it gets a copy of what it writes.
So a snapshot costs nothing, and going back is using the old contents again. Only the commands
that the explored scripts use are there; ``replay.py`` proves them equal to a real server's.
"""

from __future__ import annotations

import importlib
import json
from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from redis_registry.store.calls import Call
from redis_registry.store.scripts import load
from tests.mutants.catalogue.mutant import LUA, Edit

__all__ = ["Contents", "Ran", "Scores", "Store", "Stream", "mutated"]

Hash = dict[bytes, bytes]


class Scores(dict[bytes, int]):
    """A sorted set; scores are whole here."""

    __slots__ = ()

    def ranked(self) -> list[tuple[int, bytes]]:
        """In Redis's order: by score, then by member."""
        return sorted((score, member) for member, score in self.items())


class Stream(NamedTuple):
    """The newest id, and how many entries there are; what is added comes with each run."""

    last: int
    length: int


Contents = dict[bytes, Any]
"""Key to :class:`Scores`, hash or :class:`Stream`."""

_PLAIN = frozenset({bytes, int, float, bool, type(None)})
_NIL: Final = False
"""What a script gets for what is not there."""

_MOST_PREPARED = 20_000

EXPIRES: Final = b"(expires)"
"""Key of the ends of keys (ms): no key of ours has parentheses."""


class Refused(NamedTuple):
    """An error that a script answered."""

    message: str


class Ran(NamedTuple):
    """What one call did.

    Attributes:
        reply: As a driver would give it, or :class:`Refused`.
        contents: Everything as it is afterwards.
        events: What was added to the stream: id, head, about.
    """

    reply: Any
    contents: Contents
    events: tuple[tuple[int, bytes, bytes], ...]


def _bound(text: bytes) -> tuple[float, bool]:
    """A score as a bound, and whether the bound itself is left out."""
    return float(text.lstrip(b"(")), text.startswith(b"(")


def _lua_arg(value: Any) -> bytes:
    """What Redis makes of a script's argument."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, float) and not value.is_integer():
        return b"%.17g" % value
    return b"%d" % value


class Commands:
    """The commands, on the contents of the run under way."""

    def __init__(self) -> None:
        self.now_us = 0
        self.run_id = ""
        self.contents: Contents = {}
        self.added: list[tuple[int, bytes, bytes]] = []
        self._own: set[bytes] = set()
        self.by_name: dict[bytes, Callable[..., Any]] = {
            name.upper().encode(): getattr(self, name)
            for name in dir(self)
            if name.islower() and not name.startswith("_") and callable(getattr(self, name))
        }  # fmt: skip

    def _begin(self, contents: Contents, now_us: int, run_id: str) -> None:
        self.contents, self.now_us, self.run_id = dict(contents), now_us, run_id
        self.added, self._own = [], set()
        ends = contents.get(EXPIRES)
        if ends:
            for key in [key for key, end in ends.items() if end * 1000 <= now_us]:
                self.delete(key)

    def _hash(self, key: bytes) -> Hash:
        return self.contents.get(key) or {}

    def _scores(self, key: bytes) -> Scores:
        return self.contents.get(key) or Scores()

    def _owned(self, key: bytes, kind: type[Any]) -> Any:
        """The value of a key, to be written."""
        value = self.contents.get(key)
        if value is None:
            value = self.contents[key] = kind()
        elif key not in self._own:
            value = self.contents[key] = kind(value)
        self._own.add(key)
        return value

    def _tidy(self, key: bytes) -> None:
        """A key without anything in it is not there."""
        if not self.contents[key]:
            self.delete(key)

    # --- the server ------------------------------------------------------------------------

    def time(self) -> list[Any]:
        secs, micros = divmod(self.now_us, 1_000_000)
        return [b"%d" % secs, b"%d" % micros]

    def info(self, *_sections: bytes) -> bytes:
        return f"# Server\r\nrun_id:{self.run_id}\r\n".encode()

    def exists(self, key: bytes) -> int:
        return int(key in self.contents)

    def delete(self, key: bytes) -> int:
        if key in self._hash(EXPIRES):
            del self._owned(EXPIRES, dict)[key]
        self._own.discard(key)
        return int(self.contents.pop(key, None) is not None)

    def pexpire(self, key: bytes, millis: bytes) -> int:
        if key not in self.contents:
            return 0
        self._owned(EXPIRES, dict)[key] = self.now_us // 1000 + int(millis)
        return 1

    # --- hashes ----------------------------------------------------------------------------

    def hget(self, key: bytes, field: bytes) -> bytes | None:
        return self._hash(key).get(field)

    def hmget(self, key: bytes, *fields: bytes) -> list[bytes | None]:
        found = self._hash(key)
        return [found.get(field) for field in fields]

    def hgetall(self, key: bytes) -> list[bytes]:
        return [part for item in self._hash(key).items() for part in item]

    def hkeys(self, key: bytes) -> list[bytes]:
        return list(self._hash(key))

    def hlen(self, key: bytes) -> int:
        return len(self._hash(key))

    def hset(self, key: bytes, *pairs: bytes) -> int:
        found = self._owned(key, dict)
        before = len(found)
        found.update(zip(pairs[::2], pairs[1::2], strict=True))
        return len(found) - before

    def hdel(self, key: bytes, *fields: bytes) -> int:
        if key not in self.contents:
            return 0
        found = self._owned(key, dict)
        gone = sum(found.pop(field, None) is not None for field in fields)
        self._tidy(key)
        return gone

    # --- sorted sets -----------------------------------------------------------------------

    def zadd(self, key: bytes, *args: bytes) -> int:
        at, flags = 0, set[bytes]()
        while args[at] in {b"XX", b"NX", b"CH"}:
            flags.add(args[at])
            at += 1
        found = self._scores(key)
        wanted: dict[bytes, int] = {
            member: int(score)
            for score, member in zip(args[at::2], args[at + 1 :: 2], strict=True)
            if not (b"XX" in flags and member not in found)
            and not (b"NX" in flags and member in found)
        }
        added = sum(member not in found for member in wanted)
        changed = sum(found.get(member) != score for member, score in wanted.items())
        if wanted:
            self._owned(key, Scores).update(wanted)
        return changed if b"CH" in flags else added

    def zrem(self, key: bytes, *members: bytes) -> int:
        if key not in self.contents:
            return 0
        found = self._owned(key, Scores)
        gone = sum(found.pop(member, None) is not None for member in members)
        self._tidy(key)
        return gone

    def zcard(self, key: bytes) -> int:
        return len(self._scores(key))

    def zscore(self, key: bytes, member: bytes) -> bytes | None:
        return self.zmscore(key, member)[0]

    def zmscore(self, key: bytes, *members: bytes) -> list[bytes | None]:
        found = self._scores(key)
        scores = [found.get(member) for member in members]
        return [None if score is None else b"%d" % score for score in scores]

    def _within(self, key: bytes, low: bytes, high: bytes) -> list[tuple[int, bytes]]:
        (least, after), (most, before) = _bound(low), _bound(high)
        return [
            (score, member)
            for score, member in self._scores(key).ranked()
            if (least < score or (least == score and not after))
            and (score < most or (score == most and not before))
        ]

    def zcount(self, key: bytes, low: bytes, high: bytes) -> int:
        return len(self._within(key, low, high))

    def zrangebyscore(
        self, key: bytes, low: bytes, high: bytes, *options: bytes
    ) -> list[bytes]:
        found = self._within(key, low, high)
        if b"LIMIT" in options:
            at = options.index(b"LIMIT")
            skip, count = int(options[at + 1]), int(options[at + 2])
            found = found[skip : skip + count]
        return _told(found, scores=b"WITHSCORES" in options)

    def zrange(
        self, key: bytes, first: bytes, last: bytes, *options: bytes
    ) -> list[bytes]:
        found = _slice(self._scores(key).ranked(), int(first), int(last))
        return _told(found, scores=b"WITHSCORES" in options)

    def zrevrange(
        self, key: bytes, first: bytes, last: bytes, *options: bytes
    ) -> list[bytes]:
        found = _slice(self._scores(key).ranked()[::-1], int(first), int(last))
        return _told(found, scores=b"WITHSCORES" in options)

    def zremrangebyrank(self, key: bytes, first: bytes, last: bytes) -> int:
        gone = _slice(self._scores(key).ranked(), int(first), int(last))
        return self.zrem(key, *(member for _, member in gone))

    def zrangebylex(
        self, key: bytes, low: bytes, high: bytes, *_limit: bytes
    ) -> list[bytes]:
        """Of sets of one score; nobody in these worlds has more members than a limit."""
        members = [member for _, member in self._scores(key).ranked()]
        return members[_lex(members, low, 0) : _lex(members, high, len(members))]

    def zlexcount(self, key: bytes, low: bytes, high: bytes) -> int:
        return len(self.zrangebylex(key, low, high))

    # --- the stream ------------------------------------------------------------------------

    def xlen(self, key: bytes) -> int:
        return self.contents[key].length if key in self.contents else 0

    def xadd(self, key: bytes, *args: bytes) -> bytes:
        entry, head, about = args[-3:]
        stream = self.contents.get(key) or Stream(0, 0)
        number = int(entry)
        if number <= stream.last:
            msg = "ERR The ID specified in XADD is equal or smaller than the target stream top item"
            raise ValueError(msg)
        self.contents[key] = Stream(number, stream.length + 1)
        self.added.append((number, head, about))
        return entry + b"-0"

    def xtrim(self, *_args: bytes) -> int:
        """Streams of these worlds never grow as long as what is kept."""
        return 0

    def xrevrange(self, key: bytes, *_range: bytes) -> tuple[Any, ...]:
        """The newest entry's id; the only thing that scripts ask for."""
        stream = self.contents.get(key)
        return ([b"%d-0" % stream.last],) if stream else ()


def _told(found: Iterable[tuple[int, bytes]], *, scores: bool) -> list[bytes]:
    if not scores:
        return [member for _, member in found]
    return [part for score, member in found for part in (member, b"%d" % score)]


def _slice(items: list[tuple[int, bytes]], first: int, last: int) -> list[Any]:
    size = len(items)
    first, last = (place + size if place < 0 else place for place in (first, last))
    return items[max(first, 0) : last + 1]


def _lex(members: list[bytes], bound: bytes, _end: int) -> int:
    """Where a bound of ZRANGEBYLEX lies; all that scripts use are ``-``, ``[x`` and ``(x``."""
    if bound == b"-":
        return 0
    if bound == b"+":
        return len(members)
    at = bisect_left(members, bound[1:])
    included = at < len(members) and members[at] == bound[1:]
    return at + 1 if included and bound.startswith(b"(") else at


def mutated(name: str, edits: Iterable[Edit] = ()) -> str:
    """The text of a script, with edits of its file or of what it includes.

    Raises:
        ValueError: An edit of this very file no longer fits it.
    """
    text = load(name).without_shebang().text
    for edit in edits:
        path = edit.path.removeprefix(LUA)
        if path == f"{name}.lua":
            if edit.old not in text:
                msg = f"{edit.path} has no {edit.old!r}"
                raise ValueError(msg)
            text = text.replace(edit.old, edit.new)
        elif path.startswith("lib/"):
            text = text.replace(edit.old, edit.new)
    return text


class Store:
    """The scripts, compiled once, and a place to run them.

    Args:
        edits: How to break the scripts first.
    """

    def __init__(self, edits: Iterable[Edit] = ()) -> None:
        self._edits = tuple(edits)
        self._commands = Commands()
        self._by_name = dict(self._commands.by_name)
        self._by_name[b"DEL"] = self._commands.delete
        self._prepared: dict[int, tuple[Call[Any], Any]] = {}
        self._compiled: dict[str, Any] = {}
        made: Any = importlib.import_module("lupa.lua51")  # its types are unknown
        self._lua = made.LuaRuntime(encoding=None, unpack_returned_tuples=False)
        self._table = self._lua.table_from
        self._errors = (ValueError, TypeError, made.LuaError)
        self._lua.execute(
            b"""
            redis = {}
            function redis.error_reply(text) return { err = text } end
            cjson = {}
            function begin(call, decode)
              redis.call, redis.pcall, cjson.decode = call, call, decode
            end
            function bind(script, keys, args)
              return function()
                KEYS, ARGV = keys, args
                return script()
              end
            end
            """
        )
        found = self._lua.globals()
        found[b"begin"](self._call, self._decode)
        self._bind = found[b"bind"]

    def _call(self, name: bytes, *args: Any) -> Any:
        found = self._by_name[name](
            *[arg if arg.__class__ is bytes else _lua_arg(arg) for arg in args]
        )
        if found.__class__ is list:
            return self._table([_NIL if item is None else item for item in found])
        if found.__class__ is tuple:  # a list of lists
            return self._table([self._table(item) for item in found])
        return _NIL if found is None else found

    def _decode(self, text: bytes) -> Any:
        def tabled(value: Any) -> Any:
            if isinstance(value, list):
                return self._table([tabled(item) for item in value])  # pyright: ignore[reportUnknownVariableType]
            return value.encode() if isinstance(value, str) else value

        return tabled(json.loads(text))

    def _reply(self, value: Any) -> Any:
        """What a driver would get of a script's answer."""
        if value.__class__ in _PLAIN:
            return int(value) if isinstance(value, float) else value
        error = value[b"err"]
        if error is not None:
            return Refused(error.decode())
        return [self._reply(value[i]) for i in range(1, len(value) + 1)]

    def _prepare(self, call: Call[Any]) -> Any:
        """A function of no arguments; scripts don't change their KEYS and ARGV."""
        if len(self._prepared) >= _MOST_PREPARED:
            self._prepared.clear()
        name = call.script.name
        if name not in self._compiled:
            text = mutated(name, self._edits)
            self._compiled[name] = self._lua.compile(text.encode())
        keys = self._table([key.encode() for key in call.keys])
        args = [arg if isinstance(arg, bytes) else arg.encode() for arg in call.args]
        made = self._bind(self._compiled[name], keys, self._table(args))
        self._prepared[id(call)] = call, made
        return made

    def run(self, contents: Contents, now_us: int, run_id: str, call: Call[Any]) -> Ran:
        """Make one call; ``contents`` stay as they are."""
        commands = self._commands
        commands._begin(contents, now_us, run_id)
        prepared = self._prepared.get(id(call))
        script = prepared[1] if prepared else self._prepare(call)
        try:
            reply = self._reply(script())
        except self._errors as error:  # as on a server, what was written stays
            reply = Refused(str(error))
        return Ran(reply, commands.contents, tuple(commands.added))

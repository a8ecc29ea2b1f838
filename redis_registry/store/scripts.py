"""The Lua scripts: loaded from ``lua/``, identified by content, bound to the header they open with.

A script's header is its contract. ``KEYS`` names the keys by position, and calls are built from
those names; ``ARGV`` says how many arguments there are. A call that doesn't fit fails here, in
Python, with the name of the script.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

__all__ = ["Script", "load"]

_INCLUDE = re.compile(r"^-- @include (\w+)\n", re.MULTILINE)
_SHEBANG = re.compile(r"\A#![^\n]*\n")
_NAMED = re.compile(r"(\d+)(…?) ([^\n]*?)(?=  \d|\n|\Z)")


@dataclass(frozen=True, slots=True)
class Script:
    """One operation inside Redis.

    Attributes:
        name: Name of its file, without the ending.
        text: Its source, includes pasted in.
        sha: What EVALSHA calls it.
        keys: Names of its fixed keys, by position.
        more_keys: Whether more keys may follow.
        args: How many fixed arguments it takes.
        more_args: Whether more arguments may follow.
    """

    name: str
    text: str
    sha: str
    keys: tuple[str, ...]
    more_keys: bool
    args: int
    more_args: bool

    def without_shebang(self) -> Script:
        """The same script for a server that knows no ``#!lua`` line (fakeredis)."""
        text = _SHEBANG.sub("", self.text)
        return Script(
            self.name,
            text,
            _sha(text),
            self.keys,
            self.more_keys,
            self.args,
            self.more_args,
        )

    def check(self, special: Iterable[str], more: int, args: Sequence[object]) -> None:
        """Hold a call against the header.

        Args:
            special: Names of the keys that the call brings itself.
            more: How many keys it adds to the named ones.
            args: Its arguments, without header and actor (the executor's).

        Raises:
            TypeError: The call doesn't fit.
        """
        if not set(special) <= set(self.keys) or (more and not self.more_keys):
            msg = f"{self.name}.lua takes the keys {self.keys}, not {tuple(special)} + {more}"
            raise TypeError(msg)
        given = len(args) + 2
        if given < self.args or (given > self.args and not self.more_args):
            msg = f"{self.name}.lua takes {self.args} arguments, not {given}"
            raise TypeError(msg)


def _sha(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def _section(header: str, title: str) -> tuple[list[str], bool]:
    """The numbered names of a header's section, and whether the last one repeats."""
    lines = header.split("\n")
    start = next(
        (i for i, line in enumerate(lines) if line.startswith(f"-- {title}")), None
    )
    if start is None:
        return [], False
    text = [lines[start].removeprefix(f"-- {title}")]
    for line in lines[start + 1 :]:
        if not line.startswith("--  "):
            break
        text.append(line.removeprefix("--"))
    names: list[str] = []
    repeats = False
    for number, dots, name in _NAMED.findall("\n".join(text)):
        if dots:
            repeats = True
        elif int(number) == len(names) + 1:
            names.append(name.strip())
    return names, repeats


def _source(name: str) -> str:
    return (
        resources.files(__package__ or "")
        .joinpath("lua", f"{name}.lua")
        .read_text(encoding="utf-8")
    )


@cache
def load(name: str) -> Script:
    """Read a script and its header, and paste in what it includes.

    Raises:
        FileNotFoundError: There is no such script, or an include of it is missing.
        ValueError: Its header names no keys.
    """
    text = _source(name)
    header = text.split("-- @include", maxsplit=1)[0]
    keys, more_keys = _section(header, "KEYS")
    args, more_args = _section(header, "ARGV")
    if keys[:2] != ["meta", "events"]:
        msg = f"{name}.lua: the header must name KEYS 1 meta  2 events"
        raise ValueError(msg)
    text = _INCLUDE.sub(lambda found: _source(f"lib/{found[1]}"), text)
    return Script(name, text, _sha(text), tuple(keys), more_keys, len(args), more_args)

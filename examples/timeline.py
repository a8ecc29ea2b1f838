"""What the demo prints: what was done, what was expected, what was seen, and when."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.text import Text

__all__ = ["Timeline"]

_INDENT = 4
_DETAIL = 56
_WIDTH = 100
"""Of lines that go to no terminal."""


class Timeline:
    """Lines with the seconds since its making.

    Attributes:
        met: How many expectations were met.
        failed: Those that weren't.
    """

    def __init__(self) -> None:
        width = None if sys.stdout.isatty() else _WIDTH
        self._console = Console(highlight=False, emoji=False, width=width)
        self.met = 0
        self.failed: list[str] = []
        self._start = time.monotonic()

    @property
    def secs(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def say(self, text: str = "") -> None:
        """A line without a time."""
        self._console.print(text, soft_wrap=True)

    def act(self, title: str, why: str) -> None:
        """A heading, and what is to be shown."""
        self.say(f"\n[bold]{title}[/]: {why}")

    def did(self, what: str, detail: str = "") -> None:
        """Something was done."""
        self._line("[cyan]>[/] ", what, detail)

    def expect(self, met: bool, what: str, seen: str) -> None:
        """Something was expected, and it was met or not."""
        if met:
            self.met += 1
            self._line("[bold green]ok[/]", what, seen)
        else:
            self.failed.append(what)
            self._line("[bold red]FAILED[/]", f"[red]{what}[/]", f"seen: {seen}")

    def show(self, what: RenderableType) -> None:
        """Anything that rich can print, indented."""
        self._console.print(Padding(what, (0, 0, 0, _INDENT), expand=False))

    def waiting(self, what: str) -> AbstractContextManager[object]:
        """In a terminal: a moving line while we wait."""
        return self._console.status(f"[dim]{what}[/]", spinner="line")

    def _line(self, mark: str, what: str, detail: str) -> None:
        """One line; ``what`` may hold rich's markup, the detail is plain."""
        space = " " * max(_DETAIL - Text.from_markup(what).cell_len, 2)
        after = f"{space}[dim]{escape(detail)}[/]" if detail else ""
        self.say(f"{self.secs:6.1f} s  {mark}  {what}{after}")

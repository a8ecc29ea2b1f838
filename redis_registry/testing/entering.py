"""What the sets of servers have in common: entered whole, or not at all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from redis_registry.errors import EmbeddedServerError

__all__ = ["Entering"]


class Entering(ABC):
    """A context manager that enters others and leaves them in turn, also when one can't be entered."""

    _stack: ExitStack
    """What was entered so far; more may be, and leaves with the rest."""

    _entered = False

    @abstractmethod
    def _enter(self) -> None:
        """Enter new ones, on the stack."""

    def __enter__(self) -> Self:
        if self._entered:
            msg = f"this {type(self).__name__} is entered already: make another one"
            raise EmbeddedServerError(msg)
        with ExitStack() as stack:
            self._stack = stack
            self._enter()
            self._stack = stack.pop_all()
        self._entered = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._entered = False
        self._stack.close()

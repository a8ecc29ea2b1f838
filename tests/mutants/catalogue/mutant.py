"""What a mutant is, and the files that many of them break."""

from __future__ import annotations

from dataclasses import dataclass

LUA = "redis_registry/store/lua/"
CALLS = "redis_registry/store/calls.py"
WRITERS = "redis_registry/store/writers.py"
REPLIES = "redis_registry/store/replies.py"
CHECKER = "redis_registry/roles/checker.py"
EXECUTOR = "redis_registry/store/executor.py"
TAIL = "redis_registry/roles/following/tail.py"
SELECTION = "redis_registry/selection/"


@dataclass(frozen=True)
class Edit:
    """Text of a file, and what it becomes."""

    path: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutant:
    """One way to break a promise.

    Attributes:
        promise: Its letter and number in ``docs/explanation/promises.md``.
        what: The fault, in words.
        test: The test that must go red, as pytest names it.
        edits: The fault, in code.
    """

    promise: str
    what: str
    test: str
    edits: tuple[Edit, ...]

    @property
    def files(self) -> set[str]:
        """The files that it breaks, and the one of its test."""
        return {edit.path for edit in self.edits} | {self.test.partition("::")[0]}


def mutant(promise: str, what: str, test: str, *edits: tuple[str, str, str]) -> Mutant:
    """A mutant, written short."""
    return Mutant(promise, what, f"tests/{test}", tuple(Edit(*edit) for edit in edits))

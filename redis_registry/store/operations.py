"""Every operation of the registry for one namespace, as data; see :mod:`redis_registry.store.calls`."""

from __future__ import annotations

from redis_registry.store.calls import Call, Command, Operation
from redis_registry.store.explaining import Explaining
from redis_registry.store.operators import Operators
from redis_registry.store.outliers import Outliers
from redis_registry.store.readers import READ_PAGE
from redis_registry.store.sweeping import (
    FORGET_PAGE,
    SWEEP_PAGE,
    Mended,
    Sweeping,
    Term,
)
from redis_registry.store.writers import UNKNOWN, Writers

__all__ = [
    "FORGET_PAGE",
    "READ_PAGE",
    "SWEEP_PAGE",
    "UNKNOWN",
    "Call",
    "Command",
    "Mended",
    "Operation",
    "Operations",
    "Term",
]


class Operations(Writers, Outliers, Operators, Explaining, Sweeping):
    """What workers, readers, operators, those who reserve, and checkers do."""

"""Promise by promise: the lines to break, and the test that must notice."""

from __future__ import annotations

from tests.mutants.catalogue import (
    choosing,
    following,
    liveness,
    naming,
    operators,
    outliers,
    reserving,
    service,
    topologies,
    writers,
)
from tests.mutants.catalogue.mutant import Edit, Mutant

__all__ = ["MUTANTS", "Edit", "Mutant"]

GROUPS = (
    liveness,
    outliers,
    writers,
    operators,
    following,
    choosing,
    reserving,
    naming,
    service,
    topologies,
)
MUTANTS = [mutant for group in GROUPS for mutant in group.MUTANTS]

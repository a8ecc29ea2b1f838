"""Waiting for a condition instead of sleeping for luck."""

from __future__ import annotations

import time
from collections.abc import Callable

from redis_registry.errors import EmbeddedServerError
from redis_registry.testing.link import Said

__all__ = ["await_that"]


def await_that(
    condition: Callable[[], object], what: str, *, within_secs: float = 15.0
) -> None:
    """Poll until ``condition`` holds; a server that does not answer counts as "not yet".

    Raises:
        EmbeddedServerError: It did not hold in time; the message says ``what``, and the last
            error that a server gave.
    """
    until = time.monotonic() + within_secs
    why = ""
    while True:
        try:
            if condition():
                return
            why = ""
        except (OSError, Said) as error:
            why = f" ({error})"
        if time.monotonic() > until:
            raise EmbeddedServerError(f"not within {within_secs:g} s: {what}{why}")
        time.sleep(0.01)

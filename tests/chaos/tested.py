"""Rows of the fault matrix that plain tests prove; the others are scenarios of several processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["TESTED", "Tested"]


@dataclass(frozen=True)
class Tested:
    """A row of the matrix, and the tests that prove it.

    Attributes:
        name: What ``--scenario`` calls it.
        row: Its number in the matrix.
        priority: ``P0`` or ``P1``.
        what: The fault, and what must hold.
        tests: As pytest names them; none: what it would test is not built yet.
    """

    name: str
    row: int
    priority: Literal["P0", "P1"]
    what: str
    tests: tuple[str, ...]


def _in(path: str, *names: str) -> tuple[str, ...]:
    """Some tests of one file; all of them where none is named."""
    return tuple(f"tests/{path}::{name}" for name in names) or (f"tests/{path}",)


TESTED: tuple[Tested, ...] = (
    Tested(
        "script-flush",
        10,
        "P0",
        "scripts flushed all the time: one round trip more, no error",
        _in("faults/test_scripts_lost.py"),
    ),
    Tested(
        "heartbeat-against-flip",
        17,
        "P0",
        "10,000 heartbeats within 5 ms of their deadline: never unhealthy with a fresh deadline",
        _in("faults/test_races.py", "test_ten_thousand_heartbeats_within_5_ms_of_their_deadline")
        + _in("promises/test_liveness.py", "test_heartbeats_racing_with_sweeps_never_lose",
              "test_a_heartbeat_between_look_and_flip_wins"),
    ),
    Tested(
        "two-lives",
        18,
        "P0",
        "two processes at one address: no call of an older life touches the newer one",
        _in("faults/test_races.py", "test_two_processes_at_one_address_never_touch_each_others_life")
        + _in("promises/test_incarnations.py", "test_the_newest_incarnation_is_what_remains"),
    ),
    Tested(
        "evicting-redis",
        25,
        "P1",
        "Redis evicts: warned at the start, and what it took comes back",
        _in("faults/test_memory.py")
        + _in("faults/test_damage.py",
              "test_whatever_key_is_lost_heartbeats_and_sweeps_mend_the_rest"),
    ),
    Tested(
        "wrong-type",
        29,
        "P0",
        "any key taken by another type: every write is refused before it changes anything",
        _in("faults/test_damage.py", "test_whatever_key_is_taken_no_write_is_half_done")
        + _in("promises/test_faults.py", "test_so_are_what_operators_decide"),
    ),
    Tested(
        "lost-reply",
        38,
        "P1",
        "the reply is lost after execution, of any call: one effect, one event",
        _in("faults/test_lost_replies.py",
            "test_whatever_reply_is_lost_the_call_has_the_effect_of_one",
            "test_a_flip_whose_reply_is_lost_is_one_event"),
    ),
    Tested(
        "cancelled-calls",
        35,
        "P0",
        "calls cancelled at any moment: no wrong answer, no leak, and they can be repeated",
        _in("faults/test_lost_replies.py",
            "test_a_storm_of_cancellations_mixes_no_answers_and_leaks_nothing")
        + _in("unit/test_executor.py", "test_cancelled_calls_leave_answers_and_connections_sound",
              "test_cancelling_one_heartbeat_leaves_the_others"),
    ),
)  # fmt: skip

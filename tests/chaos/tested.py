"""Rows of the fault matrix that plain tests prove; the others are scenarios of several processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["TESTED", "TESTS_SECS", "Tested"]

TESTS_SECS = 620.0
"""Longer than any of the tests has by its own limit."""


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

    @property
    def crowd(self) -> bool:
        """Whether it takes the whole machine: then nothing is played beside it."""
        return any(test.startswith("tests/load/") for test in self.tests)


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
        "split-brain",
        6,
        "P1",
        "a master cut off with its clients: what it took is lost, and told; with min-replicas they are refused in time",
        _in("topologies/test_split_brain.py"),
    ),
    Tested(
        "heartbeat-against-flip",
        17,
        "P0",
        "10,000 heartbeats within 5 ms of their deadline: never unhealthy with a fresh deadline",
        _in(
            "faults/test_races.py",
            "test_ten_thousand_heartbeats_within_5_ms_of_their_deadline",
        )
        + _in(
            "promises/test_liveness.py",
            "test_heartbeats_racing_with_sweeps_never_lose",
            "test_a_heartbeat_between_look_and_flip_wins",
        ),
    ),
    Tested(
        "two-lives",
        18,
        "P0",
        "two processes at one address: no call of an older life touches the newer one",
        _in(
            "faults/test_races.py",
            "test_two_processes_at_one_address_never_touch_each_others_life",
        )
        + _in(
            "promises/test_incarnations.py",
            "test_the_newest_incarnation_is_what_remains",
        ),
    ),
    Tested(
        "thundering-herd",
        19,
        "P1",
        "the connections of 10,000 workers are cut at once: they return evenly, in time, and nobody is flipped",
        _in(
            "load/test_fleet.py",
            "test_ten_thousand_whose_connections_are_cut_return_evenly",
        ),
    ),
    Tested(
        "damaged-stream",
        21,
        "P1",
        "the stream is deleted, or made anew with lower ids: views and watches see what comes within two looks",
        _in(
            "faults/test_following.py",
            "test_a_stream_that_is_deleted_or_made_anew_delays_nobody",
        ),
    ),
    Tested(
        "slow-consumer",
        22,
        "P1",
        "500 changes a second and a watch that takes one: a bounded queue, a named resync, nothing piled up in Redis",
        _in(
            "faults/test_following.py",
            "test_a_slow_consumer_costs_neither_us_nor_redis_memory",
        )
        + _in(
            "following/test_watch.py",
            "test_a_slow_consumer_is_told_and_gets_a_snapshot",
        ),
    ),
    Tested(
        "half-open",
        23,
        "P1",
        "news that a half-open connection swallows are only late, by a bounded time",
        _in(
            "faults/test_following.py",
            "test_news_that_a_half_open_connection_swallows_are_only_late",
        )
        + _in(
            "unit/test_pipeline.py", "test_a_silent_connection_is_left_by_who_gives_up"
        ),
    ),
    Tested(
        "evicting-redis",
        25,
        "P1",
        "Redis evicts: warned at the start, and what it took comes back",
        _in("faults/test_memory.py")
        + _in(
            "faults/test_damage.py",
            "test_whatever_key_is_lost_heartbeats_and_sweeps_mend_the_rest",
        ),
    ),
    Tested(
        "replica-by-mistake",
        26,
        "P1",
        "the address of a replica: named as that, within the deadline",
        _in(
            "faults/test_access.py",
            "test_a_replica_addressed_by_mistake_is_named_in_time",
        ),
    ),
    Tested(
        "wrong-password",
        27,
        "P0",
        "a wrong password, a missing right, a password that is rotated: told at once, tried once",
        _in(
            "faults/test_access.py",
            "test_a_wrong_password_is_told_at_once_and_tried_once",
            "test_whatever_right_is_missing_each_call_is_denied_once_and_all_is_mended_later",
            "test_a_password_may_be_rotated_while_we_are_connected",
        )
        + _in(
            "promises/test_faults.py",
            "test_a_user_with_only_these_rights_can_do_everything",
        ),
    ),
    Tested(
        "wrong-certificate",
        28,
        "P1",
        "no, rogue, foreign, expired or misnamed certificate, plain to TLS: refused, no secret told",
        _in(
            "faults/test_access.py",
            "test_whatever_is_wrong_with_tls_it_is_refused_and_no_secret_told",
            "test_no_repr_shows_a_password",
        )
        + _in("testing/test_tls.py"),
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
        "broken-record",
        30,
        "P0",
        "a record of garbage: left out, logged and counted; the others and the checker go on",
        _in(
            "promises/test_faults.py",
            "test_a_broken_record_spoils_no_other",
            "test_a_broken_record_can_be_mended_or_removed",
        )
        + _in(
            "promises/test_incarnations.py",
            "test_one_damaged_key_spoils_no_other_report",
        )
        + _in(
            "following/test_watch.py", "test_an_event_that_somebody_damaged_is_a_resync"
        ),
    ),
    Tested(
        "orphans",
        31,
        "P0",
        "a place without a record, a record without its places: mended by the next sweep",
        _in("promises/test_faults.py", "test_orphans_are_mended_by_the_next_sweep")
        + _in(
            "faults/test_damage.py",
            "test_whatever_key_is_lost_heartbeats_and_sweeps_mend_the_rest",
        ),
    ),
    Tested(
        "oversize",
        33,
        "P0",
        "names, metadata and bodies that are too large: refused by name, nothing stored, by the client and by the script",
        _in(
            "registry/test_names.py",
            "test_bad_fields_are_refused_by_name",
            "test_what_does_not_fit_on_the_wire_stores_nothing",
        )
        + _in(
            "promises/test_faults.py",
            "test_what_a_client_lets_through_the_script_refuses",
        )
        + _in(
            "http/test_door.py",
            "test_large_bodies_wrong_methods_and_unknown_paths",
            "test_bad_bodies_are_422_that_name_the_field_and_store_nothing",
            "test_endless_queries_are_414",
        ),
    ),
    Tested(
        "hostile-names",
        34,
        "P0",
        "any text is a name, no two share a key, all keys of a partition share a slot; what is no text is refused",
        _in("registry/test_names.py")
        + _in("unit/test_scripts.py", "test_every_key_of_every_call_is_in_one_slot"),
    ),
    Tested(
        "cancelled-calls",
        35,
        "P0",
        "calls cancelled at any moment: no wrong answer, no leak, and they can be repeated",
        _in(
            "faults/test_lost_replies.py",
            "test_a_storm_of_cancellations_mixes_no_answers_and_leaks_nothing",
        )
        + _in(
            "unit/test_executor.py",
            "test_cancelled_calls_leave_answers_and_connections_sound",
            "test_cancelling_one_heartbeat_leaves_the_others",
        ),
    ),
    Tested(
        "blocked-loop",
        36,
        "P0",
        "an event loop blocked for two timeouts: its worker lives, its checker is replaced and fenced, its lag is told",
        _in("faults/test_blocked.py")
        + _in(
            "workers/test_evidence.py",
            "test_a_blocked_event_loop_does_not_kill_and_its_lag_is_told",
        ),
    ),
    Tested(
        "signals",
        37,
        "P0",
        "signals at any moment, twice, also while Redis is away: a clean end in time, the lease free",
        _in("faults/test_signals.py")
        + _in("agent/test_agent.py", "test_more_signals_mean_more_haste"),
    ),
    Tested(
        "lost-reply",
        38,
        "P1",
        "the reply is lost after execution, of any call: one effect, one event",
        _in(
            "faults/test_lost_replies.py",
            "test_whatever_reply_is_lost_the_call_has_the_effect_of_one",
            "test_a_flip_whose_reply_is_lost_is_one_event",
        ),
    ),
    Tested(
        "mass-expiry",
        40,
        "P1",
        "100,000 overdue at once: each flipped once, no command takes 10 ms, heartbeats go on meanwhile",
        _in("load/test_mass_expiry.py"),
    ),
    Tested(
        "door-abuse",
        41,
        "P0",
        "wrong methods, paths, bodies and queries: 4xx (tokens: not built yet)",
        _in(
            "http/test_door.py",
            "test_large_bodies_wrong_methods_and_unknown_paths",
            "test_bad_queries_are_4xx",
            "test_a_crash_in_a_handler_is_500_and_no_more",
        ),
    ),
    Tested(
        "slow-clients",
        42,
        "P1",
        "silent, slow and endless clients: left in time, others served",
        _in(
            "http/test_limits.py",
            "test_forty_slow_clients_are_left_in_time_and_others_are_served",
            "test_who_never_reads_a_long_answer_is_left",
            "test_an_endless_head_is_431",
        ),
    ),
    Tested(
        "injection",
        43,
        "P1",
        "patterns, line ends, terminal codes and Lua in names: exact matches, one line, constant scripts",
        _in("registry/test_names.py", "test_hostile_names_round_trip_and_stay_apart")
        + _in(
            "http/test_operators.py",
            "test_what_others_wrote_is_shown_as_it_is",
            "test_a_program_that_reads_gets_an_instance_a_line",
        )
        + _in(
            "unit/test_in_force.py",
            "test_an_instance_is_meant_exactly_whatever_its_names_hold",
        ),
    ),
    Tested(
        "dashboard-scripts",
        44,
        "P1",
        "scripts in names shown by a dashboard: not built yet",
        (),
    ),
    Tested(
        "forged-probes",
        45,
        "P1",
        "active probes of any host: not built yet (the agent probes what its operator says; reverse checks are off by default)",
        (),
    ),
    Tested(
        "page-abuse",
        46,
        "P1",
        "names that were made to lead here, pages of other sites: 4xx, nothing stored (streams over HTTP: not built yet)",
        _in("http/test_limits.py", "test_pages_of_other_sites_are_kept_out"),
    ),
    Tested(
        "rolling-upgrade",
        32,
        "P1",
        "two releases on one Redis, forward and back, under faults: nobody flipped, all understood",
        _in("upgrade/test_rolling.py"),
    ),
)

"""W6: overrides and aliases."""

from __future__ import annotations

from tests.mutants.catalogue.mutant import CHECKER, LUA, REPLIES, mutant

MUTANTS = [
    mutant(
        "W6",
        "what the worker says counts again once it is back",
        "promises/test_overrides.py::test_it_holds_on_every_replica_through_a_killed_worker_and_a_restarted_redis",
        (REPLIES, "if self.orders.overrides:", "if False:"),
    ),
    mutant(
        "W6",
        "readers don't hear that an override was cleared",
        "promises/test_overrides.py::test_it_holds_on_every_replica_through_a_killed_worker_and_a_restarted_redis",
        (LUA + "clear.lua", "'orders', string.format('%d', rev), ", ""),
    ),
    mutant(
        "W6",
        "health is judged before the operator is asked",
        "promises/test_overrides.py::test_forced_health_is_over_the_deadline_the_flip_and_the_guard",
        (LUA + "read.lua", "then healthy_only = false end", "then end"),
    ),
    mutant(
        "W6",
        "an override's end waits for a sweep",
        "promises/test_overrides.py::test_its_end_is_judged_by_readers_when_no_checker_lives",
        (
            "redis_registry/wire/in_force.py",
            "if standing.ends_us is None or standing.ends_us > now_us",
            "if standing",
        ),
    ),
    mutant(
        "W6",
        "nobody removes overrides that have ended",
        "promises/test_overrides.py::test_it_ends_by_itself_and_says_so",
        (CHECKER, "if sweep.ended:", "if False:"),
    ),
    mutant(
        "W6",
        "a call that is repeated decides again",
        "promises/test_overrides.py::test_clearing_twice_and_repeating_a_lost_call_change_nothing_more",
        (
            LUA + "override.lua",
            "if old and string.match(old, '^%d+:%d+:(%w+):') == operation then return old end",
            "",
        ),
    ),
    mutant(
        "W6",
        "one that is refused takes the former of its name with it",
        "promises/test_overrides.py::test_one_that_is_refused_leaves_the_former_of_its_name",
        (
            "redis_registry/store/operators.py",
            "yield from self._room_for(override.name, homes)",
            "",
        ),
    ),
    mutant(
        "W6",
        "one that is forced healthy is reserved by its deadline",
        "promises/test_overrides.py::test_one_that_is_forced_healthy_can_be_reserved",
        (
            LUA + "reserve.lua",
            "local forced = string.sub(ARGV[4 + i], -2) == ':f'",
            "local forced = false",
        ),
    ),
    mutant(
        "W6",
        "an alias is the name of its own instances",
        "registry/test_aliases.py::test_reads_and_selects_of_an_alias_answer_with_the_model",
        (LUA + "read.lua", "if target ~= '' then only = target end", ""),
    ),
    mutant(
        "W6",
        "a view shows what the worker says",
        "following/test_decisions.py::test_a_view_honours_overrides_from_the_first_to_the_last",
        (
            "redis_registry/core/rows.py",
            "shown = (overrides.apply(item, 0) for item in found if item)",
            "shown = (item for item in found if item)",
        ),
    ),
    mutant(
        "W6",
        "a view keeps what was replaced by a decision about others",
        "following/test_decisions.py::test_one_that_is_replaced_by_one_about_others_is_over",
        (
            "redis_registry/core/decisions.py",
            "former = before.overrides.get(event.override.name) or event.override",
            "former = event.override",
        ),
    ),
    mutant(
        "W6",
        "a view waits for a sweep to end an override",
        "following/test_decisions.py::test_a_view_notices_the_end_by_itself",
        (
            "redis_registry/roles/following/follower.py",
            "self._turn(self.mirror.expire(partition, overdue.now_us))",
            "pass",
        ),
    ),
]

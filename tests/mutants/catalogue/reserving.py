"""R7: reservations."""

from __future__ import annotations

from tests.mutants.catalogue.mutant import LUA, mutant

MUTANTS = [
    mutant(
        "R7",
        "a repeated call reserves a second time",
        "promises/test_reserve_once.py::test_a_repeated_call_after_a_lost_reply_counts_once",
        (LUA + "reserve.lua", "if given then return", "if false then return"),
    ),
    mutant(
        "R7",
        "the first that is free is picked, whoever has the least in flight",
        "promises/test_reserve.py::test_two_replicas_agree_on_who_has_the_least_in_flight",
        (
            LUA + "reserve.lua",
            "if free[i] and (not best or loads[i] < loads[best]",
            "if free[i] and (not best",
        ),
        (
            LUA + "reserve.lua",
            "or (loads[i] == loads[best] and turns[i] < turns[best])) then",
            ") then",
        ),
    ),
    mutant(
        "R7",
        "who died since the candidates were read is picked",
        "promises/test_reserve.py::test_who_died_since_the_candidates_were_read_is_not_picked",
        (LUA + "reserve.lua", "if can_work(best) then", "if best then"),
    ),
    mutant(
        "R7",
        "an instance is filled beyond its capacity",
        "promises/test_reserve.py::test_many_at_once_never_exceed_a_capacity",
        (LUA + "reserve.lua", "count < most", "count <= most"),
    ),
    mutant(
        "R7",
        "what a dead process held stays counted",
        "promises/test_reserve_leases.py::test_what_a_killed_process_held_is_back_within_its_lease",
        (
            LUA + "lib/flights.lua",
            "lease_of(first[1])) > now",
            "lease_of(first[1])) > 0",
        ),
    ),
    mutant(
        "R7",
        "a living holder's lease is not renewed",
        "promises/test_reserve_leases.py::test_what_a_killed_process_held_is_back_within_its_lease",
        ("redis_registry/roles/holder.py", "            self._renew_used()\n", ""),
    ),
    mutant(
        "R7",
        "an attempt that was counted after it was given up stays counted",
        "promises/test_reserve_once.py::test_what_was_counted_after_it_was_given_up_goes_though_others_are_made",
        (
            "redis_registry/roles/holder.py",
            "self._each(used, self._renew)",
            "self._each(self._by_home(), self._renew)",
        ),
    ),
    mutant(
        "R7",
        "a busy holder does not see that Redis was emptied early",
        "promises/test_reserve_leases.py::test_after_an_early_flush_a_busy_holder_counts_again_what_it_holds",
        ("redis_registry/roles/holder.py", "found.kept or not epoch", "found.kept"),
    ),
    mutant(
        "R7",
        "a forked child gives back what its parent holds",
        "promises/test_reserve_leases.py::test_a_forked_child_holds_nothing_of_its_parent",
        (
            "redis_registry/roles/holder.py",
            "if self._process != os.getpid():  # forked in the block: it is the parent's",
            "if False:",
        ),
    ),
    mutant(
        "R7",
        "a paused holder believes that it still has its places",
        "promises/test_reserve_leases.py::test_a_process_that_was_paused_is_told_and_counted_again",
        ("redis_registry/roles/holder.py", "made.lost = True", "pass"),
    ),
    mutant(
        "R7",
        "a cancelled attempt is forgotten instead of given back",
        "promises/test_reserve_once.py::test_cancelling_anywhere_leaves_nothing_counted",
        (
            "redis_registry/roles/reserving.py",
            "            holder.leave_behind(number)",
            "            holder.forget(number)",
        ),
    ),
    mutant(
        "R7",
        "a count is changed without what a holder holds",
        "promises/test_reserve_machine.py::test_counts_are_what_is_held",
        (
            LUA + "adopt.lua",
            "if redis.call('HSETNX', HELD, id, identity .. '|' .. now_text) == 1 then",
            "if redis.call('HSETNX', HELD, id, identity .. '|' .. now_text) then",
        ),
    ),
]

"""L1 to L6: who lives, who is dead, and what is no proof of either."""

from __future__ import annotations

from tests.mutants.catalogue.mutant import CALLS, CHECKER, LUA, mutant

MUTANTS = [
    mutant(
        "L1",
        "time is the caller's clock instead of Redis's",
        "promises/test_clocks.py::test_nodes_with_wrong_clocks_flip_nobody_who_beats",
        (
            CALLS,
            '{settings.events_kept}"',
            "{settings.events_kept}|{__import__('time').time_ns() // 1000}\"",
        ),
        (
            LUA + "lib/open.lua",
            "own_gap, own_window, events_kept =",
            "own_gap, own_window, events_kept, host =",
        ),
        (
            LUA + "lib/open.lua",
            "'^(%d+)|(%d+)|(%d+)|(%d+)|(%d+)$'",
            "'^(%d+)|(%d+)|(%d+)|(%d+)|(%d+)|(%d+)$'",
        ),
        (
            LUA + "lib/open.lua",
            "local now = tonumber(time[1]) * 1000000 + tonumber(time[2])",
            "local now = tonumber(host)",
        ),
    ),
    mutant(
        "L2",
        "the flip doesn't look at the deadline again",
        "promises/test_liveness.py::test_a_heartbeat_between_look_and_flip_wins",
        (
            LUA + "flip.lua",
            "if not deadline or deadline > now then",
            "if not deadline then",
        ),
        (
            LUA + "flip.lua",
            "elseif recovered and effective",
            "elseif false and effective",
        ),
    ),
    mutant(
        "L2",
        "the flip takes whoever ranks lowest",
        "promises/test_liveness.py::test_each_flip_goes_by_its_own_deadline",
        (
            LUA + "flip.lua",
            "lowest = lowest and found[2 * i - 1] == member",
            "lowest = lowest and found[2 * i - 1] ~= nil",
        ),
    ),
    mutant(
        "L2",
        "a heartbeat stays with a controller that is dead",
        "workers/test_remote.py::test_one_controller_killed_then_the_other_stopped_nobody_misses_a_beat",
        (
            "redis_registry/remote.py",
            "self._urls.append(self._urls.pop(0))",
            "pass",
        ),
    ),
    mutant(
        "W2",
        "a controller that is new is not told what Redis may have lost",
        "workers/test_remote.py::test_a_word_that_redis_lost_is_said_again_to_a_controller_that_is_new",
        (
            "redis_registry/remote.py",
            "return self._boots.setdefault(instance.identity, boot) != boot",
            "return False",
        ),
    ),
    mutant(
        "L3",
        "a read believes the flag",
        "promises/test_liveness.py::test_a_read_judges_the_deadline_itself",
        (LUA + "read.lua", "  return 'overdue'\nend", "  return '1'\nend"),
    ),
    mutant(
        "L3",
        "a read believes the deadlines of a clock that was put back",
        "promises/test_recovery.py::test_reads_do_not_serve_the_dead_of_a_clock_put_back",
        (LUA + "lib/open.lua", " and deadline <= now + timeout + gap end", " end"),
    ),
    mutant(
        "L3",
        "a view believes the deadlines of a clock that was put back",
        "promises/test_recovery.py::test_views_hear_of_the_dead_of_a_clock_put_back",
        (
            LUA + "overdue.lua",
            "redis.call('HGET', META, 'rebase')",
            "false",
        ),
    ),
    mutant(
        "L3",
        "the checker sleeps a whole lease instead of until the next deadline",
        "promises/test_liveness.py::test_a_silent_instance_is_flipped_on_time_by_the_clock",
        (
            CHECKER,
            "return max(wait, LEAST_WAIT_SECS)",
            "return 3.0",
        ),
    ),
    mutant(
        "L4",
        "a silence of the registry goes unnoticed",
        "promises/test_recovery.py::test_after_a_silence_overdue_instances_are_protected",
        (LUA + "lib/open.lua", "recover('silence', pulse, false)", "local _ = pulse"),
    ),
    mutant(
        "L4",
        "another server process goes unnoticed",
        "promises/test_recovery.py::test_another_server_process_starts_a_new_epoch_and_a_recovery",
        (
            LUA + "lib/open.lua",
            "if not epoch or meta[3] ~= run or again then",
            "if not epoch then",
        ),
    ),
    mutant(
        "L4",
        "nobody minds that nobody swept",
        "promises/test_recovery.py::test_nobody_swept_for_a_while_means_nobody_is_flipped",
        (LUA + "sweep.lua", "recover('unswept', swept, false)", "local _ = swept"),
    ),
    mutant(
        "L4",
        "a chain of silences protects for ever",
        "promises/test_recovery.py::test_repeated_silences_delay_a_death_by_one_timeout_at_most",
        (LUA + "lib/open.lua", "recovery_first + window, now)", "now, now)"),
    ),
    mutant(
        "L4",
        "the long dead get the grace of the living",
        "promises/test_recovery.py::test_who_was_dead_before_the_silence_gets_no_grace",
        (
            LUA + "lib/open.lua",
            "if deadline > recovery_from and deadline < granted then",
            "if deadline < granted then",
        ),
        (
            LUA + "sweep.lua",
            "local horizon = recovering() and math.min(recovery_from, now) or now",
            "local horizon = recovering() and 0 or now",
        ),
    ),
    mutant(
        "L4",
        "a new server process is noted before it is told",
        "promises/test_recovery.py::test_a_restart_whose_event_was_refused_is_noticed_by_the_next_call",
        (
            LUA + "lib/open.lua",
            "  if born then --",
            "  redis.call('HSET', META, 'run', run, 'epoch', epoch)\n  if born then --",
        ),
    ),
    mutant(
        "L4",
        "a restart that outlasts a recovery takes the grace of the protected away",
        "promises/test_recovery.py::test_a_restart_that_outlasts_a_recovery_takes_nobodys_grace_away",
        (
            LUA + "lib/open.lua",
            "if from >= recovery_at + window then recovery_from = from end",
            "if not recovering() then recovery_from = from end",
        ),
    ),
    mutant(
        "L4",
        "another outage takes away what the one before had given",
        "promises/test_recovery.py::test_another_outage_takes_nothing_from_who_was_given_more_than_the_window",
        (
            LUA + "lib/open.lua",
            "if deadline > former_from and deadline < granted then",
            "if false then",
        ),
    ),
    mutant(
        "L4",
        "deadlines of a clock put back are left in the future",
        "promises/test_recovery.py::test_a_clock_put_back_neither_kills_nor_keeps_the_dead",
        (CHECKER, "if sweep.rebase:", "if sweep.rebase and not sweep.token:"),
    ),
    mutant(
        "L5",
        "the guard never trips",
        "promises/test_guard.py::test_a_mass_death_is_held_within_budget_and_told",
        (
            LUA + "lib/guard.lua",
            "elseif overdue > 0 and not few then",
            "elseif false then",
        ),
    ),
    mutant(
        "L5",
        "a guard that let go stays open until the old clock's time comes",
        "promises/test_guard.py::test_after_a_clock_put_back_it_holds_again_in_time",
        (LUA + "lib/guard.lua", "and s.window <= now + guard.width ", ""),
    ),
    mutant(
        "L5",
        "the guard never lets go",
        "promises/test_guard.py::test_the_hold_lasts_no_longer_than_its_maximum",
        (
            LUA + "lib/guard.lua",
            "if now - s.since >= guard.max_hold then",
            "if false then",
        ),
    ),
    mutant(
        "L5",
        "the guard forgets what it has flipped",
        "promises/test_guard.py::test_deaths_trickling_in_trip_it_too",
        (
            LUA + "lib/guard.lua",
            "local would = recent + overdue",
            "local would = overdue",
        ),
    ),
    mutant(
        "L5",
        "a flip that is repeated counts the dead twice",
        "promises/test_guard.py::test_a_flip_that_is_repeated_counts_once",
        (
            LUA + "flip.lua",
            "math.max(judged[2] - (past[scope] or 0), 0)",
            "judged[2]",
        ),
    ),
    mutant(
        "L5",
        "reads pretend instead of saying protected",
        "promises/test_guard.py::test_a_mass_death_is_held_within_budget_and_told",
        (
            LUA + "read.lua",
            "or held['*'] or held[string.match(identity, '^[^:]*')] then",
            "then",
        ),
    ),
    mutant(
        "L6",
        "the unhealthy are forgotten at once",
        "promises/test_forgetting.py::test_the_unhealthy_stay_listed_until_their_time_comes",
        (LUA + "sweep.lua", "string.format('%d', now - after)", "now_text"),
        (LUA + "forget.lua", "now - tonumber(since) >= tonumber(ARGV[6])", "true"),
    ),
    mutant(
        "L6",
        "a page of the forgotten waits for the next tick",
        "promises/test_forgetting.py::test_many_are_forgotten_without_waiting_for_ticks",
        (CHECKER, "if len(sweep.forget) >= FORGET_PAGE:", "if False:"),
    ),
    mutant(
        "L6",
        "a forgotten model leaves its counters behind",
        "promises/test_guard.py::test_its_records_go_with_the_models",
        (LUA + "lib/remove.lua", "redis.call('HDEL', keys.tally, model)", ""),
    ),
    mutant(
        "L4",
        "each caller has its own idea of a silence",
        "promises/test_recovery.py::test_the_pace_of_others_is_no_silence_to_a_hasty_client",
        (LUA + "lib/open.lua", "tonumber(meta[13] or own_gap)", "tonumber(own_gap)"),
    ),
]

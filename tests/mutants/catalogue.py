"""Promise by promise: the lines to break, and the test that must notice."""

from __future__ import annotations

from dataclasses import dataclass

LUA = "redis_registry/store/lua/"


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


def mutant(promise: str, what: str, test: str, *edits: tuple[str, str, str]) -> Mutant:
    """A mutant, written short."""
    return Mutant(promise, what, f"tests/{test}", tuple(Edit(*edit) for edit in edits))


CALLS = "redis_registry/store/calls.py"
WRITERS = "redis_registry/store/writers.py"
REPLIES = "redis_registry/store/replies.py"
CHECKER = "redis_registry/roles/checker.py"
EXECUTOR = "redis_registry/store/executor.py"
TAIL = "redis_registry/roles/following/tail.py"
SELECTION = "redis_registry/selection/"

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
            "gap, window, events_kept =",
            "gap, window, events_kept, host =",
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
        "L3",
        "a read believes the flag",
        "promises/test_liveness.py::test_a_read_judges_the_deadline_itself",
        (LUA + "read.lua", "  return 'overdue'\nend", "  return '1'\nend"),
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
            "if not epoch or meta[3] ~= run then",
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
        "reads pretend instead of saying protected",
        "promises/test_guard.py::test_a_mass_death_is_held_within_budget_and_told",
        (LUA + "read.lua", "or held['*'] or held[model] then", "then"),
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
        "a forgotten model leaves its counters behind",
        "promises/test_guard.py::test_its_records_go_with_the_models",
        (LUA + "lib/remove.lua", "redis.call('HDEL', keys.tally, model)", ""),
    ),
    mutant(
        "L7",
        "the last one that can work is ejected",
        "promises/test_outliers.py::test_the_last_that_can_work_stays",
        (
            LUA + "lib/out.lua",
            " or not others_serve(model, identity, known) then",
            " then",
        ),
    ),
    mutant(
        "L7",
        "any share of a model is ejected",
        "promises/test_outliers.py::test_at_most_a_share_of_a_model_is_out",
        (LUA + "lib/out.lua", "if known.count >= known.most or not", "if not"),
    ),
    mutant(
        "L7",
        "the dead take up the share that may be out",
        "promises/test_outliers.py::test_the_dead_among_them_leave_room_for_others",
        (LUA + "lib/out.lua", "== '1|' and keeps(record[2]) then", "~= nil then"),
    ),
    mutant(
        "L7",
        "failures of an old life count against the new one",
        "promises/test_outliers.py::test_a_late_failure_of_the_old_life_changes_nothing",
        (
            LUA + "outcome.lua",
            "local stands = standing(inc, record)",
            "local stands = 'current'",
        ),
    ),
    mutant(
        "L7",
        "a report whose answer was lost counts twice",
        "promises/test_outliers.py::test_a_report_whose_answer_was_lost_counts_once",
        (LUA + "outcome.lua", "  if fresh then", "  if true then"),
    ),
    mutant(
        "L7",
        "the time out does not grow",
        "promises/test_outliers.py::test_time_out_doubles_up_to_the_longest_and_starts_anew_after_a_while",
        (LUA + "outcome.lua", "2 ^ math.min(times - 1, 30)", "1"),
    ),
    mutant(
        "L7",
        "everybody who asks gets the probe",
        "promises/test_outliers.py::test_exactly_one_of_many_gets_the_probe",
        (
            LUA + "claim_probe.lua",
            "if not till or tonumber(till) > now or",
            "if not till or",
        ),
    ),
    mutant(
        "L7",
        "a probe is lost with the process that claimed it",
        "promises/test_outliers.py::test_the_probe_of_a_killed_process_goes_to_another",
        (LUA + "claim_probe.lua", "now + tonumber(ARGV[6])", "now + 1e12"),
    ),
    mutant(
        "L7",
        "a failure of long ago ends the probe",
        "promises/test_outliers.py::test_only_the_claimer_can_fail_the_probe",
        (
            LUA + "outcome.lua",
            "string.match(claim, '^[^-]+') == claimer then",
            "claim ~= '' then",
        ),
    ),
    mutant(
        "L7",
        "select sends work to whoever is half open",
        "promises/test_outliers.py::test_select_sends_one_probe_and_success_brings_it_back",
        (
            "redis_registry/store/outliers.py",
            "due is not None and (yield from self.claim_probe(due))",
            "due is not None",
        ),
    ),
    mutant(
        "L7",
        "successes are not told",
        "promises/test_outliers.py::test_closing_tells_what_was_counted",
        ("redis_registry/registry/outcomes.py", "await reporter.aclose()", "pass"),
    ),
    mutant(
        "L8",
        "who comes and goes gets work each time",
        "promises/test_flapping.py::test_the_third_return_in_a_row_is_held_out",
        (LUA + "lib/out.lua", "  if penalty < suppress then", "  if true then"),
    ),
    mutant(
        "L8",
        "the last one is held out for flapping",
        "promises/test_flapping.py::test_never_the_last_one",
        (
            LUA + "lib/out.lua",
            " or not others_serve(model, identity, known) then",
            " then",
        ),
    ),
    mutant(
        "L8",
        "who flapped is held out for ever",
        "promises/test_flapping.py::test_it_ends_by_itself",
        (
            LUA + "read.lua",
            "  if tonumber(till) > now then return out end",
            "  if till then return out end",
        ),
    ),
    mutant(
        "L8",
        "a penalty never decays",
        "promises/test_flapping.py::test_a_penalty_decays",
        (LUA + "lib/out.lua", "math.max(now - since, 0)", "0"),
    ),
    mutant(
        "L8",
        "a goodbye is a flap",
        "promises/test_flapping.py::test_a_goodbye_is_no_flap",
        (LUA + "register.lua", "(old.health == 'x' or", "(old.health ~= '1' or"),
    ),
    mutant(
        "L8",
        "an outage of the registry is a flap of all",
        "promises/test_flapping.py::test_a_return_while_the_registry_recovers_is_no_flap",
        (LUA + "lib/out.lua", "not suppress or recovering()", "not suppress"),
    ),
    mutant(
        "L8",
        "a mass expiry is a flap of all",
        "promises/test_flapping.py::test_a_mass_expiry_that_the_guard_has_seen_is_no_flap",
        (LUA + "lib/out.lua", "if held[1] or held[2] then return false end", ""),
    ),
    mutant(
        "W1",
        "a heartbeat creates half a record",
        "promises/test_state_machine.py::test_scripts_and_model_agree",
        (LUA + "heartbeat.lua", "'XX', 'CH', unpack", "'CH', unpack"),
    ),
    mutant(
        "W1",
        "deregistering leaves the deadline",
        "promises/test_state_machine.py::test_scripts_and_model_agree",
        (
            LUA + "deregister.lua",
            "-redis.call('ZREM', keys.deadlines, member) }",
            "0 }",
        ),
    ),
    mutant(
        "W1",
        "types are not checked before the first write",
        "promises/test_faults.py::test_a_key_of_another_type_is_refused_before_any_change",
        (
            LUA + "register.lua",
            "for _, key in ipairs({ MODELS, INDEX, DEADLINES, DOWN }) do redis.call('ZCARD', key) end",
            "",
        ),
    ),
    mutant(
        "W2",
        "an older incarnation's heartbeat is taken",
        "registry/test_semantics.py::test_an_older_incarnation_changes_nothing",
        (
            LUA + "revive.lua",
            "elseif standing(inc, record) ~= 'current' then",
            "elseif false then",
        ),
    ),
    mutant(
        "W2",
        "an older incarnation registers over a newer one",
        "promises/test_incarnations.py::test_the_newest_incarnation_is_what_remains",
        (
            LUA + "register.lua",
            "standing(record.inc, old) == 'older' then",
            "standing(record.inc, old) == 'none' then",
        ),
    ),
    mutant(
        "W2",
        "a late heartbeat brings back a worker that said goodbye",
        "promises/test_incarnations.py::test_goodbye_is_final_for_the_life_that_said_it",
        (
            LUA + "lib/record.lua",
            "(inc == record.inc and record.health ~= 'g')",
            "inc == record.inc",
        ),
    ),
    mutant(
        "W2",
        "an older incarnation says whether the newer one is ready",
        "promises/test_incarnations.py::test_what_a_superseded_life_says_changes_nothing_and_is_answered",
        (
            LUA + "ready.lua",
            "if stands ~= 'current' then",
            "if stands == 'newer' then",
        ),
    ),
    mutant(
        "W2",
        "a newer incarnation whose registration was lost is called superseded",
        "promises/test_incarnations.py::test_a_newer_life_whose_registration_was_lost_is_not_called_superseded",
        (
            LUA + "revive.lua",
            "== 'newer' and 'unknown' or 'superseded'",
            "and 'superseded'",
        ),
    ),
    mutant(
        "W2",
        "a superseded process goes on claiming the address",
        "workers/test_superseded.py::test_the_newer_life_takes_over_and_the_older_one_learns_it",
        (
            "redis_registry/roles/sending/heartbeater.py",
            "        life.superseded = True",
            "        return",
        ),
    ),
    mutant(
        "W3",
        "the heartbeat of an unknown instance is lost",
        "registry/test_semantics.py::test_a_heartbeat_of_an_unknown_instance_registers_it_whole",
        (WRITERS, "unknown.append(place)", "pass"),
    ),
    mutant(
        "W3",
        "a bare heartbeat by HTTP makes a record",
        "http/test_workers.py::test_an_unknown_one_must_register_and_leaves_no_half_record",
        ("redis_registry/http/workers.py", "whole=False", "whole=True"),
    ),
    mutant(
        "W4",
        "colons in names are not escaped",
        "registry/test_names.py::test_hostile_names_round_trip_and_stay_apart",
        ("redis_registry/wire/keys.py", r"\x20%:|{}\x7f]", r"\x20%|{}\x7f]"),
    ),
    mutant(
        "W5",
        "Redis takes the writes of any term",
        "promises/test_lease.py::test_writes_of_an_older_term_are_refused",
        (
            LUA + "lib/fence.lua",
            "if epoch ~= ARGV[5] or lease[1] ~= ARGV[3] or lease[2] ~= ARGV[4] then",
            "if not lease then",
        ),
    ),
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
            "local forced = string.sub(ARGV[5 + i], -2) == ':f'",
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
    mutant(
        "R1",
        "a flip writes no event",
        "promises/test_liveness.py::test_a_sweep_flips_exactly_the_overdue",
        (
            LUA + "flip.lua",
            "rev = rev + 1\n      local id = format('%d', rev)",
            "local id = format('%d', rev)",
        ),
    ),
    mutant(
        "R1",
        "registering again is an event though nothing changed",
        "registry/test_events.py::test_the_life_of_an_instance_is_told_change_by_change",
        (
            LUA + "register.lua",
            "elseif record.spec ~= old.spec or record.timeout ~= old.timeout",
            "elseif true or record.spec ~= old.spec",
        ),
    ),
    mutant(
        "R2",
        "a gap in the revisions is passed over",
        "following/test_chaos.py::test_view_and_watch_are_true_after_cuts_restart_failover_and_trim",
        (TAIL, "elif place.revision != here.revision + 1:", "elif not place.epoch:"),
    ),
    mutant(
        "R2",
        "changes that can't be read any more are waited for",
        "following/test_watch.py::test_events_that_are_trimmed_before_they_were_read_are_a_resync",
        (TAIL, "if here.revision < revision:", "if here.revision < 0:"),
    ),
    mutant(
        "R2",
        "a flushed Redis is taken for the one before",
        "following/test_watch.py::test_a_flush_under_a_running_watch_is_a_resync",
        (
            TAIL,
            "elif here.epoch != found.epoch or here.revision > found.revision:",
            "elif not found.epoch:",
        ),
    ),
    mutant(
        "R2",
        "a slow consumer gets an ever longer queue",
        "following/test_watch.py::test_a_slow_consumer_is_told_and_gets_a_snapshot",
        (
            "redis_registry/roles/following/watch.py",
            "if len(self._queue) >= self._buffer:",
            "if not self._begun:",
        ),
    ),
    mutant(
        "R2",
        "a watch resumes where events are gone",
        "following/test_watch.py::test_a_position_that_was_trimmed_gets_a_named_resync",
        (
            "redis_registry/roles/following/watch.py",
            "if entries and entries[0].revision == after + 1:",
            "if entries:",
        ),
    ),
    mutant(
        "R3",
        "an old page overwrites a newer change",
        "following/test_mirror.py::test_a_mirror_read_while_everything_changes_is_true_in_the_end",
        (
            "redis_registry/core/mirror.py",
            "if touched <= page.revision:",
            "if page.rows:",
        ),
    ),
    mutant(
        "R3",
        "a view does not see deadlines pass",
        "following/test_view.py::test_one_that_falls_silent_leaves_at_its_timeout_without_any_checker",
        (
            "redis_registry/roles/following/follower.py",
            "if partition in self._homes and (before or overdue.members):",
            "if before and not overdue.members:",
        ),
    ),
    mutant(
        "R4",
        "an emptied Redis empties the views",
        "following/test_view.py::test_a_flushed_redis_does_not_empty_it",
        (
            "redis_registry/roles/following/follower.py",
            "keep=keep_secs > 0",
            "keep=False",
        ),
    ),
    mutant(
        "R4",
        "removed before a restart, kept after it",
        "following/test_view.py::test_what_was_removed_while_nobody_listened_is_not_kept_after_a_restart",
        (
            "redis_registry/roles/following/reading.py",
            "gone.add(identity)",
            "gone.discard(identity)",
        ),
    ),
    mutant(
        "R5",
        "who is starting and was disabled is called starting",
        "selection/test_eligibility.py::test_every_reason_is_the_primary_one_exactly_once_and_in_order",
        (
            SELECTION + "eligibility.py",
            "if not instance.enabled:",
            "if not instance.enabled and instance.readiness is _READY:",
        ),
    ),
    mutant(
        "R5",
        "one that said goodbye is told like one that fell silent",
        "registry/test_explain.py::test_every_state_has_one_reason_and_a_way_out",
        (
            "redis_registry/core/because.py",
            'if case.marked.health == "g":',
            "if not case.marked.health:",
        ),
    ),
    mutant(
        "R5",
        "the instances that an alias hides are said to receive work",
        "registry/test_explain.py::test_every_state_has_one_reason_and_a_way_out",
        (
            "redis_registry/core/explaining.py",
            "if found.alias is None or found.alias.alias != found.model_name:",
            "if found.alias is None or found.alias:",
        ),
    ),
    mutant(
        "R5",
        "the override that lost is blamed",
        "registry/test_explain.py::test_of_several_overrides_the_one_that_decides_is_named",
        (
            "redis_registry/core/because.py",
            "return found[-1] if found else None",
            "return found[0] if found else None",
        ),
    ),
    mutant(
        "R6",
        "weight 0 takes work",
        "selection/test_policies.py::test_random_knows_no_weight_but_0",
        (SELECTION + "eligibility.py", "if instance.weight == 0:", "if False:"),
    ),
    mutant(
        "R6",
        "a model's last instances are held out",
        "selection/test_eligibility.py::test_a_models_last_instances_are_not_held_out",
        (
            SELECTION + "eligibility.py",
            "if chosen:\n        return chosen",
            "return chosen",
        ),
    ),
    mutant(
        "R6",
        "points on the circle depend on who else is there",
        "selection/test_hashing.py::test_one_that_goes_takes_only_its_own_keys_along",
        (SELECTION + "hashing.py", "_POINTS(digests[place])", "_POINTS(digests[rank])"),
    ),
    mutant(
        "R6",
        "a heavy instance further on is not looked for",
        "selection/test_hashing.py::test_the_circle_is_searched_as_far_as_the_best_score_of_all",
        (SELECTION + "hashing.py", "while gap < best and", "while False and"),
    ),
    mutant(
        "R6",
        "loads have no bound",
        "selection/test_hashing.py::test_nobody_has_more_than_its_share_and_the_spare",
        (SELECTION + "hashing.py", "if self._has_room(place):", "if True:"),
    ),
    mutant(
        "R6",
        "a load that shrank is found late",
        "selection/test_loads.py::test_least_loaded_is_the_least_loaded_whatever_happens_between",
        (SELECTION + "loads.py", "if by < 0 and", "if by > 0 and"),
    ),
    mutant(
        "R6",
        "zones that have only held out instances keep their clients",
        "selection/test_chooser.py::test_zones_spill_over_in_order",
        (
            SELECTION + "candidates.py",
            "for instance in candidates.able if instance.zone == zone]",
            "for instance in candidates.instances if instance.zone == zone]",
        ),
    ),
    mutant(
        "R7",
        "a repeated call reserves a second time",
        "promises/test_reserve.py::test_a_repeated_call_after_a_lost_reply_counts_once",
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
        "promises/test_reserve.py::test_what_a_killed_process_held_is_back_within_its_lease",
        (
            LUA + "lib/flights.lua",
            "lease_of(first[1])) > now",
            "lease_of(first[1])) > 0",
        ),
    ),
    mutant(
        "R7",
        "a living holder's lease is not renewed",
        "promises/test_reserve.py::test_what_a_killed_process_held_is_back_within_its_lease",
        (
            "redis_registry/roles/holder.py",
            "            for home in self._by_home():\n                self._renew(home)\n",
            "",
        ),
    ),
    mutant(
        "R7",
        "a paused holder believes that it still has its places",
        "promises/test_reserve.py::test_a_process_that_was_paused_is_told_and_counted_again",
        ("redis_registry/roles/holder.py", "made.lost = True", "pass"),
    ),
    mutant(
        "R7",
        "a cancelled attempt is forgotten instead of given back",
        "promises/test_reserve.py::test_cancelling_anywhere_leaves_nothing_counted",
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
    mutant(
        "S1",
        "the checker dies of what it doesn't know",
        "promises/test_lease.py::test_a_checker_survives_every_error_and_says_so",
        (
            CHECKER,
            """except Exception as error:  # noqa: BLE001  promise S1
                self._terms.pop(partition, None)""",
            """except RegistryError as error:
                self._terms.pop(partition, None)""",
        ),
    ),
    mutant(
        "S2",
        "the driver's exceptions leak",
        "promises/test_faults.py::test_a_wrong_password_is_tried_once_and_never_shown",
        (
            "redis_registry/store/retrying.py",
            "raise translate(error, call.name, self.where) from error",
            "raise error",
        ),
    ),
    mutant(
        "S3",
        "one loop's connections are used on another",
        "unit/test_executor.py::test_it_is_built_before_any_loop_and_used_from_two",
        (
            EXECUTOR,
            "self._lanes.pop(asyncio.get_running_loop(), {})",
            "dict[str, _Lane]()",
        ),
        (
            EXECUTOR,
            "lanes = self._lanes.get(loop)",
            "lanes = next(iter(self._lanes.values()), None)",
        ),
    ),
    mutant(
        "S4",
        "records of another format are guessed at",
        "promises/test_faults.py::test_records_of_another_format_are_refused_by_name",
        (
            LUA + "lib/open.lua",
            "if meta[1] and meta[1] ~= FORMAT then",
            "if false then",
        ),
    ),
]

"""L7 and L8: who fails its callers, and who comes and goes."""

from __future__ import annotations

from tests.mutants.catalogue.mutant import LUA, mutant

MUTANTS = [
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
        "promises/test_outliers_reports.py::test_a_report_whose_answer_was_lost_counts_once",
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
        "promises/test_outliers_probes.py::test_exactly_one_of_many_gets_the_probe",
        (
            LUA + "claim_probe.lua",
            "if not till or tonumber(till) > now or",
            "if not till or",
        ),
    ),
    mutant(
        "L7",
        "a probe is lost with the process that claimed it",
        "promises/test_outliers_probes.py::test_the_probe_of_a_killed_process_goes_to_another",
        (LUA + "claim_probe.lua", "now + tonumber(ARGV[6])", "now + 1e12"),
    ),
    mutant(
        "L7",
        "a failure of long ago ends the probe",
        "promises/test_outliers_probes.py::test_only_the_claimer_can_fail_the_probe",
        (
            LUA + "outcome.lua",
            "string.match(claim, '^[^-]+') == claimer then",
            "claim ~= '' then",
        ),
    ),
    mutant(
        "L7",
        "select sends work to whoever is half open",
        "promises/test_outliers_probes.py::test_select_sends_one_probe_and_success_brings_it_back",
        (
            "redis_registry/store/outliers.py",
            "due is not None and (yield from self.claim_probe(due))",
            "due is not None",
        ),
    ),
    mutant(
        "L7",
        "successes are not told",
        "promises/test_outliers_reports.py::test_closing_tells_what_was_counted",
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
]

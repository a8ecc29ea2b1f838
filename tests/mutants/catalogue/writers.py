"""W1 to W5: whole records, lives, names, and the fenced checker."""

from __future__ import annotations

from tests.mutants.catalogue.mutant import LUA, WRITERS, mutant

MUTANTS = [
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
            "for _, key in ipairs({ MODELS, INDEX, DEADLINES, DOWN, SERVED }) do redis.call('ZCARD', key) end",
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
        "what was so already does not count as said",
        "promises/test_incarnations.py::test_what_was_said_before_something_that_was_so_already_is_late",
        (LUA + "ready.lua", "if order > known then", "if false then"),
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
        "a readiness, or what a worker serves, is lost in a crash or failover and never said again",
        "workers/test_registry_away.py::test_what_a_crash_of_redis_has_lost_is_said_again",
        ("redis_registry/store/writers.py", "        if again:", "        if None:"),
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
]

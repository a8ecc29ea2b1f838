"""R8: names that instances serve beside their model's."""

from __future__ import annotations

from tests.mutants.catalogue.mutant import LUA, mutant

SERVED = "registry/test_served.py::"
MIRROR = "redis_registry/core/mirror.py"

MUTANTS = [
    mutant(
        "R8",
        "a name that is served no more goes on finding it",
        SERVED + "test_names_come_and_go_with_registrations_and_never_with_heartbeats",
        (
            LUA + "lib/served.lua",
            "if #gone > 0 then redis.call('ZREM', served, unpack(gone)) end",
            "",
        ),
    ),
    mutant(
        "R8",
        "what is removed is still found by its names",
        SERVED + "test_names_come_and_go_with_registrations_and_never_with_heartbeats",
        (
            LUA + "lib/remove.lua",
            "if names then save_serves(keys.served, keys.instance, identity, names, '') end",
            "",
        ),
    ),
    mutant(
        "R8",
        "a heartbeat that knows no names takes them away",
        SERVED + "test_names_come_and_go_with_registrations_and_never_with_heartbeats",
        (
            LUA + "register.lua",
            "record.spec == ARGV[11] and ARGV[18] or served",
            "ARGV[18]",
        ),
    ),
    mutant(
        "R8",
        "only the partition of the name is asked",
        SERVED + "test_of_several_partitions_all_are_asked",
        (
            "redis_registry/store/readers.py",
            "return model | dict.fromkeys(range(partitions), SERVED) | model",
            "return model",
        ),
    ),
    mutant(
        "R8",
        "the page that ends with the model is the last",
        SERVED + "test_pages_go_on_from_the_model_to_those_that_serve_it_too",
        (
            LUA + "read.lua",
            "if #found > left then\n",
            "if left > 0 and #found > left then\n",
        ),
    ),
    mutant(
        "R8",
        "a sample shows the same neighbours again and again",
        SERVED + "test_a_select_among_many_takes_each_as_often",
        (
            LUA + "read.lua",
            "local place, serving = now % others, {}",
            "local place, serving = 0, {}",
        ),
    ),
    mutant(
        "R8",
        "a view goes on finding one that has gone",
        "following/test_served.py::test_a_mirror_finds_by_names_what_it_was_told",
        (MIRROR, "self._index(model, row.names, ())", "pass"),
    ),
    mutant(
        "R8",
        "a resync keeps the names of before",
        "following/test_served.py::test_a_mirror_finds_by_names_what_it_was_told",
        (MIRROR, "self.served = served\n", "self.served |= served\n"),
    ),
    mutant(
        "R8",
        "a view of a name sees who comes to serve it, and not who stops",
        "following/test_served.py::test_every_name_finds_it_from_the_first_to_the_last",
        (
            MIRROR,
            "if new is None or not self._wants(identity, new):",
            "if new is None:",
        ),
    ),
    mutant(
        "R8",
        "adapters that a worker loads are not told",
        "workers/test_serve.py::test_a_worker_says_what_it_serves_as_adapters_come_and_go",
        (
            "redis_registry/roles/sending/heartbeater.py",
            "if life.written == life.instance.serves:",
            "if True:",
        ),
    ),
]

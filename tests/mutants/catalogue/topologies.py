"""S5: Sentinel and Cluster."""

from __future__ import annotations

from tests.mutants.catalogue.mutant import LUA, TAIL, mutant

CLUSTER = "redis_registry/store/driver/cluster.py"
DEATH = "topologies/test_clusters.py::test_callers_and_views_come_through_the_death_of_a_primary"
MOVES = "topologies/test_clusters.py::test_every_call_succeeds_while_slots_move_to_a_new_node"

MUTANTS = [
    mutant(
        "S5",
        "a demoted master keeps its connections",
        "topologies/test_sentinels.py::test_a_master_that_was_demoted_is_left",
        (
            "redis_registry/store/driver/pipeline.py",
            "            if demoted:  # the master is somebody else now: ask Sentinel, or the Cluster\n",
            "            if False:\n",
        ),
    ),
    mutant(
        "S5",
        "the map of slots is kept when a node is dead",
        DEATH,
        (
            CLUSTER,
            "        except _LOST as error:\n            slots.stale = True\n",
            "        except _LOST as error:\n",
        ),
    ),
    mutant(
        "S5",
        "a call waits for every silent node in turn",
        "unit/test_topology.py::test_a_silent_node_takes_a_caller_s_time_once_and_is_asked_last",
        (
            CLUSTER,
            "            last = error\n            break\n",
            "            last = error\n",
        ),
    ),
    mutant(
        "S5",
        "a slot that is half moved is looked for at its old place",
        "topologies/test_clusters.py::test_a_key_on_its_way_is_found_at_its_new_place",
        (
            CLUSTER,
            "            host, asking = _redirect(error, host), True\n",
            "            raise Disconnected('elsewhere') from error\n",
        ),
    ),
    mutant(
        "S5",
        "a refusal while a slot moves is final",
        MOVES,
        (
            "redis_registry/store/faults.py",
            "(driver.BusyLoadingError, *_FOR_NOW_TOO),",
            "(driver.BusyLoadingError, driver.ReadOnlyError),",
        ),
    ),
    mutant(
        "S5",
        "the first controller keeps all partitions",
        "promises/test_lease.py::test_controllers_share_the_partitions",
        (
            "redis_registry/roles/checker.py",
            "return calm and time.monotonic() >= self._pass_on_at",
            "return False",
        ),
    ),
    mutant(
        "S5",
        "one partition's news wait for another's node",
        DEATH,
        (
            TAIL,
            "each = 1 if self._executor.spread else partitions",
            "each = partitions",
        ),
    ),
    mutant(
        "S5",
        "who is promoted again with less goes on with its epoch",
        "topologies/test_sentinels.py::test_one_that_is_promoted_again_with_less_begins_a_new_epoch",
        (LUA + "lib/open.lua", "meta[3] ~= run or again then", "meta[3] ~= run then"),
    ),
]

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
    mutant(
        "S5",
        "each thread asks the silent nodes for the map anew",
        "unit/test_topology.py::test_threads_that_wait_for_the_map_fail_with_who_reads_it",
        (CLUSTER, "if self._in_vain not in {None, before}:", "if False:"),
    ),
    mutant(
        "S5",
        "the same silent nodes are asked for the map again and again",
        "unit/test_topology.py::test_where_all_were_silent_each_has_its_turn_and_the_first_ones_too",
        (
            "redis_registry/store/driver/slots.py",
            "self._silent.get(host, 0.0)",
            "float(host in self._silent)",
        ),
    ),
    mutant(
        "S5",
        "the client of a node that left is closed under a call",
        "unit/test_nodes.py::test_a_client_goes_with_its_last_call_and_stays_when_its_node_is_back",
        (
            "redis_registry/store/driver/nodes.py",
            "if node.left and not node.users",
            "if node.left",
        ),
    ),
    mutant(
        "S5",
        "the wait for news takes turns",
        "topologies/test_turns.py::test_many_partitions_do_not_starve_each_others_wait_for_news",
        (
            "redis_registry/store/executor.py",
            "sys.maxsize if waits else settings.max_connections",
            "settings.max_connections",
        ),
    ),
    mutant(
        "S5",
        "all nodes share their turns",
        "topologies/test_turns.py::test_those_who_wait_for_a_dead_node_leave_the_turns_of_the_living",
        (
            "redis_registry/store/executor.py",
            'server_of(self.client, call.keys[0]) if self._spread else ""',
            '""',
        ),
    ),
    mutant(
        "S5",
        "who waits for a dead node keeps the turns of the living",
        "topologies/test_clusters.py::test_many_partitions_on_a_node_that_is_away_cost_the_others_neither_beats_nor_time",
        (
            "redis_registry/store/executor.py",
            "async with Bound(until), turns:\n                        raw =",
            "async with Bound(until):\n                        await turns.acquire()\n                        raw =",
        ),
        (
            "redis_registry/store/executor.py",
            "                policy.fine(call)\n                return",
            "                policy.fine(call)\n                if turns is not None:\n                    turns.release()\n                return",
        ),
    ),
    mutant(
        "S5",
        "a refusal of the Sentinels is waited out",
        "topologies/test_sentinels.py::test_sentinels_that_want_other_credentials_are_told_from_the_master_at_once",
        (
            "redis_registry/store/driver/sentinels.py",
            "return SentinelsRefuse(",
            "return NoMaster(",
        ),
    ),
]

"""R5 and R6: why one gets no work, and who gets it."""

from __future__ import annotations

from tests.mutants.catalogue.mutant import SELECTION, mutant

MUTANTS = [
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
        "registry/test_explain_golden.py::test_every_state_has_one_reason_and_a_way_out",
        (
            "redis_registry/core/because.py",
            'if case.marked.health == "g":',
            "if not case.marked.health:",
        ),
    ),
    mutant(
        "R5",
        "the instances that an alias hides are said to receive work",
        "registry/test_explain_golden.py::test_every_state_has_one_reason_and_a_way_out",
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
]

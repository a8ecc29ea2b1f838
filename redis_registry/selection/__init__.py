"""Who may receive new work, and which of them: pure functions and small objects, no I/O."""

from redis_registry.selection.candidates import Candidates
from redis_registry.selection.chooser import (
    POLICIES,
    Canary,
    Chooser,
    HowToChoose,
    choose,
)
from redis_registry.selection.eligibility import Reason, able, pick, selectable, why_not
from redis_registry.selection.hashing import ConsistentHash, Rendezvous
from redis_registry.selection.keys import Key
from redis_registry.selection.labels import Labels, Requirement
from redis_registry.selection.loads import LeastLoaded, PowerOfTwo
from redis_registry.selection.outstanding import Outstanding
from redis_registry.selection.policy import Pick, Policy, Random, RoundRobin, Weighted
from redis_registry.selection.probing import awaits_probe, draw_probe
from redis_registry.selection.subset import subset

__all__ = [
    "POLICIES",
    "Canary",
    "Candidates",
    "Chooser",
    "ConsistentHash",
    "HowToChoose",
    "Key",
    "Labels",
    "LeastLoaded",
    "Outstanding",
    "Pick",
    "Policy",
    "PowerOfTwo",
    "Random",
    "Reason",
    "Rendezvous",
    "Requirement",
    "RoundRobin",
    "Weighted",
    "able",
    "awaits_probe",
    "choose",
    "draw_probe",
    "pick",
    "selectable",
    "subset",
    "why_not",
]

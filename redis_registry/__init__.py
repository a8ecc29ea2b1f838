"""redis_registry: the registry for model workers that tells the truth."""

from importlib.metadata import version as _version

from redis_registry import errors
from redis_registry.core.address import own_address
from redis_registry.core.events import Event, Kind
from redis_registry.core.explanation import (
    Explanation,
    ModelExplanation,
    Penalties,
    Protection,
    Transition,
)
from redis_registry.core.rows import Snapshot
from redis_registry.errors import (
    AccessDenied,
    AgentError,
    ConfigurationError,
    EmbeddedServerError,
    FormatMismatch,
    InvalidInstance,
    InvalidOverride,
    KeyConflict,
    LeaseLost,
    LimitReached,
    NoneAvailable,
    NotAvailableHere,
    OutOfMemory,
    PartitionMismatch,
    PoolExhausted,
    RegistryClosed,
    RegistryError,
    RegistryRefused,
    RegistryUnavailable,
    Superseded,
)
from redis_registry.model import (
    Beat,
    Health,
    HeldOut,
    Identity,
    Load,
    ModelInstance,
    Readiness,
    new_incarnation,
)
from redis_registry.registry import RedisModelRegistry
from redis_registry.remote_registry import RemoteRegistry, SyncRemoteRegistry
from redis_registry.roles.checker_status import CheckerStatus
from redis_registry.roles.following.sync import SyncView, SyncWatch
from redis_registry.roles.following.view import View
from redis_registry.roles.following.watch import Watch
from redis_registry.roles.holder import Reservation
from redis_registry.selection import (
    Canary,
    Candidates,
    Chooser,
    ConsistentHash,
    HowToChoose,
    Key,
    Labels,
    LeastLoaded,
    Outstanding,
    Pick,
    Policy,
    PowerOfTwo,
    Random,
    Reason,
    Rendezvous,
    Requirement,
    RoundRobin,
    Weighted,
    choose,
    selectable,
    subset,
    why_not,
)
from redis_registry.settings import GuardSettings, OutlierSettings, RegistrySettings
from redis_registry.store.outliers import Tally
from redis_registry.store.replies import Hold, Outcome, Status, Verdict
from redis_registry.sync_registry import SyncModelRegistry
from redis_registry.telemetry import Telemetry
from redis_registry.wire.aliases import Alias
from redis_registry.wire.overrides import Override, Selector

__version__ = _version("redis-registry")

__all__ = [
    "AccessDenied",
    "AgentError",
    "Alias",
    "Beat",
    "Canary",
    "Candidates",
    "CheckerStatus",
    "Chooser",
    "ConfigurationError",
    "ConsistentHash",
    "EmbeddedServerError",
    "Event",
    "Explanation",
    "FormatMismatch",
    "GuardSettings",
    "Health",
    "HeldOut",
    "Hold",
    "HowToChoose",
    "Identity",
    "InvalidInstance",
    "InvalidOverride",
    "Key",
    "KeyConflict",
    "Kind",
    "Labels",
    "LeaseLost",
    "LeastLoaded",
    "LimitReached",
    "Load",
    "ModelExplanation",
    "ModelInstance",
    "NoneAvailable",
    "NotAvailableHere",
    "OutOfMemory",
    "Outcome",
    "OutlierSettings",
    "Outstanding",
    "Override",
    "PartitionMismatch",
    "Penalties",
    "Pick",
    "Policy",
    "PoolExhausted",
    "PowerOfTwo",
    "Protection",
    "Random",
    "Readiness",
    "Reason",
    "RedisModelRegistry",
    "RegistryClosed",
    "RegistryError",
    "RegistryRefused",
    "RegistrySettings",
    "RegistryUnavailable",
    "RemoteRegistry",
    "Rendezvous",
    "Requirement",
    "Reservation",
    "RoundRobin",
    "Selector",
    "Snapshot",
    "Status",
    "Superseded",
    "SyncModelRegistry",
    "SyncRemoteRegistry",
    "SyncView",
    "SyncWatch",
    "Tally",
    "Telemetry",
    "Transition",
    "Verdict",
    "View",
    "Watch",
    "Weighted",
    "choose",
    "errors",
    "new_incarnation",
    "own_address",
    "selectable",
    "subset",
    "why_not",
]

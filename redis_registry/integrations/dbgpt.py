"""DB-GPT on this registry: a true subclass of its ``ModelRegistry``, and a hook for its TOML.

Under ``dbgpt start controller``::

    [[service.model.controller.hooks]]
    path = "redis_registry.integrations.dbgpt.install"
    params = { url = "redis://localhost:6379/0" }

DB-GPT's callers know neither incarnations nor zones: they act on whoever is at the address. Its
times are naive and local; ours are aware, so both directions are translated here.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from typing import Any, Protocol, Self, cast

from redis_registry import (
    ConfigurationError,
    InvalidInstance,
    ModelInstance,
    RedisModelRegistry,
    RegistrySettings,
    SyncModelRegistry,
)

try:
    from dbgpt.model.base import (  # pyright: ignore[reportMissingImports]
        ModelInstance as _DBGPTModelInstance,  # pyright: ignore[reportUnknownVariableType]
    )
    from dbgpt.model.cluster.registry import (  # pyright: ignore[reportMissingImports]
        ModelRegistry,  # pyright: ignore[reportUnknownVariableType]
    )
except ImportError as error:
    msg = (
        f"redis_registry.integrations.dbgpt needs DB-GPT ({error}): "
        "pip install 'redis-registry[dbgpt]' on Python 3.11"
    )
    raise ImportError(msg) from error

__all__ = ["DBGPTInstance", "DBGPTModelRegistry", "install"]

_TAKEN = (
    "model_name",
    "host",
    "port",
    "weight",
    "check_healthy",
    "enabled",
    "prompt_template",
    "remove_from_registry",
)
"""Fields a caller decides; ``healthy`` and ``last_heartbeat`` are the registry's to say."""

_ENVIRONMENT = re.compile(r"\$\{env:([^}:]+)(?::-([^}]*))?\}")

_log = logging.getLogger(__name__)


class DBGPTInstance(Protocol):
    """DB-GPT's ``ModelInstance``, as far as it is read or made here."""

    model_name: str
    host: str
    port: int
    weight: float | None
    check_healthy: bool | None
    healthy: bool | None
    enabled: bool | None
    prompt_template: str | None
    last_heartbeat: datetime | None
    remove_from_registry: bool | None


# DB-GPT has no stubs, and is not there when types are checked.
_make = cast("Callable[..., DBGPTInstance]", _DBGPTModelInstance)


def _ours(instance: DBGPTInstance) -> ModelInstance:
    try:
        fields = {name: getattr(instance, name) for name in _TAKEN}
    except AttributeError as error:
        msg = f"expected DB-GPT's ModelInstance, got {type(instance).__name__}: {instance!r:.60}"
        raise InvalidInstance(msg) from error
    return ModelInstance.of(**fields)


def _listed(found: Iterable[ModelInstance], healthy_only: bool) -> list[DBGPTInstance]:
    """As theirs; of the healthy, DB-GPT chooses any, so the unready are not among them."""
    return [_theirs(item) for item in found if item.ready or not healthy_only]


def _theirs(instance: ModelInstance) -> DBGPTInstance:
    beat = instance.last_heartbeat
    return _make(
        model_name=instance.model_name,
        host=instance.host,
        port=instance.port,
        weight=instance.weight,
        check_healthy=instance.check_healthy,
        healthy=instance.healthy,
        enabled=instance.enabled,
        prompt_template=instance.prompt_template,
        last_heartbeat=beat and beat.astimezone().replace(tzinfo=None),
    )


class DBGPTModelRegistry(ModelRegistry):  # pyright: ignore[reportUntypedBaseClass]
    """DB-GPT's model registry, on Redis.

    It may be built before any event loop exists and used from several loops and threads; the
    checker starts with the first awaited call, or with :meth:`start`.

    Example:
        >>> registry = DBGPTModelRegistry.from_url("redis://localhost:6379/0")
        >>> initialize_controller(registry=registry, controller_params=params)

    Args:
        system_app: DB-GPT's ``SystemApp``, if there is one. Registered in it as a component,
            the registry is started and closed with the application.
        run_checker: Whether this process shares in sweeping; ``False`` for pure readers, such
            as an API server.
        **options: Fields of :class:`~redis_registry.settings.RegistrySettings`; what is not
            given comes from ``REDIS_REGISTRY_*``.

    Raises:
        ConfigurationError: A setting is unknown or not acceptable.
    """

    def __init__(
        self, system_app: Any = None, *, run_checker: bool = True, **options: Any
    ) -> None:
        super().__init__(system_app)  # pyright: ignore[reportUnknownMemberType]
        self.settings = RegistrySettings.of(**options)
        self._registry = RedisModelRegistry(
            settings=self.settings, run_checker=run_checker
        )
        self._sync_registry = SyncModelRegistry(settings=self.settings)

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        system_app: Any = None,
        run_checker: bool = True,
        **options: Any,
    ) -> Self:
        """Build a registry that connects to ``url``; no I/O, no event loop needed.

        Args:
            url: ``redis://``, ``rediss://``, ``unix://``, ``valkey://`` or ``valkeys://``.
            system_app: See the class.
            run_checker: See the class.
            **options: ``namespace``, ``heartbeat_interval_secs``, ``heartbeat_timeout_secs``
                and the other fields of :class:`~redis_registry.settings.RegistrySettings`.

        Raises:
            ConfigurationError: A setting is unknown or not acceptable.
        """
        return cls(system_app, run_checker=run_checker, url=url, **options)

    @property
    def heartbeat_interval_secs(self) -> float:
        """How often the checker sweeps, at the latest."""
        return self.settings.heartbeat_interval_secs

    @property
    def heartbeat_timeout_secs(self) -> float:
        """Silence after which an instance is dead."""
        return self.settings.heartbeat_timeout_secs

    async def start(self) -> None:
        """Start the checker on the running loop, without waiting for the first call.

        Redis need not be there: the checker tries until it is.
        """
        await self._registry.__aenter__()

    async def aclose(self) -> None:
        """Stop the checker, give its leases back and close the connections."""
        self._sync_registry.close()
        await self._registry.aclose()

    async def async_after_start(self) -> None:
        """DB-GPT's hook, when registered as a component: :meth:`start`."""
        await self.start()

    async def async_before_stop(self) -> None:
        """DB-GPT's hook, when registered as a component: :meth:`aclose`."""
        await self.aclose()

    async def register_instance(self, instance: DBGPTInstance) -> bool:
        """Register an instance, or revive the one at its address.

        Of a known one only weight and prompt template are updated; its ``enabled`` and
        ``check_healthy`` stay.

        Returns:
            ``True``.

        Raises:
            InvalidInstance: A field is not acceptable; nothing was stored.
            RegistryUnavailable: Redis did not answer in time.
        """
        return await self._registry.register_instance(_ours(instance))

    async def deregister_instance(self, instance: DBGPTInstance) -> bool:
        """Make an instance unhealthy, or remove it, if ``remove_from_registry`` says so.

        Returns:
            ``True``, also when there is no such instance.

        Raises:
            RegistryUnavailable: Redis did not answer in time.
        """
        return await self._registry.deregister_instance(_ours(instance))

    async def send_heartbeat(self, instance: DBGPTInstance) -> bool:
        """Say that an instance is alive; an unknown one is registered as given.

        Returns:
            ``True``.

        Raises:
            RegistryUnavailable: Redis did not answer in time.
        """
        return await self._registry.send_heartbeat(_ours(instance))

    async def get_all_instances(
        self, model_name: str | None, healthy_only: bool = False
    ) -> list[DBGPTInstance]:
        """All instances of one model, disabled ones included.

        Args:
            model_name: Exact name; ``None`` or empty: of every model.
            healthy_only: Leave out the unhealthy.
        """
        if not model_name:
            return await self.get_all_model_instances(healthy_only)
        found = await self._registry.get_all_instances(model_name, healthy_only)
        return _listed(found, healthy_only)

    def sync_get_all_instances(
        self, model_name: str | None, healthy_only: bool = False
    ) -> list[DBGPTInstance]:
        """As :meth:`get_all_instances`, for threads and for code inside a running loop."""
        if model_name:
            found = self._registry.sync_get_all_instances(model_name, healthy_only)
        else:
            found = self._sync_registry.get_all_model_instances(healthy_only)
        return _listed(found, healthy_only)

    async def get_all_model_instances(
        self, healthy_only: bool = False
    ) -> list[DBGPTInstance]:
        """All instances of all models."""
        found = await self._registry.get_all_model_instances(healthy_only)
        return _listed(found, healthy_only)

    async def select_one_health_instance(self, model_name: str) -> DBGPTInstance | None:
        """One healthy and enabled instance, uniformly at random; ``None`` if there is none."""
        found = await self._registry.select_one_health_instance(model_name or "")
        return None if found is None else _theirs(found)


def _resolved(value: Any, what: str) -> Any:
    """DB-GPT hands a hook its section before it replaces ``${env:NAME:-default}``."""
    if not isinstance(value, str):
        return value

    def replaced(found: re.Match[str]) -> str:
        name = found[1]
        default: str | None = found[2]
        text = os.environ.get(name, default)
        if text is None:
            msg = f"{what}: environment variable {name} is not set: set it, or write ${{env:{name}:-default}}"
            raise ConfigurationError(msg)
        return text

    return _ENVIRONMENT.sub(replaced, value)


def _options(section: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Settings from the controller's section; what the hook's params say goes first."""
    found = {
        name: section[name]
        for name in ("heartbeat_interval_secs", "heartbeat_timeout_secs")
        if section.get(name) is not None
    }
    return {name: _resolved(value, name) for name, value in {**found, **given}.items()}


def install(config_section: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Put the controller that is about to start on Redis: a hook for DB-GPT's TOML.

    The registry starts and closes with the controller's application. Strings may hold
    ``${env:NAME}`` or ``${env:NAME:-default}``.

    Args:
        config_section: ``[service.model.controller]``; its ``heartbeat_interval_secs`` and
            ``heartbeat_timeout_secs`` count here too.
        **options: The hook's ``params``: ``url`` and the other fields of
            :class:`~redis_registry.settings.RegistrySettings`; what is not given comes from
            ``REDIS_REGISTRY_*``.

    Returns:
        The section, unchanged.

    Raises:
        ConfigurationError: A setting is unknown or not acceptable, or an environment variable
            is not set.
    """
    # Here, so that a pure reader needn't import DB-GPT's whole HTTP side.
    from dbgpt.model.cluster.controller import (  # noqa: PLC0415  # pyright: ignore[reportMissingImports]
        controller as theirs,  # pyright: ignore[reportUnknownVariableType]
    )
    from dbgpt.util.fastapi import (  # noqa: PLC0415  # pyright: ignore[reportMissingImports]
        register_event_handler,  # pyright: ignore[reportUnknownVariableType]
    )

    registry = DBGPTModelRegistry(**_options(config_section, options))
    on = cast(
        "Callable[[Any, str, Callable[[], Awaitable[None]]], None]",
        register_event_handler,
    )
    module = cast("Any", theirs)

    async def start() -> None:
        module.controller.backend = module.LocalModelController(registry=registry)
        await registry.start()
        _log.info(
            "the model registry is Redis",
            extra={"namespace": registry.settings.namespace},
        )

    on(None, "startup", start)
    on(None, "shutdown", registry.aclose)
    return config_section

"""Who speaks for announced instances: a thread of this process, or a process of its own."""

from __future__ import annotations

from redis_registry.errors import ConfigurationError
from redis_registry.roles.heartbeater import Heartbeater
from redis_registry.roles.life import Life
from redis_registry.roles.sender_process import SenderProcess
from redis_registry.settings import RegistrySettings
from redis_registry.store.executor import SyncExecutor
from redis_registry.store.operations import Operations

__all__ = ["Sender", "Senders"]

Sender = Heartbeater | SenderProcess


class Senders:
    """The senders of one registry object; each starts with its first life.

    Args:
        settings: The registry's.
        executor: What the thread uses.
        actor: Who acts, for the events.
    """

    def __init__(
        self, settings: RegistrySettings, executor: SyncExecutor, *, actor: str
    ) -> None:
        # Operations of their own: what they remember is for one thread.
        self._thread = Heartbeater(Operations(settings, actor=actor), executor)
        self._process = SenderProcess(settings, actor=actor)

    @property
    def alive(self) -> bool:
        """Whether any of them runs."""
        return self._thread.alive or self._process.alive

    def of(self, life: Life, url: str | None) -> Sender:
        """The sender that a life asks for.

        Raises:
            ConfigurationError: A process can't use a client that was given to the registry.
        """
        if life.options.sender == "thread":
            return self._thread
        if url is None:
            msg = "sender='process' needs to know where Redis is: build the registry with from_url"
            raise ConfigurationError(msg)
        return self._process

    def stop(self) -> None:
        """Stop them, without goodbye."""
        self._thread.stop()
        self._process.stop()

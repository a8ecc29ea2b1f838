"""Who speaks for announced instances: threads of this process, or a process of its own."""

from __future__ import annotations

from redis_registry.roles.sending.channel import Channel
from redis_registry.roles.sending.heartbeater import Heartbeater
from redis_registry.roles.sending.life import Life
from redis_registry.roles.sending.sender_process import SenderProcess
from redis_registry.roles.sending.threads import Threads

__all__ = ["Sender", "Senders"]

Sender = Heartbeater | SenderProcess


class Senders:
    """The senders of one registry object; each starts with its first life.

    Args:
        channel: What the threads speak through; the process opens the same.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._threads = Threads(channel)
        self._process: SenderProcess | None = None

    @property
    def alive(self) -> bool:
        """Whether any of them runs."""
        process = self._process
        return self._threads.alive or (process is not None and process.alive)

    def of(self, life: Life) -> Sender:
        """The sender that a life asks for.

        Raises:
            ConfigurationError: A process can't use a client that was given to the registry.
        """
        if life.options.sender == "thread":
            return self._threads.of(life.instance)
        if self._process is None:
            self._process = SenderProcess(self._channel.described())
        return self._process

    def stop(self) -> None:
        """Stop them, without goodbye."""
        self._threads.stop()
        if self._process is not None:
            self._process.stop()
        self._channel.close()

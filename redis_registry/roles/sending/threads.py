"""The sending threads of a channel: one, or one for each part of the registry that can be away alone."""

from __future__ import annotations

import threading

from redis_registry.model import ModelInstance
from redis_registry.roles.sending.channel import Channel
from redis_registry.roles.sending.heartbeater import Heartbeater

__all__ = ["Threads"]


class Threads:
    """Gives each instance the thread that speaks for it.

    Of a Cluster each node can be away for itself. A thread that waits for a dead node must not keep
    those silent whose node lives, so each part has a thread of its own.

    Args:
        channel: What they speak through.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._made: dict[Channel, Heartbeater] = {}

    @property
    def alive(self) -> bool:
        """Whether any of them runs."""
        return any(thread.alive for thread in list(self._made.values()))

    def of(self, instance: ModelInstance) -> Heartbeater:
        """The one that speaks for an instance; it starts with its first life."""
        channel = self._channel.part(instance)
        return self._made.setdefault(channel, Heartbeater(channel))

    def wake(self) -> None:
        """Something was said: look at once."""
        for thread in list(self._made.values()):
            thread.wake()

    def stop(self) -> None:
        """Stop them, without goodbye; all at once, for each may be waiting for a node of its own."""
        for thread in [made.stop() for made in list(self._made.values())]:
            if thread is not None and thread is not threading.current_thread():
                thread.join()

"""What both executors do about a failed call: whether, when and how to make it again."""

from __future__ import annotations

import logging
import random
from typing import Any

from redis_registry.settings import RegistrySettings
from redis_registry.store.calls import Call, Command
from redis_registry.store.driver.client import is_fake, server_of
from redis_registry.store.faults import Fault, classify, translate
from redis_registry.store.scripts import Script
from redis_registry.telemetry import Telemetry
from redis_registry.topology import Topology

__all__ = ["Policy", "backoff"]

_log = logging.getLogger(__name__)

BACKOFF_FIRST_SECS = 0.02
BACKOFF_MOST_SECS = 0.5


def backoff(attempt: int) -> float:
    """Full jitter: anything up to 20 ms doubled per attempt, at most 0.5 s."""
    most = min(BACKOFF_MOST_SECS, BACKOFF_FIRST_SECS * 2 ** min(attempt, 10))
    return random.uniform(0, most)  # noqa: S311  not a secret


class Policy:
    """What both executors do about a failure; no I/O.

    Args:
        settings: Where Redis is, timeouts.
        given: A ready client that is used instead.
        telemetry: Who is told of retries.

    Attributes:
        where: The server, for messages.
        spread: Partitions may live on several servers.
        fake: It is fakeredis.
        troubled: Servers whose last call failed.
    """

    def __init__(
        self, settings: RegistrySettings, given: object, telemetry: Telemetry
    ) -> None:
        self.settings = settings
        self.telemetry = telemetry
        self.troubled: set[str] = set()
        self.fake = is_fake(given)
        self._plain: dict[str, Script] = {}
        if given is None:
            topology = Topology.of(settings.url)
            self.where, self.spread = topology.where, topology.kind == "cluster"
        else:
            self.where = "the given client's server"
            self.spread = hasattr(given, "nodes_manager")

    def at(self, client: object, call: Call[Any] | Command[Any]) -> str:
        """The server, for a message: of those behind the URL the one that a call goes to, too."""
        server = server_of(client, call.keys[0])
        return f"{self.where} (this call: {server})" if server else self.where

    def script(self, call: Call[Any]) -> Script:
        """What to run; fakeredis takes no ``#!lua`` line."""
        if not self.fake:
            return call.script
        plain = self._plain.get(call.script.name)
        if plain is None:
            plain = self._plain[call.script.name] = call.script.without_shebang()
        return plain

    def command(self, call: Call[Any] | Command[Any], *, whole: bool) -> list[Any]:
        """The words to send, with the script's text or its digest."""
        if isinstance(call, Command):
            return self.waiting(call)
        script = self.script(call)
        head = ["EVAL", script.text] if whole else ["EVALSHA", script.sha]
        return [*head, len(call.keys), *call.keys, *call.args]

    def waiting(self, command: Command[Any]) -> list[Any]:
        """The words of a command that may wait; fakeredis's waits outlive their cancellation."""
        first, *rest = command.words
        if self.fake or not command.wait_secs:
            return [first, *rest]
        return [first, "BLOCK", max(1, int(command.wait_secs * 1000)), *rest]

    def verdict(
        self,
        error: Exception,
        call: Call[Any] | Command[Any],
        attempt: int,
        left: float,
        client: object,
    ) -> float:
        """How long to wait before the next attempt; raises when there is to be none."""
        fault = classify(error)
        if fault is Fault.NO_SCRIPT:
            return 0.0
        if fault is Fault.FOREIGN:
            raise error
        pause = backoff(attempt)
        if fault is Fault.PERMANENT or left <= pause:
            raise translate(error, call.name, self.at(client, call)) from error
        self.telemetry.count("retries", operation=call.name, fault=fault.value)
        server = self._server_of(call)
        if server not in self.troubled:
            self.troubled.add(server)
            _log.warning(
                "Redis does not answer, trying again",
                extra={
                    "redis": self.at(client, call),
                    "call": call.name,
                    "why": str(error),
                },
            )
        return pause

    def fine(self, call: Call[Any] | Command[Any]) -> None:
        """A call succeeded while there is trouble, perhaps elsewhere."""
        server = self._server_of(call)
        if server in self.troubled:
            self.troubled.discard(server)
            _log.info("Redis answers again", extra={"redis": self.where})

    def _server_of(self, call: Call[Any] | Command[Any]) -> str:
        """What answers or doesn't, as a whole: of a Cluster the node of a partition."""
        return call.keys[0] if self.spread else ""

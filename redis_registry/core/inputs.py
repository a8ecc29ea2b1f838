"""What the front doors accept: checked before anything is sent."""

from __future__ import annotations

import getpass
import os
import secrets
import socket
from collections.abc import Sequence

from redis_registry.errors import InvalidInstance
from redis_registry.model import MAX_MODEL_NAME, Load, ModelInstance

__all__ = ["actor", "author_or_self", "check_beats", "checked", "readable"]


def checked(instance: object) -> ModelInstance:
    """An instance, and nothing else.

    Raises:
        InvalidInstance: It is something else.
    """
    if not isinstance(instance, ModelInstance):
        msg = f"expected a redis_registry.ModelInstance, got {type(instance).__name__}: {instance!r:.60}"
        raise InvalidInstance(msg)
    return instance


def check_beats(instances: Sequence[object], loads: Sequence[Load]) -> None:
    """Instances, and no load or one for each.

    Raises:
        InvalidInstance: They are not.
    """
    for instance in instances:
        checked(instance)
    if loads and len(loads) != len(instances):
        msg = f"loads: give one for each of the {len(instances)} instances, not {len(loads)}"
        raise InvalidInstance(msg)


def readable(model_name: object) -> str | None:
    """The name as stored; ``None`` when nothing of that name can be stored."""
    if not isinstance(model_name, str):
        msg = f"model_name: must be text, got {model_name!r:.60}"
        raise InvalidInstance(msg)
    stripped = model_name.strip()
    try:
        stripped.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return None
    return stripped if 0 < len(stripped) <= MAX_MODEL_NAME else None


def actor(role: str) -> str:
    """A name no other registry object has: role, host, process and a random part."""
    return f"{role}@{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


def author_or_self(author: str | None) -> str:
    """Who decides: as given, else the user of this process and its host."""
    if author is not None:
        return author
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"

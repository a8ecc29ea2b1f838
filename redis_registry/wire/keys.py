"""The only place that makes key names, and the text an identity becomes inside them.

Every key of a partition carries the same hash tag, ``{<namespace>/<partition>}``, so that one
script call is one slot. A ``:`` separates, so names are escaped: no two identities share a key.

==========================  ==========  =================================================
key (after the tag)         type        holds
==========================  ==========  =================================================
``meta``                    hash        format, partitions, epoch, revision, pulse, recovery
``events``                  stream      every change, id ``<revision>-0``
``lease``                   hash        holder, token and end of the sweeping term
``deadlines``               sorted set  ``identity:timeout:incarnation`` → deadline (µs);
                                        healthy and checked instances only
``down``                    sorted set  identity → unhealthy since (µs)
``models``                  sorted set  model → revision of its first instance
``living``                  hash        model → how many of it are among the deadlines
``guard``, ``tally``        hash        scopes held; flips counted per scope
``holders``                 sorted set  who holds reservations → end of its lease (µs)
``h:<holder>``              hash        reservation → identity and moment
``flights``                 hash        identity → reservations held, last pick, mean holding
``out``                     sorted set  identities of instances kept out, scores all 0
``served``                  sorted set  ``name|identity`` of who takes work under further names,
                                        scores all 0
``reports``                 sorted set  operation of a report → when it was counted (µs)
``overrides``               hash        operators' overrides, by name
``aliases``                 hash        alias → model and who pointed it there
``m:<model>``               sorted set  ``host:port`` → revision of its registration
``i:<model>:<host>:<port>`` hash        one instance
==========================  ==========  =================================================
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote

from redis_registry.model import Identity

__all__ = ["PartitionKeys", "address_of", "escape", "identity_of", "identity_text"]

# Separators of keys, members and rows; braces, so that no name can pose as a hash tag; white
# space and control characters, so that a key stays one readable word.
_UNSAFE = re.compile(r"[\x00-\x20%:|{}\x7f]")


def escape(text: str) -> str:
    """Percent-encode the characters that have a meaning in keys, members or rows."""
    return _UNSAFE.sub(lambda found: f"%{ord(found[0]):02X}", text)


@lru_cache(maxsize=65_536)
def identity_text(identity: Identity) -> str:
    """``model:host:port`` with model and host escaped."""
    return f"{escape(identity.model_name)}:{address_of(identity)}"


def address_of(identity: Identity) -> str:
    """``host:port`` with the host escaped."""
    return f"{escape(identity.host)}:{identity.port}"


def identity_of(text: str) -> tuple[str, str, int]:
    """Read back what :func:`identity_text` made: model name, host and port.

    Raises:
        ValueError: The text is not of that form.
    """
    model, host, port = text.split(":")
    if "%" in text:
        model, host = unquote(model), unquote(host)
    return model, host, int(port)


@dataclass(frozen=True, slots=True)
class PartitionKeys:
    """The keys of one partition.

    Attributes:
        base: What they all begin with, hash tag included.
    """

    base: str

    @classmethod
    def of(cls, prefix: str, namespace: str, partition: int) -> PartitionKeys:
        """Keys of partition number ``partition`` of a namespace."""
        return cls(f"{prefix}:{{{escape(namespace)}/{partition}}}:")

    def named(self, name: str) -> str:
        """The key of a part that exists once per partition (``meta``, ``events``, …)."""
        return self.base + name

    def index(self, model: str) -> str:
        """The index of a model, given escaped."""
        return f"{self.base}m:{model}"

    def held(self, holder: str) -> str:
        """The hash of what a holder has reserved."""
        return f"{self.base}h:{holder}"

    def instance(self, identity: str) -> str:
        """The hash of an instance, given as :func:`identity_text`."""
        return f"{self.base}i:{identity}"


def partition_of(model_name: str, partitions: int) -> int:
    """The partition in which a model lives wholly: a stable hash of its name, modulo P."""
    if partitions == 1:
        return 0
    digest = hashlib.blake2b(model_name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % partitions

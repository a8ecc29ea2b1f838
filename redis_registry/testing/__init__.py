"""Real servers for tests: they live as long as a ``with`` block, and not a moment longer.

======================  ====================================================================
:class:`Standalone`     one server, with any options, ACL users, TLS, a clock of its own
:class:`Replica`        a server that follows another one
:class:`SentinelSet`    a primary, replicas, and three sentinels that fail over quickly
:class:`Cluster`        primaries that share all slots, with replicas; slots that move
======================  ====================================================================

They listen on free ports of the loopback address, write nothing outside temporary directories,
and are ended by the kernel when the test process is gone, however it went (Linux).
"""

from redis_registry.testing.clusters import Cluster, Node
from redis_registry.testing.sentinels import Sentinel, SentinelSet
from redis_registry.testing.servers import Replica, Standalone
from redis_registry.testing.waiting import await_that

__all__ = [
    "Cluster",
    "Node",
    "Replica",
    "Sentinel",
    "SentinelSet",
    "Standalone",
    "await_that",
]

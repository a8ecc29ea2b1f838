"""Real servers for tests: they live as long as a ``with`` block, and not a moment longer.

======================  ===================================================================
:class:`Standalone`     one server, with any options, a password, ACL users
:class:`Replica`        a server that follows another one
:class:`SentinelSet`    a primary, replicas, and three sentinels that fail over quickly
:class:`Cluster`        primaries that share all slots, with replicas; slots that move
:class:`Secured`        one server that speaks TLS only, with :class:`Certificates`
:class:`Clocked`        one server whose clock the test moves; :func:`wrong_clock` for programs
:class:`Network`        hosts whose links break (root only); servers run ``on`` them
:class:`Proxy`          connections that are cut, late, frozen, refused, or never answered
======================  ===================================================================

They listen on free ports of the loopback address, write nothing outside temporary directories,
and are ended by the kernel when the test process is gone, however it went (Linux). Where this
machine lacks something, ``NotAvailableHere`` says what to install. Fixtures for pytest are in
:mod:`redis_registry.testing.fixtures`.
"""

from redis_registry.testing.clocks import Clocked, wrong_clock
from redis_registry.testing.clusters import Cluster, Node
from redis_registry.testing.netns import Host, Network
from redis_registry.testing.proxy import Proxy
from redis_registry.testing.sentinels import Sentinel, SentinelSet
from redis_registry.testing.servers import Replica, Standalone
from redis_registry.testing.tls import Certificates, Secured
from redis_registry.testing.waiting import await_that

__all__ = [
    "Certificates",
    "Clocked",
    "Cluster",
    "Host",
    "Network",
    "Node",
    "Proxy",
    "Replica",
    "Secured",
    "Sentinel",
    "SentinelSet",
    "Standalone",
    "await_that",
    "wrong_clock",
]

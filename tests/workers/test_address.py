"""Address sanity: what others can't reach is refused, with what they can."""

from __future__ import annotations

import ipaddress

import pytest

from redis_registry import (
    InvalidInstance,
    ModelInstance,
    RedisModelRegistry,
    SyncModelRegistry,
    own_address,
)

REMOTE, LOCAL = "redis://redis.example:6379/0", "redis://127.0.0.1:6379/0"


def _at(host: str) -> ModelInstance:
    return ModelInstance(model_name="m", host=host, port=1)


@pytest.mark.parametrize("url", [REMOTE, LOCAL, "unix:///run/redis.sock"])
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "[::]", "::ffff:0.0.0.0", "0::0"])
def test_what_servers_bind_to_is_nobodys_address(url: str, host: str) -> None:
    for registry in (
        RedisModelRegistry.from_url(url),
        SyncModelRegistry.from_url(url),
    ):
        with pytest.raises(InvalidInstance, match="binds to") as refused:
            registry.announce(_at(host))
        assert "any_address=True" in str(refused.value)
        registry.announce(_at(host), any_address=True)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.8.8", "localhost", "LOCALHOST.", "a.localhost", "::1"]
)
def test_loopback_is_fine_only_where_the_registry_is(host: str) -> None:
    with pytest.raises(InvalidInstance, match="their own machine"):
        RedisModelRegistry.from_url(REMOTE).announce(_at(host))
    RedisModelRegistry.from_url(REMOTE).announce(_at(host), any_address=True)
    for url in (LOCAL, "redis://localhost/0", "redis://[::1]:6379", "unix:///run/r"):
        RedisModelRegistry.from_url(url).announce(_at(host))


@pytest.mark.parametrize(
    "host", ["10.0.0.7", "worker-7.internal", "fe80::1%eth0", "any text", "2001:db8::1"]
)
def test_every_other_address_is_fine(host: str) -> None:
    RedisModelRegistry.from_url(REMOTE).announce(_at(host))


def test_its_own_address_is_one_that_leads_there() -> None:
    assert own_address("redis://127.0.0.1:6379/0") == "127.0.0.1"
    assert own_address("127.0.0.1") == "127.0.0.1"
    found = ipaddress.ip_address(own_address())
    assert not found.is_unspecified
    assert own_address("no.such.host.invalid") == "127.0.0.1"

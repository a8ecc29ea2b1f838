"""A secured server lets in whom it knows, and nobody else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from redis_registry import (
    AccessDenied,
    NotAvailableHere,
    RegistryError,
    RegistryUnavailable,
    SyncModelRegistry,
)
from redis_registry.testing import Certificates, Secured
from tests.conftest import _binary
from tests.helpers import instance


def _registers(url: str) -> bool:
    with SyncModelRegistry.from_url(url, operation_timeout_secs=1) as registry:
        return registry.register_instance(instance(1))


def test_only_clients_that_it_knows_get_in(tmp_path: Path) -> None:
    users = {"default": "off", "app": "on >secret ~rr:* +@all"}
    with Secured(binary=_binary("redis7"), users=users) as server:
        assert server.call("PING") == "PONG"
        assert _registers(server.url_of("app", "secret"))
        with pytest.raises(AccessDenied):
            _registers(server.url_of("app", "wrong"))
        rogue = Certificates.make(tmp_path / "rogue")
        plain = f"redis://app:secret@127.0.0.1:{server.port}/0"
        nobody, _, _ = server.url_of("app", "secret").partition("&")
        for url in (server.url_with(rogue, "app:secret@"), nobody, plain):
            with pytest.raises(RegistryError):
                _registers(url)


def test_a_certificate_for_another_name_is_refused(tmp_path: Path) -> None:
    other = Certificates.make(tmp_path, names=("DNS:elsewhere",))
    with Secured(binary=_binary("redis7"), certificates=other) as server:
        assert server.call("PING") == "PONG"
        with pytest.raises(RegistryUnavailable):
            _registers(server.url)


def test_without_asking_clients_the_authority_is_enough() -> None:
    with Secured(binary=_binary("redis7"), ask_clients=False) as server:
        assert _registers(server.url.partition("&")[0])


def test_what_is_lacking_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(NotAvailableHere, match="without TLS: apt-get install"):
        Secured(binary=_binary("valkey")).start()

    def nothing(_name: str) -> None:
        """Finds nothing."""

    monkeypatch.setattr(shutil, "which", nothing)
    with pytest.raises(NotAvailableHere, match="apt-get install openssl"):
        Certificates.make(tmp_path)

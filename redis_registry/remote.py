"""Speaking to controllers by HTTP, for workers that don't reach Redis."""

from __future__ import annotations

import contextlib
import json
import os
import random
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError
from pydantic_settings import NoDecode, SettingsConfigDict

from redis_registry.errors import (
    ConfigurationError,
    InvalidInstance,
    OutOfMemory,
    RegistryError,
    RegistryRefused,
    RegistryUnavailable,
)
from redis_registry.model import (
    Beat,
    Identity,
    Load,
    ModelInstance,
    Readiness,
    superseded,
)
from redis_registry.settings import Secs, Settings, TimeoutSecs
from redis_registry.wire import workers as wire

if TYPE_CHECKING:
    import urllib3

__all__ = ["Controllers", "RemoteSettings"]

MAX_BYTES = 512 * 1024
"""Of one request with many heartbeats; half of what a controller takes."""

TRIES = 3
"""Controllers asked in one call; the next call goes on with the next ones."""

M = TypeVar("M", bound=BaseModel)

_CONFLICT = 409
_REFUSALS: Mapping[int, type[RegistryError]] = {
    422: InvalidInstance,
    507: OutOfMemory,
}
_ELSEWHERE = frozenset({404, 405, 408, 429})
"""Another controller may do it: this one is of an older release, or busy."""

_BAD, _FAILING = 400, 500


def _split(value: object) -> object:
    return value.split(",") if isinstance(value, str) else value


def _reachable(urls: tuple[str, ...]) -> tuple[str, ...]:
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            msg = f"{url!r} is no controller's address: use http://host:port or https://host:port"
            raise ValueError(msg)
        if parts.query or parts.fragment:
            msg = f"{url!r}: leave out what follows the path"
            raise ValueError(msg)
    return tuple(url.rstrip("/") for url in urls)


class RemoteSettings(Settings):
    """How a worker reaches controllers; read from ``REDIS_REGISTRY_*`` where not given.

    Attributes:
        controllers: Their URLs (in the environment: separated by commas). Each process begins
            with one of them at random and stays with it as long as it answers.
        heartbeat_timeout_secs: Silence after which an instance is dead, unless it brings its own.
        operation_timeout_secs: How long ``ready()`` and the like wait for an answer.
        attempt_timeout_secs: A controller that doesn't answer within this time is left for the
            next one; ``None``: timeout / 8, at least 0.1 and at most 2 s, so that a heartbeat
            that meets two dead controllers is still in time.
    """

    model_config = SettingsConfigDict(
        env_prefix="REDIS_REGISTRY_", env_parse_none_str="never", extra="ignore"
    )

    controllers: Annotated[
        tuple[str, ...],
        NoDecode,
        BeforeValidator(_split),
        Field(min_length=1),
        AfterValidator(_reachable),
    ]
    heartbeat_timeout_secs: TimeoutSecs = 60.0
    operation_timeout_secs: Secs = 5.0
    attempt_timeout_secs: Secs | None = None

    @property
    def attempt_timeout(self) -> float:
        """Longest wait for one controller, in seconds."""
        share = min(max(self.heartbeat_timeout_secs / 8, 0.1), 2.0)
        return self.attempt_timeout_secs or share


class Controllers:
    """A sender's channel to the controllers: a call goes to the next one when one is dead or hung.

    For one thread; see :class:`redis_registry.roles.sending.channel.Channel`.

    Args:
        settings: Which controllers, and how patient to be.

    Raises:
        ConfigurationError: The HTTP client is not installed.
    """

    def __init__(self, settings: RemoteSettings) -> None:
        self.advised_interval_secs: float | None = None
        self._boots: dict[Identity, str] = {}
        self._settings = settings
        # A fleet spreads over the controllers without anybody's planning.
        shift = random.randrange(len(settings.controllers))  # noqa: S311  not a secret
        self._urls = [
            *settings.controllers[shift:],
            *settings.controllers[:shift],
        ]
        self._pool = _new_pool(settings)
        self._process = os.getpid()

    def part(self, instance: ModelInstance) -> Controllers:  # noqa: ARG002  a channel's
        """Itself: a controller speaks to all parts of the registry at once."""
        return self

    def register(self, instance: ModelInstance, order: int) -> tuple[Readiness, str]:
        """Register with all it carries; what is on record now."""
        fields = instance.model_dump(
            mode="json",
            exclude_unset=True,
            exclude={"state", "revision", "load", "last_heartbeat", "healthy"},
        )
        answer = self._post(
            "register", wire.Answer, instance, order=order, whole=fields
        )
        if answer.boot is not None:
            self._boots[instance.identity] = answer.boot
        return self._on_record(answer, instance.readiness, instance.reason or "")

    def ready(
        self, instance: ModelInstance, readiness: Readiness, reason: str, order: int
    ) -> tuple[Readiness, str] | None:
        """Say a readiness; what is on record now, or ``None``: it must register."""
        answer = self._post(
            "ready",
            wire.Answer,
            instance,
            readiness=readiness.value,
            reason=reason,
            order=order,
        )
        if answer.answer is Beat.REREGISTER:
            return None
        return self._on_record(answer, readiness, reason)

    def deregister(self, instance: ModelInstance, *, remove: bool) -> None:
        """Say goodbye; it stays listed as unhealthy unless it is to be removed."""
        self._boots.pop(instance.identity, None)
        self._post("deregister", wire.Answer, instance, remove=remove)

    def heartbeats(
        self, instances: Sequence[ModelInstance], loads: Sequence[Load]
    ) -> list[Beat]:
        """Beat for all of them, as many in one request as a controller takes."""
        answers: list[Beat] = []
        boots: list[str | None] = []
        for items in _portions(instances, loads):
            body = f'{{"beats":[{",".join(items)}],{self._patience()}}}'
            reply = self._ask("heartbeats", body.encode(), wire.Answers)
            answers += reply.answers
            boots += [reply.boot] * len(reply.answers)
            self.advised_interval_secs = reply.advised_interval_secs
        if len(answers) != len(instances):
            msg = (
                f"the controller answered {len(answers)} of {len(instances)} heartbeats"
            )
            raise RegistryUnavailable(msg)
        return [
            Beat.REREGISTER if beat is Beat.TAKEN and self._is_new(one, boot) else beat
            for one, beat, boot in zip(instances, answers, boots, strict=True)
        ]

    def described(self) -> Mapping[str, Any]:
        """How another process opens the same."""
        return {"controllers": self._settings.model_dump(mode="json")}

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()

    def _is_new(self, instance: ModelInstance, boot: str | None) -> bool:
        """Whether another one answers than the one that was told all of an instance."""
        if boot is None:
            return False
        return self._boots.setdefault(instance.identity, boot) != boot

    @staticmethod
    def _on_record(
        answer: wire.Answer, readiness: Readiness, reason: str
    ) -> tuple[Readiness, str]:
        if answer.readiness is None or answer.readiness is readiness:
            return readiness, reason
        return answer.readiness, answer.reason

    def _patience(self) -> str:
        return f'"patience_secs":{self._settings.attempt_timeout}'

    def _post(
        self,
        path: str,
        kind: type[M],
        instance: ModelInstance,
        *,
        whole: Mapping[str, Any] | None = None,
        **more: object,
    ) -> M:
        body = {
            "instance": whole or _identified(instance),
            "patience_secs": self._settings.attempt_timeout,
            **more,
        }
        with _about(instance):
            return self._ask(path, json.dumps(body).encode(), kind)

    def _ask(self, path: str, body: bytes, kind: type[M]) -> M:
        """One call: the controller in use, and those after it while there is no answer."""
        if self._process != os.getpid():  # forked: the sockets are the parent's
            self._process, self._pool = os.getpid(), _new_pool(self._settings)
        silent: list[str] = []
        for _ in range(min(TRIES, len(self._urls))):
            url = self._urls[0]
            try:
                return _answered(kind, *self._request(f"{url}{wire.PATH}/{path}", body))
            except _NoAnswer as error:
                silent.append(f"{url}: {error}")
                self._urls.append(self._urls.pop(0))
        msg = f"no controller answered: {'; '.join(silent)}"
        raise RegistryUnavailable(msg)

    def _request(self, url: str, body: bytes) -> tuple[int, bytes]:
        from urllib3.exceptions import HTTPError  # noqa: PLC0415  an extra

        try:
            reply = self._pool.request("POST", url, body=body)
        except HTTPError as error:
            raise _NoAnswer(_plain(error)) from error
        return reply.status, reply.data


class _NoAnswer(Exception):
    """A controller gave none that could be used."""


class _SupersededBy(Exception):
    """A controller says so.

    Args:
        by: The newer life, if it said.
    """

    def __init__(self, by: str | None) -> None:
        super().__init__(by)
        self.by = by


def _new_pool(settings: RemoteSettings) -> urllib3.PoolManager:
    try:
        import urllib3  # noqa: PLC0415  an extra
    except ModuleNotFoundError as error:
        msg = (
            f"speaking to controllers needs {error.name}: "
            "pip install 'redis-registry[remote]'"
        )
        raise ConfigurationError(msg) from error
    return urllib3.PoolManager(
        num_pools=len(settings.controllers),
        maxsize=1,
        retries=False,
        timeout=urllib3.Timeout(total=settings.attempt_timeout),
        headers={"content-type": "application/json"},
    )


def _plain(error: Exception) -> str:
    """An error of the client without the names of its objects."""
    return str(error).rpartition(">: ")[2] or type(error).__name__


def _answered(kind: type[M], status: int, data: bytes) -> M:
    """The answer, or the error that it tells."""
    if (status >= _FAILING and status not in _REFUSALS) or status in _ELSEWHERE:
        raise _NoAnswer(f"{status} {_detail(data).get('detail', '')}")
    if status < _BAD:
        try:
            return kind.model_validate_json(data)
        except ValidationError as error:
            raise _NoAnswer(f"not a controller's answer: {data[:80]!r}") from error
    told = _detail(data)
    if status == _CONFLICT:
        raise _SupersededBy(told.get("superseded_by"))
    detail = f"the controller answered {status}: {told.get('detail', data[:200])}"
    raise _REFUSALS.get(status, RegistryRefused)(detail)


def _detail(data: bytes) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        told = json.loads(data)
        if isinstance(told, dict):
            return told  # pyright: ignore[reportUnknownVariableType]
    return {}


@contextlib.contextmanager
def _about(instance: ModelInstance) -> Generator[None]:
    try:
        yield
    except _SupersededBy as error:
        raise superseded(instance, error.by) from error


def _identified(instance: ModelInstance) -> dict[str, Any]:
    return instance.model_dump(mode="json", include=wire.IDENTIFYING)


def _portions(
    instances: Sequence[ModelInstance], loads: Sequence[Load]
) -> Iterator[list[str]]:
    """Heartbeats as JSON, in portions that one request may carry."""
    portion: list[str] = []
    size = 0
    for instance, load in zip(instances, loads, strict=True):
        who = json.dumps(_identified(instance))
        what = load.model_dump_json(exclude_defaults=True)
        item = f'{{"instance":{who},"load":{what}}}'
        if portion and (len(portion) == wire.MAX_BEATS or size + len(item) > MAX_BYTES):
            yield portion
            portion, size = [], 0
        portion.append(item)
        size += len(item)
    if portion:
        yield portion

"""The HTTP application of one controller replica.

Routes are plain functions from :class:`Request` to :class:`Reply`, found in a dictionary: a
framework's routing and middleware would cost more than a heartbeat itself.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import (
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    MutableMapping,
    Sequence,
)
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from pydantic import ValidationError

from redis_registry.errors import (
    ConfigurationError,
    InvalidInstance,
    InvalidOverride,
    LimitReached,
    OutOfMemory,
    RegistryError,
    RegistryUnavailable,
    Superseded,
)
from redis_registry.http.visitors import Visitors

__all__ = [
    "SCHEMA_REF",
    "Application",
    "HTTPError",
    "Reply",
    "Request",
    "Route",
    "invalid",
]

SCHEMA_REF = "#/components/schemas/{model}"
"""How a route's schemas refer to each other in the API description."""

MAX_BODY_BYTES = 1024 * 1024
MAX_QUERY_BYTES = 64 * 1024
BODY_SECS = 10.0
"""How long a client may take to send its body, all of it; uvicorn itself waits for ever."""

Headers = tuple[tuple[bytes, bytes], ...]

_CLOSE: Headers = ((b"connection", b"close"),)
"""What is still on its way of the body is not waited for."""

_SHOWN = 80  # characters of a bad value that an answer repeats

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a route answers."""

    body: bytes
    status: int = 200
    media_type: bytes = b"application/json"
    headers: Headers = ()

    @classmethod
    def of(cls, value: object, status: int = 200, headers: Headers = ()) -> Reply:
        """A value as compact JSON."""
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        body = text.encode(errors="backslashreplace")
        return cls(body, status, headers=headers)


class HTTPError(Exception):
    """A reply that ends the request.

    Args:
        status: HTTP status.
        detail: What is wrong, and what to do.
        headers: More of the reply's.
    """

    def __init__(self, status: int, detail: object, headers: Headers = ()) -> None:
        super().__init__(str(detail))
        self.reply = Reply.of({"detail": detail}, status, headers)


class Request:
    """One HTTP request, read no further than the route asks.

    Args:
        scope: ASGI's.
        receive: ASGI's.
    """

    __slots__ = ("_receive", "scope")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self._receive = receive

    def query(self) -> dict[str, str]:
        """The query's parameters; the last of a name wins.

        Raises:
            HTTPError: It is too long (414) or not UTF-8 (422).
        """
        raw: bytes = self.scope["query_string"]
        if len(raw) > MAX_QUERY_BYTES:
            raise HTTPError(414, f"the query is longer than {MAX_QUERY_BYTES} bytes")
        try:
            pairs = parse_qsl(raw.decode(), keep_blank_values=True, errors="strict")
        except ValueError as error:
            raise HTTPError(422, f"the query is not UTF-8: {error}") from error
        return dict(pairs)

    async def body(self) -> bytes:
        """The whole body.

        Raises:
            HTTPError: It is too large (413), or took too long to arrive (408).
        """
        try:
            async with asyncio.timeout(BODY_SECS):
                body = await self._whole()
        except TimeoutError as error:
            msg = f"the body did not arrive within {BODY_SECS:g} s"
            raise HTTPError(408, msg, _CLOSE) from error
        if len(body) > MAX_BODY_BYTES:
            msg = f"the body is larger than {MAX_BODY_BYTES} bytes"
            raise HTTPError(413, msg, _CLOSE)
        return body

    async def _whole(self) -> bytes:
        """The body, or as much of it as shows that it is too large."""
        parts: list[bytes] = []
        size, more = 0, True
        while more and size <= MAX_BODY_BYTES:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise HTTPError(400, "the client went away")
            part: bytes = message.get("body", b"")
            parts.append(part)
            size += len(part)
            more = message.get("more_body", False)
        return b"".join(parts)


Handler = Callable[[Request], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class Route:
    """One method on one path.

    Attributes:
        summary: For the API description.
        body: JSON schema of the body, if it takes one.
        query: Names of query parameters and whether each is required.
        reply: JSON schema of the reply, where it is described.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    body: Mapping[str, Any] | None = None
    query: Mapping[str, bool] = field(default_factory=dict[str, bool])
    reply: Mapping[str, Any] | None = None


def _shown(value: object) -> object:
    """A bad value as it came, where JSON can carry it in a few characters."""
    text = repr(value)
    if len(text) > _SHOWN:
        return f"{text[:_SHOWN]}…"
    plain = isinstance(value, str | int | bool) or value is None
    return value if plain else text


def invalid(error: ValidationError, *place: str) -> HTTPError:
    """Pydantic's findings as the 422 that FastAPI's clients know.

    Args:
        error: What was found.
        place: ``body`` or ``query``, and the parameter where it is one.
    """
    found = [
        {
            "type": item["type"],
            "loc": [*place, *item["loc"]],
            "msg": item["msg"],
            "input": None if item["type"] == "missing" else _shown(item["input"]),
        }
        for item in error.errors(include_url=False, include_context=False)
    ]
    return HTTPError(422, found)


_STATUS: tuple[tuple[type[RegistryError], int], ...] = (
    (InvalidInstance, 422),
    (InvalidOverride, 422),
    (Superseded, 409),
    (OutOfMemory, 507),
    (LimitReached, 507),
    (RegistryUnavailable, 503),
    (ConfigurationError, 500),
)


def _failure(error: RegistryError, request: Request) -> Reply:
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
    if status >= 500:  # noqa: PLR2004  server errors
        _log.warning(
            "request failed",
            extra={"path": request.scope["path"], "status": status, "why": str(error)},
        )
    told: dict[str, object] = {"detail": str(error)}
    if isinstance(error, Superseded):
        told["superseded_by"] = error.by
    return Reply.of(told, status)


async def answer(handler: Handler, request: Request) -> Reply:
    """Run a handler; whatever happens becomes a reply."""
    try:
        return await handler(request)
    except HTTPError as error:
        return error.reply
    except RegistryError as error:
        return _failure(error, request)
    except Exception:  # noqa: BLE001  one request must not end the others
        _log.exception("request crashed", extra={"path": request.scope["path"]})
        return Reply.of({"detail": "internal error; the controller's log has it"}, 500)


async def _write(send: Send, reply: Reply) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": reply.status,
            "headers": [
                (b"content-type", reply.media_type),
                (b"content-length", b"%d" % len(reply.body)),
                *reply.headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": reply.body})


class Application:
    """An ASGI application of a few routes.

    Args:
        routes: What it serves.
        names: By which it is known; ``None``: by any.
    """

    def __init__(
        self, routes: Sequence[Route], *, names: Iterable[str] | None = None
    ) -> None:
        self._visitors = Visitors(names)
        described = Route(
            "GET", "/openapi.json", _described(routes), "This description"
        )
        self._paths: dict[str, dict[str, Handler]] = {}
        for route in [*routes, described]:
            self._paths.setdefault(route.path, {})[route.method] = route.handler
        for methods in self._paths.values():
            if "GET" in methods:
                methods["HEAD"] = methods["GET"]  # the server leaves the body out

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            msg = f"this application speaks HTTP only, not {scope['type']}"
            raise RuntimeError(msg)
        methods = self._paths.get(scope["path"])
        if refusal := self._visitors.refusal(scope["headers"]):
            reply = Reply.of({"detail": refusal[1]}, refusal[0], _CLOSE)
        elif methods is None:
            reply = Reply.of({"detail": f"no such path: {scope['path'][:_SHOWN]}"}, 404)
        elif (handler := methods.get(scope["method"])) is None:
            allowed = ", ".join(sorted(methods))
            told = {"detail": f"this path takes {allowed}"}
            reply = Reply.of(told, 405, ((b"allow", allowed.encode()),))
        else:
            reply = await answer(handler, Request(scope, receive))
        await _write(send, reply)


def _described(routes: Iterable[Route]) -> Handler:
    """A handler that serves the OpenAPI description of ``routes``."""
    paths: dict[str, dict[str, Any]] = {}
    schemas: dict[str, Any] = {}

    def content(schema: Mapping[str, Any]) -> dict[str, Any]:
        plain = dict(schema)
        schemas.update(plain.pop("$defs", {}))
        return {"application/json": {"schema": plain}}

    for route in routes:
        done: dict[str, Any] = {"description": "Done"}
        if route.reply is not None:
            done["content"] = content(route.reply)
        operation: dict[str, Any] = {
            "summary": route.summary,
            "responses": {"200": done},
        }
        if route.body is not None:
            operation["requestBody"] = {
                "required": True,
                "content": content(route.body),
            }
        if route.query:
            operation["parameters"] = [
                {"name": name, "in": "query", "required": required, "schema": {}}
                for name, required in route.query.items()
            ]
        paths.setdefault(route.path, {})[route.method.lower()] = operation
    described = Reply.of(
        {
            "openapi": "3.1.0",
            "info": {"title": "redis-registry controller", "version": "1"},
            "paths": paths,
            "components": {"schemas": schemas},
        }
    )

    async def handler(_request: Request) -> Reply:
        return described

    return handler

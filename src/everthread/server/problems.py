"""Errors as problem details (RFC 9457): ``application/problem+json``."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.responses import Response

from everthread.errors import (
    ConfigurationError,
    ConflictError,
    CorruptRecordError,
    EverthreadError,
    InvalidIdentifierError,
    InvalidMessageError,
    LimitExceededError,
    StoreUnavailableError,
    ThreadNotFoundError,
    UnsupportedError,
)

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 1
"""The seconds after which a client may repeat a request that the store could not answer."""
_LONGEST_DETAIL = 2_000

STATUSES: tuple[tuple[type[EverthreadError], HTTPStatus], ...] = (
    (ThreadNotFoundError, HTTPStatus.NOT_FOUND),
    (ConflictError, HTTPStatus.CONFLICT),
    (LimitExceededError, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (InvalidIdentifierError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (InvalidMessageError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (ConfigurationError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (UnsupportedError, HTTPStatus.NOT_IMPLEMENTED),
    (CorruptRecordError, HTTPStatus.BAD_GATEWAY),
    (StoreUnavailableError, HTTPStatus.SERVICE_UNAVAILABLE),
    (EverthreadError, HTTPStatus.SERVICE_UNAVAILABLE),
)
"""The status of each error; the first that matches applies."""


class Problem(msgspec.Struct, omit_defaults=True):
    """An error. ``title`` names its kind, ``detail`` says what to do; neither has content of messages."""

    status: int
    title: str
    detail: str
    type: str = "about:blank"
    actual: int | None = None


def problem_of(error: EverthreadError) -> Problem:
    """Return an error of everthread as a problem."""
    status = next(status for kind, status in STATUSES if isinstance(error, kind))
    actual = error.actual if isinstance(error, ConflictError) else None
    return Problem(status, type(error).__name__, str(error)[:_LONGEST_DETAIL], actual=actual)


def problem_response(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """Return the response to a request that failed."""
    added: dict[str, str] = {"Cache-Control": "no-store", **(headers or {})}
    if problem.status == HTTPStatus.SERVICE_UNAVAILABLE:
        added.setdefault("Retry-After", str(RETRY_SECONDS))
    # An identifier of the client may hold a lone surrogate, which has no UTF-8 form.
    body: Any = {name: _text(value) for name, value in msgspec.to_builtins(problem).items()}
    return Response(msgspec.json.encode(body), problem.status, added, MEDIA_TYPE)


def _text(value: object) -> object:
    return value.encode(errors="replace").decode() if isinstance(value, str) else value

"""Errors as problem details (RFC 9457): ``application/problem+json``."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated

import msgspec
from msgspec import Meta
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

_STATUSES: tuple[tuple[type[EverthreadError], HTTPStatus], ...] = (
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

_DETAILS = {
    HTTPStatus.NOT_IMPLEMENTED: "The store lacks this ability, or was opened read-only.",
    HTTPStatus.BAD_GATEWAY: "A stored record cannot be decoded. The log of the server says which.",
    HTTPStatus.SERVICE_UNAVAILABLE: "The store did not answer. Try again; the log of the server has the reason.",
}
"""Texts for clients in place of those errors that may name the store's server."""


class Problem(msgspec.Struct, omit_defaults=True, kw_only=True):
    """An error. None of its texts has content of messages."""

    status: Annotated[int, Meta(description="HTTP status.")]
    title: Annotated[str, Meta(description="Kind of the error.")]
    detail: Annotated[str, Meta(description="What failed, and what to do.")]
    actual: Annotated[int | None, Meta(description="For a conflict: the actual position or revision.")] = None


class ProblemError(Exception):
    """A request that is wrong itself; the store has not failed."""

    def __init__(self, status: HTTPStatus, title: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.problem = Problem(status=status, title=title, detail=detail[:_LONGEST_DETAIL])
        self.headers = headers or {}


def problem_of(error: EverthreadError) -> Problem:
    """Return an error of everthread as a problem that clients may see."""
    status = next(status for kind, status in _STATUSES if isinstance(error, kind))
    detail = _DETAILS.get(status) or str(error)[:_LONGEST_DETAIL]
    actual = error.actual if isinstance(error, ConflictError) else None
    return Problem(status=int(status), title=type(error).__name__, detail=_utf8(detail), actual=actual)


def problem_response(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """Return the response to a request that failed."""
    added: dict[str, str] = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **(headers or {})}
    if problem.status == HTTPStatus.SERVICE_UNAVAILABLE:
        added.setdefault("Retry-After", str(RETRY_SECONDS))
    return Response(msgspec.json.encode(problem), problem.status, added, MEDIA_TYPE)


def _utf8(text: str) -> str:
    # An identifier of the client may hold a lone surrogate, which has no UTF-8 form.
    return text.encode(errors="replace").decode()

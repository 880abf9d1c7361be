"""A request to the thread API: its path, query, body and conditions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import Request

from everthread.contract import Store
from everthread.json_form import encoded
from everthread.model import MAX_SEQ, Thread, ThreadKey
from everthread.server.access import Access
from everthread.server.api.objects import api_thread
from everthread.server.api.paths import thread_id_of
from everthread.server.problems import ProblemError

S = TypeVar("S", bound=msgspec.Struct)

MAX_BODY_BYTES = 256 * 1024
"""The most bytes of a body."""
_MOST_PARAMETERS = 100
_ETAG = re.compile(r'(W/)?"[^"]*"')


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    """No parameters."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request that was authorized.

    Attributes:
        store: The view of the request's tenant.
        names: The values of the path's variables.
    """

    request: Request
    access: Access
    store: Store
    names: Mapping[str, str]

    @property
    def key(self) -> ThreadKey:
        """The thread that the path names.

        Raises:
            InvalidIdentifierError: It is not a valid ID.
        """
        return ThreadKey(thread_id_of(self.names["thread"]))

    @property
    def seq(self) -> int:
        """The position that the path names."""
        digits = self.names["seq"]
        if not re.fullmatch("[0-9]{1,16}", digits) or int(digits) > MAX_SEQ:
            raise invalid(f"A position is a whole number from 0 to {MAX_SEQ}.")
        return int(digits)

    def query(self, shape: type[S]) -> S:
        """Return the parameters of the query. One that takes several values has an empty tuple as its default."""
        several = {field.encode_name for field in msgspec.structs.fields(shape) if field.default == ()}
        given: dict[str, Any] = {}
        try:
            pairs = parse_qsl(
                self.request.scope["query_string"].decode("ascii"),
                keep_blank_values=True,
                errors="strict",
                max_num_fields=_MOST_PARAMETERS,
            )
        except ValueError:
            raise invalid(f"The query is not UTF-8, or has more than {_MOST_PARAMETERS} parameters.") from None
        for name, value in pairs:
            if name in several:
                given.setdefault(name, []).append(value)
            elif name in given:
                raise invalid(f"The query has the parameter {name!r} twice.")
            else:
                given[name] = value
        try:
            return msgspec.convert(given, shape, strict=False)
        except (msgspec.ValidationError, OverflowError, ValueError) as error:
            raise invalid(f"The query is not valid: {error}") from None

    async def body(self, shape: type[S]) -> S:
        """Return the JSON of the body, which has at most `MAX_BODY_BYTES`."""
        # A form of another site cannot send this type.
        if self.request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise ProblemError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", "Send JSON with application/json."
            )
        body = bytearray()
        async for part in self.request.stream():
            body += part
            if len(body) > MAX_BODY_BYTES:
                detail = f"The body has more than {MAX_BODY_BYTES:,} bytes."
                raise ProblemError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "LimitExceeded", detail)
        try:
            return msgspec.json.decode(body, type=shape)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise invalid(f"The body is not valid: {without_content(error)}") from None

    @property
    def has_condition(self) -> bool:
        """Whether the request has If-Match."""
        return "if-match" in self.request.headers

    def check_condition(self, thread: Thread | None) -> None:
        """Raise the problem 412 if the request has If-Match, and the thread has another ETag or does not exist."""
        if not self.has_condition:
            return
        wanted = self.request.headers["if-match"]
        actual = None if thread is None else etag_of(encoded(api_thread(thread)))
        if actual is None or (wanted.strip() != "*" and actual not in [tag[0] for tag in _ETAG.finditer(wanted)]):
            raise changed()

    def has_current(self, etag: str) -> bool:
        """Return whether If-None-Match has this ETag."""
        known = self.request.headers.get("if-none-match", "")
        return known.strip() == "*" or etag in [tag[0].removeprefix("W/") for tag in _ETAG.finditer(known)]


def etag_of(body: bytes) -> str:
    """Return the ETag of a body."""
    return f'"{blake2b(body, digest_size=16).hexdigest()}"'


def invalid(detail: str) -> ProblemError:
    """Return the problem of a request that is not valid."""
    return ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "InvalidRequest", detail)


def changed() -> ProblemError:
    """Return the problem of a thread that is not the one that the client read."""
    detail = "The thread has changed since you read it. Read it again, and use its new ETag."
    return ProblemError(HTTPStatus.PRECONDITION_FAILED, "PreconditionFailed", detail)


def without_content(error: Exception) -> str:
    """Return the text of an error about a body, without a part of the body."""
    return error.reason if isinstance(error, UnicodeDecodeError) else str(error)

"""The routes: one table, which the application serves and the schema describes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec
from starlette.responses import Response

from everthread.json_form import RawMessage, ShownMessage
from everthread.server.api import changing, reading
from everthread.server.api.calls import Call, Nothing
from everthread.server.api.following import FollowThread
from everthread.server.api.objects import (
    AgUiMessagePage,
    ApiThread,
    DeletedThread,
    ForkedThread,
    FoundPage,
    MessagePage,
    RawMessagePage,
    ThreadPage,
    UndoneTurns,
)

Answer = Callable[[Call, Any], Awaitable[msgspec.Struct | Response]]


class Route(NamedTuple):
    """A route: its place, the shapes of its parameters and results, and the function between them.

    Attributes:
        answer: ``None`` for the routes that the application itself answers.
        results: The shapes of its JSON; none for other contents.
        types: The media types of other contents.
        statuses: The further statuses of its problems.
    """

    name: str
    method: str
    path: str
    answer: Answer | None
    query: type[msgspec.Struct] = Nothing
    body: type[msgspec.Struct] | None = None
    results: tuple[type[msgspec.Struct], ...] = ()
    types: tuple[str, ...] = ()
    status: HTTPStatus = HTTPStatus.OK
    writes: bool = False
    statuses: tuple[HTTPStatus, ...] = ()

    @property
    def segments(self) -> list[str]:
        """The segments of the path; a variable is in braces."""
        return self.path[1:].split("/")

    @property
    def has_etag(self) -> bool:
        """Whether its response has an ETag."""
        return bool(self.results) and (not self.writes or ApiThread in self.results)

    def names(self, segments: Sequence[str]) -> Mapping[str, str] | None:
        """Return the values of the path's variables, or ``None`` if the path is another."""
        own = self.segments
        if len(own) != len(segments):
            return None
        names: dict[str, str] = {}
        for wanted, given in zip(own, segments, strict=True):
            if wanted.startswith("{") and given:
                names[wanted[1:-1]] = given
            elif wanted != given:
                return None
        return names


_CHANGED = (HTTPStatus.PRECONDITION_FAILED,)
_BODY = (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNSUPPORTED_MEDIA_TYPE)

ROUTES = (
    Route("schema", "GET", "/openapi.json", None, types=("application/json",)),
    Route("list_threads", "GET", "/", reading.list_threads, reading.ListThreads, results=(ThreadPage,)),
    Route("search_messages", "GET", "/search", reading.search_messages, reading.SearchMessages, results=(FoundPage,)),
    Route("get_thread", "GET", "/{thread}", reading.get_thread, results=(ApiThread,)),
    Route(
        "change_thread",
        "PATCH",
        "/{thread}",
        changing.change_thread,
        body=changing.ChangeThread,
        results=(ApiThread,),
        writes=True,
        statuses=_CHANGED + _BODY,
    ),
    Route(
        "delete_thread",
        "DELETE",
        "/{thread}",
        changing.delete_thread,
        results=(DeletedThread,),
        writes=True,
        statuses=_CHANGED,
    ),
    Route(
        "read_messages",
        "GET",
        "/{thread}/messages",
        reading.read_messages,
        reading.ReadMessages,
        results=(MessagePage, RawMessagePage, AgUiMessagePage),
    ),
    Route(
        "read_message",
        "GET",
        "/{thread}/messages/{seq}",
        reading.read_message,
        reading.ReadMessage,
        results=(ShownMessage, RawMessage),
    ),
    Route(
        "follow_thread",
        "GET",
        "/{thread}/events",
        None,
        FollowThread,
        types=("text/event-stream",),
        statuses=(HTTPStatus.TOO_MANY_REQUESTS,),
    ),
    Route(
        "export_thread",
        "GET",
        "/{thread}/export",
        reading.export_thread,
        reading.ExportThread,
        types=tuple(kind.partition(";")[0] for kind in reading.EXPORT_TYPES.values()),
    ),
    Route(
        "fork_thread",
        "POST",
        "/{thread}/fork",
        changing.fork_thread,
        body=changing.ForkThread,
        results=(ForkedThread,),
        status=HTTPStatus.CREATED,
        writes=True,
        statuses=(HTTPStatus.CONFLICT, *_BODY),
    ),
    Route(
        "undo_turns",
        "POST",
        "/{thread}/undo",
        changing.undo_turns,
        body=changing.UndoTurns,
        results=(UndoneTurns,),
        writes=True,
        statuses=(HTTPStatus.PRECONDITION_REQUIRED, *_CHANGED, *_BODY),
    ),
)
"""All routes. A path with fixed segments stands before the one with a variable that it would match."""

"""The application: finds the route of a request, authorizes it, and answers with JSON or a problem."""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from everthread.contract import Store
from everthread.errors import EverthreadError
from everthread.json_form import encoded
from everthread.server.access import Authorize, access_of
from everthread.server.api.calls import Call, etag_of
from everthread.server.api.following import Followers, FollowThread, follow_thread, keep_messages_out_of_logs
from everthread.server.api.openapi import openapi
from everthread.server.api.paths import segments_of
from everthread.server.api.routes import ROUTES, Route
from everthread.server.problems import Problem, ProblemError, problem_of, problem_response

log = logging.getLogger("everthread.server")

_HEADERS = {"Cache-Control": "private, no-cache", "X-Content-Type-Options": "nosniff"}
CALL_SECONDS = 60
"""The time after which a request fails. Exports and followers may take longer."""


class ThreadApi:
    """The thread API as an ASGI application. `thread_api` makes one."""

    def __init__(self, store: Store, authorize: Authorize, followers: Followers) -> None:
        self._store = store
        self._authorize = authorize
        self._followers = followers
        keep_messages_out_of_logs()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1000})
            return
        request = Request(scope, receive)
        try:
            response = await self._response(request)
        except ProblemError as error:
            response = problem_response(error.problem, error.headers)
        except HTTPException as error:
            problem = Problem(status=error.status_code, title="Refused", detail=str(error.detail))
            response = problem_response(problem, error.headers)
        except EverthreadError as error:
            problem = problem_of(error)
            if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                log.warning("A request failed: %s: %s", type(error).__name__, error)
            response = problem_response(problem)
        except TimeoutError:
            detail = f"The store did not answer within {CALL_SECONDS} seconds. Ask for less."
            response = problem_response(Problem(status=503, title="Timeout", detail=detail))
        except ClientDisconnect:
            return
        await response(scope, receive, send)

    async def _response(self, request: Request) -> Response:
        access = await access_of(request, self._authorize)
        route, names = _found(request)
        if route.writes and not access.may_write:
            raise ProblemError(HTTPStatus.FORBIDDEN, "Forbidden", "This client may only read.")
        call = Call(request, access, self._store.tenant(access.tenant), names)
        query = call.query(route.query)
        async with asyncio.timeout(CALL_SECONDS):
            if isinstance(query, FollowThread):
                return await follow_thread(call, query, self._followers)
            if route.answer is None:
                return _json(openapi(request.scope.get("root_path", "")))
            asked = query if route.body is None else await call.body(route.body)
            answer = await route.answer(call, asked)
        return answer if isinstance(answer, Response) else _answered(call, route, answer)


def _found(request: Request) -> tuple[Route, dict[str, str]]:
    """Return the route of a request, and the values of its path's variables."""
    segments = segments_of(request.scope)
    method = "GET" if request.method == "HEAD" else request.method
    allowed: list[str] = []
    for route in ROUTES:
        names = None if segments is None else route.names(segments)
        if names is None:
            continue
        if route.method == method:
            return route, dict(names)
        allowed.append(route.method)
        if not names:
            break
    if allowed:
        headers = {"Allow": ", ".join(allowed)}
        raise ProblemError(HTTPStatus.METHOD_NOT_ALLOWED, "MethodNotAllowed", f"Allowed: {headers['Allow']}.", headers)
    raise ProblemError(HTTPStatus.NOT_FOUND, "NotFound", "There is nothing at this path: see openapi.json.")


def _answered(call: Call, route: Route, answer: msgspec.Struct) -> Response:
    body = encoded(answer)
    if not route.has_etag:
        return _json(body, status=route.status)
    etag = etag_of(body)
    if not route.writes and call.has_current(etag):
        return Response(
            status_code=HTTPStatus.NOT_MODIFIED, headers={"ETag": etag, "Cache-Control": "private, no-cache"}
        )
    return _json(body, status=route.status, etag=etag)


def _json(value: object, *, status: HTTPStatus = HTTPStatus.OK, etag: str = "") -> Response:
    body = value if isinstance(value, bytes) else encoded(value)
    return Response(body, status, _HEADERS | ({"ETag": etag} if etag else {}), "application/json")


def thread_api(
    store: Store,
    *,
    authorize: Authorize,
    most_followers: int = 100,
    most_followers_per_tenant: int = 20,
    poll_seconds: float = 0.5,
    stay_seconds: float = 600,
) -> ThreadApi:
    """Return an ASGI application that lists, reads, searches, follows, changes and exports the threads of a store.

    It is mounted in Starlette or FastAPI: ``app.mount("/threads", thread_api(store, authorize=authorize))``. The schema
    of its requests is at ``openapi.json`` below that path.

    Args:
        store: The store, which stays the caller's to open and close, in the event loop of the server.
        authorize: Returns the `Access` of each request, or raises ``starlette.exceptions.HTTPException``. It may be
            asynchronous.
        most_followers: The most clients that follow threads at a time.
        most_followers_per_tenant: The most of one tenant.
        poll_seconds: The time between two reads of a follower without new messages. Each follower reads for itself.
        stay_seconds: The time after which a follower must connect again, and is authorized again.

    Raises:
        ConfigurationError: A limit of followers is not valid.
    """
    followers = Followers(most_followers, most_followers_per_tenant, poll_seconds, stay_seconds)
    return ThreadApi(store, authorize, followers)

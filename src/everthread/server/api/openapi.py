"""The OpenAPI 3.1 schema of the routes."""

from __future__ import annotations

import inspect
from functools import cache
from http import HTTPStatus
from typing import Any

import msgspec

from everthread import __version__
from everthread.server.api.routes import ROUTES, Route
from everthread.server.problems import MEDIA_TYPE, Problem

_REF = "#/components/schemas/{name}"
_EVERYWHERE = (
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.NOT_IMPLEMENTED,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
_PATH = {
    "thread": (
        {"type": "string", "minLength": 1},
        "`path` of the thread: its ID percent-encoded, or `~` and the Base64url of its ID.",
    ),
    "seq": ({"type": "integer", "minimum": 0}, "Position of the message."),
}


@cache
def _components() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the schemas by the name of their type, and the components."""
    kinds = {kind for route in ROUTES for kind in (*route.results, route.query, route.body) if kind} | {Problem}
    ordered = sorted(kinds, key=lambda kind: kind.__name__)
    schemas, components = msgspec.json.schema_components(ordered, ref_template=_REF)
    return dict(zip((kind.__name__ for kind in ordered), schemas, strict=True)), components


def openapi(root_path: str) -> dict[str, Any]:
    """Return the schema of the API that is mounted at a path."""
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    _, components = _components()
    queries = {route.query.__name__ for route in ROUTES}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Threads", "version": __version__},
        "servers": [{"url": root_path or "/"}],
        "paths": paths,
        "components": {"schemas": {name: kind for name, kind in components.items() if name not in queries}},
    }


def _operation(route: Route) -> dict[str, Any]:
    summary, _, rest = (inspect.getdoc(route.body or route.query) or "").partition("\n\n")
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": _SUMMARIES.get(route.name, summary),
        "description": rest,
        "parameters": [*_path_parameters(route), *_query_parameters(route), *_header_parameters(route)],
        "responses": _responses(route),
    }
    if route.body is not None:
        schemas, _ = _components()
        content = {"application/json": {"schema": schemas[route.body.__name__]}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


_SUMMARIES = {
    "schema": "Return this schema.",
    "get_thread": "Return a thread.",
    "delete_thread": "Delete a thread with all its messages, permanently.",
}


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    names = [segment[1:-1] for segment in route.segments if segment.startswith("{")]
    return [_parameter("path", name, *_PATH[name], required=True) for name in names]


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    _, components = _components()
    shape = components[route.query.__name__]
    required = shape.get("required", [])
    return [
        _parameter("query", name, schema, schema.get("description", ""), required=name in required)
        for name, schema in shape["properties"].items()
    ]


def _header_parameters(route: Route) -> list[dict[str, Any]]:
    text = {"type": "string", "pattern": r"^[ -~]*$"}
    parameters: list[dict[str, Any]] = []
    if HTTPStatus.PRECONDITION_FAILED in route.statuses:
        is_required = HTTPStatus.PRECONDITION_REQUIRED in route.statuses
        what = "ETag of the thread: the request fails if the thread has changed."
        parameters.append(_parameter("header", "If-Match", text, what, required=is_required))
    elif route.has_etag:
        what = "ETag of an earlier response: 304 if it is still the same."
        parameters.append(_parameter("header", "If-None-Match", text, what))
    if route.name == "follow_thread":
        parameters.append(_parameter("header", "Last-Event-ID", text, "ID of the last event received."))
    return parameters


def _parameter(place: str, name: str, schema: Any, text: str, *, required: bool = False) -> dict[str, Any]:
    return {"in": place, "name": name, "schema": schema, "description": text, "required": required}


def _responses(route: Route) -> dict[str, Any]:
    schemas, _ = _components()
    results = [schemas[kind.__name__] for kind in route.results]
    schema: Any = results[0] if len(results) == 1 else {"anyOf": results}
    kinds: dict[str, Any] = {kind: {} for kind in route.types}
    content: dict[str, Any] = {"application/json": {"schema": schema}} if results else kinds
    done: dict[str, Any] = {"description": route.status.phrase, "content": content}
    if route.has_etag:
        done["headers"] = {"ETag": {"schema": {"type": "string"}}}
    responses: dict[str, Any] = {str(int(route.status)): done}
    if route.has_etag and not route.writes:
        responses["304"] = {"description": HTTPStatus.NOT_MODIFIED.phrase}
    problem = {MEDIA_TYPE: {"schema": schemas["Problem"]}}
    for status in sorted({*_EVERYWHERE, *route.statuses}):
        responses[str(int(status))] = {"description": status.phrase, "content": problem}
    return responses

"""The schema describes the API: requests made from it are answered as it says, and never with 500."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode, checks
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from everthread import ThreadKey, open_store
from everthread.server import thread_api
from everthread.server.api.openapi import openapi
from everthread.server.api.routes import ROUTES
from tests.operations.talks import talk
from tests.server.clients import authorize
from tests.server.serving import served

USER = {"x-user": "ana"}
EXAMPLES = 20
UVICORN_REFUSED = 400
"""The status of uvicorn for headers that are not HTTP. The API has it for nothing."""
CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
NAMES = [route.name for route in ROUTES]
SCHEMA = schemathesis.openapi.from_dict(openapi(""))


def application(url: str) -> ASGIApp:
    """Return an application whose followers leave soon, over a store with a thread for each route."""
    store = open_store(url)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with store:
            for name in NAMES:
                await talk(store, ThreadKey(name, "ana"), turns=3)
            yield

    opening = Starlette(lifespan=lifespan)
    api = thread_api(store, authorize=authorize, poll_seconds=0.02, stay_seconds=0.02)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        # Not mounted: Starlette answers for paths with a line break itself.
        await (opening if scope["type"] == "lifespan" else api)(scope, receive, send)

    return application


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("fuzzed")
    with served(application(f"sqlite:///{folder}/threads.db")) as address:
        yield address


def cases(route: str, mode: GenerationMode) -> st.SearchStrategy[Any]:
    """Return requests, half of them to a thread that exists."""
    operation = next(
        each.ok() for each in SCHEMA.get_all_operations() if each.ok().definition.raw["operationId"] == route
    )
    strategy = operation.as_strategy(mode)
    if "{thread}" not in operation.path or mode is GenerationMode.NEGATIVE:
        return strategy

    def to_the_thread(case: Any) -> Any:
        case.path_parameters["thread"] = route
        if "seq" in case.path_parameters:
            case.path_parameters["seq"] = 0
        return case

    return st.one_of(strategy, strategy.map(to_the_thread))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("route", "mode"),
    [
        *((name, GenerationMode.POSITIVE) for name in NAMES),
        # Nothing of a request for the schema can be wrong.
        *((name, GenerationMode.NEGATIVE) for name in NAMES if name != "schema"),
    ],
)
def test_requests_made_from_the_schema_are_answered_as_it_says(route: str, mode: GenerationMode, address: str) -> None:
    quiet = (HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large)

    @settings(
        max_examples=EXAMPLES, derandomize=True, database=None, phases=[Phase.generate], suppress_health_check=quiet
    )
    @given(case=cases(route, mode))
    def answered(case: Any) -> None:
        response = case.call(base_url=address, headers=USER)
        if response.status_code != UVICORN_REFUSED:
            case.validate_response(response, checks=CHECKS)

    answered()

"""The application of the page on the thread API, in FastAPI behind uvicorn."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from everthread import ThreadKey, open_store
from everthread.server.api.routes import ROUTES
from tests.docs.pages import blocks
from tests.operations.talks import said, talk
from tests.places import empty_place
from tests.readme import ROOT
from tests.server.clients import PATIENCE
from tests.server.serving import served

PAGE = ROOT / "docs" / "how-to" / "thread-api.md"
KEY = ThreadKey("trip", "ana")


@pytest.fixture(params=["sqlite", *(pytest.param(engine, marks=pytest.mark.slow) for engine in ("redis", "postgres"))])
def url(request: pytest.FixtureRequest) -> str:
    return empty_place(request, request.param)


@pytest.fixture
def address(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    [code] = [block.text for block in blocks("python") if block.mark == "example: thread-api"]
    (tmp_path / "thread_app.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("EVERTHREAD_STORE", url)
    with served(importlib.import_module("thread_app").app) as address:
        yield address
    sys.modules.pop("thread_app")


def events(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        else:
            yield fields
            fields = {}


async def test_the_application_of_the_page_serves_and_follows(address: str, url: str) -> None:
    async with open_store(url) as store:
        await talk(store, KEY, turns=1)
        await talk(store, ThreadKey("a/../b", "ana"), turns=1)
        with httpx.Client(base_url=address, headers={"X-User": "ana"}, timeout=PATIENCE) as http:
            listed = http.get("/threads", follow_redirects=True).json()["threads"]
            read = [len(http.get(f"/threads/{each['path']}/messages").json()["messages"]) for each in listed]
            encoded = http.get("/threads/a%2F..%2Fb").json()["thread_id"]
            with http.stream("GET", "/threads/trip/events") as response:
                stream = events(response.iter_lines())
                last = next(stream)["id"]
                await store.append(KEY, [said("user", "while it follows")])
                received = next(stream)
            await store.append(KEY, [said("user", "while it is away")])
            with http.stream("GET", "/threads/trip/events", headers={"Last-Event-ID": received["id"]}) as response:
                stream = events(response.iter_lines())
                assert next(stream)["event"] == "open"
                missed = next(stream)
            refused = httpx.get(f"{address}/threads/")
    assert (read, encoded, last.endswith(".4")) == ([4, 4], "a/../b", True)
    texts = [json.loads(each["data"])["text"] for each in (received, missed)]
    assert texts == ["while it follows", "while it is away"]
    assert (refused.status_code, refused.headers["content-type"]) == (401, "application/problem+json")


@pytest.mark.parametrize("missing", ["starlette", "sse_starlette"])
def test_a_missing_package_is_reported_with_the_command_that_installs_it(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; import everthread.server; everthread.server.thread_api"
    failed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'everthread[server]'" in failed.stderr


def test_the_page_lists_the_routes() -> None:
    shown = re.findall(r"^\| `([A-Z]+) ([^?`]+)", PAGE.read_text(), re.MULTILINE)
    assert sorted(shown) == sorted((route.method, route.path) for route in ROUTES)


def test_the_page_names_the_statuses() -> None:
    table = PAGE.read_text().partition("## Errors")[2]
    named = {int(each) for row in re.findall(r"^\| ([0-9, ]+) \|", table, re.MULTILINE) for each in row.split(", ")}
    assert {int(status) for route in ROUTES for status in route.statuses} <= named

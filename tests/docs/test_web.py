"""The application of the pages on FastAPI and streaming, served and asked."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType

import httpx
import pytest
from fastapi import FastAPI

from everthread import ThreadKey, open_store
from tests.docs.pages import blocks
from tests.openai_server import HOLD, scripted_openai

CODE = {block.mark.removeprefix("example: "): block.text for block in blocks("python") if "how-to" in str(block.page)}
FILES = {"app": "fastapi", "stream": "streaming", "finish": "finished-stream"}


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Import a module that a page shows, with the modules that it imports beside it."""
    for module, example in FILES.items():
        (tmp_path / f"{module}.py").write_text(CODE[example])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("EVERTHREAD_STORE", f"sqlite:///{tmp_path}/threads.db")
    monkeypatch.setenv("OPENAI_API_KEY", "unused")
    monkeypatch.setenv("OPENAI_MODEL", "scripted")
    yield importlib.import_module
    for module in FILES:
        sys.modules.pop(module, None)


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        yield client


async def stored(folder: Path, user: str) -> int:
    async with open_store(f"sqlite:///{folder}/threads.db") as store:
        return len(await store.read(ThreadKey("trip", user)))


async def test_a_thread_of_one_user_is_not_reached_by_another(
    load: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    with scripted_openai("Hello, Ana.", "Still here, Ana.", "Hello, stranger.") as openai:
        monkeypatch.setenv("OPENAI_BASE_URL", openai.url)
        app = load("app").app
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://x") as http,
        ):
            for user, text in (("ana", "I am Ana."), ("ana", "Who am I?"), ("ben", "Who am I?")):
                await http.post("/threads/trip/messages", json={"text": text}, headers={"X-User": user})
            answer = await http.get("/threads/trip/messages", headers={"X-User": "ana"})
            other = await http.get("/threads/trip/messages", headers={"X-User": "ben"})
    assert [message["text"] for message in answer.json()][::2] == ["I am Ana.", "Who am I?"]
    assert len(other.json()) == 2
    assert "I am Ana." in str(openai.requests[1]["messages"])
    assert "I am Ana." not in str(openai.requests[2]["messages"])


@pytest.mark.parametrize(("module", "path"), [("stream", "stream"), ("finish", "finished-stream")])
async def test_a_stream_is_stored_when_it_has_ended(
    module: str, path: str, load: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with scripted_openai("Hello, Ana.") as openai:
        monkeypatch.setenv("OPENAI_BASE_URL", openai.url)
        app = load(module).app
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://x") as http,
        ):
            headers = {"X-User": "ana"}
            answer = await http.post(f"/threads/trip/{path}", json={"text": "I am Ana."}, headers=headers)
            await asyncio.gather(*getattr(sys.modules[module], "running", ()))
    assert answer.text == "Hello, Ana."
    assert await stored(tmp_path, "ana") == 2


@pytest.mark.parametrize(("module", "name", "kept"), [("stream", "stream", 0), ("finish", "finished_stream", 2)])
async def test_a_client_that_disconnects_leaves_what_the_page_says(
    module: str,
    name: str,
    kept: int,
    load: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    reply = ["Hello, ", "Ana.", HOLD] if module == "stream" else ["Hello, ", "Ana."]
    with scripted_openai(reply) as openai:
        monkeypatch.setenv("OPENAI_BASE_URL", openai.url)
        shown, application = load(module), load("app")
        async with application.app.router.lifespan_context(application.app):
            threads = application.app.state.store.tenant("ana")
            response = await getattr(shown, name)("trip", application.Question(text="I am Ana."), threads)
            assert await anext(text async for text in response.body_iterator if text)
            await response.body_iterator.aclose()
            await asyncio.gather(*getattr(shown, "running", ()))
    assert await stored(tmp_path, "ana") == kept

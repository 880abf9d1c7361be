"""A ChatKit server on every engine, whose agent has its session in the same thread."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from agents import Agent, OpenAIResponsesModel, RunConfig, Runner
from chatkit.agents import AgentContext, stream_agent_response
from chatkit.server import ChatKitServer, NonStreamingResult, StreamingResult
from chatkit.store import NotFoundError
from chatkit.types import (
    AssistantMessageContent,
    AssistantMessageItem,
    ClosedStatus,
    HiddenContextItem,
    ImageAttachment,
    ThreadMetadata,
    UserMessageItem,
)
from openai import AsyncOpenAI
from pydantic import AnyUrl

from everthread import (
    ConfigurationError,
    CorruptRecordError,
    InvalidMessageError,
    Store,
    ThreadKey,
    UnsupportedError,
    open_store,
)
from everthread.adapters.chatkit import EverthreadChatKitStore
from everthread.testing.guarantees.event_loops import LOOPS, run
from tests.places import empty_place
from tests.responses_server import ScriptedResponses, scripted_responses

BEGIN = datetime(2026, 1, 2, 3, 4, 5)
KEY = ThreadKey("trip")


@pytest.fixture
def model() -> Iterator[ScriptedResponses]:
    with scripted_responses() as running:
        yield running


def item(number: int, text: str = "Hello") -> AssistantMessageItem:
    content = [AssistantMessageContent(text=text)]
    at = BEGIN + timedelta(seconds=number)
    return AssistantMessageItem(id=f"msg_{number}", thread_id="trip", created_at=at, content=content)


class Server(ChatKitServer[str]):
    """A server as an application writes it: the agent gets the new message, and its session has the others."""

    def __init__(self, store: EverthreadChatKitStore, url: str) -> None:
        super().__init__(store)
        self.threads = store
        client = AsyncOpenAI(base_url=url, api_key="none")
        self.agent = Agent[Any](name="Planner", model=OpenAIResponsesModel("scripted", client))

    async def respond(
        self, thread: ThreadMetadata, input_user_message: UserMessageItem | None, context: str
    ) -> AsyncIterator[Any]:
        assert input_user_message is not None
        session = self.threads.session(thread.id, context)
        agent_context = AgentContext(thread=thread, store=self.store, request_context=context)
        text = "".join(part.text for part in input_user_message.content)
        config = RunConfig(tracing_disabled=True)
        result = Runner.run_streamed(self.agent, text, session=session, context=agent_context, run_config=config)
        async for event in stream_agent_response(agent_context, result):
            yield event

    async def send(self, kind: str, context: str = "ada", **params: Any) -> Any:
        answer = await self.process(json.dumps({"type": kind, "params": params}), context)
        if isinstance(answer, NonStreamingResult):
            return json.loads(answer.json)
        assert isinstance(answer, StreamingResult)
        return [json.loads(event.removeprefix(b"data: ")) async for event in answer]


def message(text: str) -> dict[str, Any]:
    return {"content": [{"type": "input_text", "text": text}], "attachments": [], "inference_options": {}}


async def test_the_agent_and_the_ui_have_one_thread(store: Store, model: ScriptedResponses) -> None:
    chat = EverthreadChatKitStore(store, tenant=lambda user: user)
    server = Server(chat, model.url)
    events = await server.send("threads.create", input=message("Rome?"))
    thread_id = events[0]["thread"]["id"]
    await server.send("threads.add_user_message", thread_id=thread_id, input=message("And Milan?"))
    assert model.refused == []
    assert len(model.requests[-1]["input"]) == 3

    found = await server.send("threads.get_by_id", thread_id=thread_id)
    shown = [each["content"][0]["text"] for each in found["items"]["data"] if "content" in each]
    assert sorted(shown) == sorted(["Rome?", "Done.", "And Milan?", "Done."])
    assert len(await chat.session(thread_id, "ada").get_items()) == 4

    await server.send("threads.update", thread_id=thread_id, title="Journeys")
    listed = await store.list_threads("ada")
    assert [(each.key.thread_id, each.title, each.count) for each in listed] == [(thread_id, "Journeys", 4)]
    assert [each["title"] for each in (await server.send("threads.list"))["data"]] == ["Journeys"]
    assert (await server.send("threads.list", context="bob"))["data"] == []
    with pytest.raises(NotFoundError):
        await server.send("threads.get_by_id", context="bob", thread_id=thread_id)

    await server.send("threads.delete", thread_id=thread_id)
    assert await store.get_thread(ThreadKey(thread_id, "ada")) is None


async def test_descriptions_of_threads_come_back_unchanged(store: Store) -> None:
    chat = EverthreadChatKitStore(store)
    with pytest.raises(NotFoundError):
        await chat.load_thread("trip", None)
    saved = ThreadMetadata(id="trip", created_at=BEGIN, title="Rome", metadata={"n": [1, None]})
    saved.allowed_image_domains = ["example.org"]
    await chat.save_thread(saved, None)
    assert await chat.load_thread("trip", None) == saved
    thread = await store.get_thread(KEY)
    assert thread is not None
    await store.update_thread(KEY, metadata={**thread.metadata, "label": 1})
    saved.status = ClosedStatus(reason="done")
    await chat.save_thread(saved, None)
    assert await chat.load_thread("trip", None) == saved
    thread = await store.get_thread(KEY)
    assert thread is not None
    assert thread.metadata["label"] == 1
    for _ in range(2):
        await chat.delete_thread("trip", None)


async def test_a_thread_of_a_session_alone_is_listed(store: Store) -> None:
    chat = EverthreadChatKitStore(store)
    await chat.session("trip", None).add_items([{"role": "user", "content": "Rome?"}])
    assert (await chat.load_thread("trip", None)).title == "Rome?"
    assert [each.id for each in (await chat.load_threads(10, None, "desc", None)).data] == ["trip"]


async def test_items_are_paged_in_both_orders(store: Store) -> None:
    chat = EverthreadChatKitStore(store)
    for number in (3, 1, 0, 4, 2):
        await chat.add_thread_item("trip", item(number), None)
    for order, numbers in (("asc", [0, 1, 2, 3, 4]), ("desc", [4, 3, 2, 1, 0])):
        after, pages = None, []
        while not pages or pages[-1].has_more:
            pages.append(await chat.load_thread_items("trip", after, 2, order, None))
            after = pages[-1].after
        assert [each.id for page in pages for each in page.data] == [f"msg_{number}" for number in numbers]
        assert [len(page.data) for page in pages] == [2, 2, 1]
    assert (await chat.load_thread_items("none", None, 2, "asc", None)).data == []
    with pytest.raises(NotFoundError):
        await chat.load_thread_items("trip", "msg_9", 2, "asc", None)
    with pytest.raises(ConfigurationError, match="limit"):
        await chat.load_thread_items("trip", None, 0, "asc", None)


async def test_an_item_is_replaced_in_its_place_and_deleted(store: Store) -> None:
    chat = EverthreadChatKitStore(store)
    for number in range(3):
        await chat.add_thread_item("trip", item(number), None)
    changed = item(1, "Changed " * 100_000)
    changed.created_at = BEGIN + timedelta(days=1)
    await chat.save_item("trip", changed, None)
    assert await chat.load_item("trip", "msg_1", None) == changed
    page = await chat.load_thread_items("trip", None, 10, "asc", None)
    assert [each.id for each in page.data] == ["msg_0", "msg_1", "msg_2"]
    for _ in range(2):
        await chat.delete_thread_item("trip", "msg_1", None)
    with pytest.raises(NotFoundError):
        await chat.load_item("trip", "msg_1", None)
    assert len((await chat.load_thread_items("trip", None, 10, "asc", None)).data) == 2


async def test_concurrent_writers_lose_no_item(store: Store) -> None:
    chats = [EverthreadChatKitStore(store) for _ in range(2)]
    await asyncio.gather(*(chats[number % 2].add_thread_item("trip", item(number), None) for number in range(10)))
    page = await chats[0].load_thread_items("trip", None, 20, "asc", None)
    assert [each.id for each in page.data] == [f"msg_{number}" for number in range(10)]


async def test_values_that_json_alters_are_refused(store: Store) -> None:
    chat = EverthreadChatKitStore(store)
    for unfit in (float("nan"), b"x", BEGIN, "\ud800"):
        hidden = HiddenContextItem(id="h", thread_id="trip", created_at=BEGIN, content={"a": unfit})
        with pytest.raises(InvalidMessageError):
            await chat.add_thread_item("trip", hidden, None)
    assert (await chat.load_thread_items("trip", None, 2, "asc", None)).data == []


async def test_attachments_belong_to_their_tenant(store: Store) -> None:
    chat = EverthreadChatKitStore(store, tenant=lambda user: user)
    url = AnyUrl("https://example.org/a.png")
    saved = ImageAttachment(id="atc_1", name="a.png", mime_type="image/png", preview_url=url, metadata={"n": 1})
    await chat.save_attachment(saved, "ada")
    assert await chat.load_attachment("atc_1", "ada") == saved
    assert (await chat.load_threads(10, None, "desc", "ada")).data == []
    with pytest.raises(NotFoundError):
        await chat.load_attachment("atc_1", "bob")
    for _ in range(2):
        await chat.delete_attachment("atc_1", "ada")
    with pytest.raises(NotFoundError):
        await chat.load_attachment("atc_1", "ada")
    with pytest.raises(NotFoundError):
        await chat.load_thread("chatkit:attachments", "ada")


async def test_threads_are_paged_newest_first(store: Store) -> None:
    chat = EverthreadChatKitStore(store)
    for number in range(5):
        await chat.save_thread(ThreadMetadata(id=f"t{number}", created_at=BEGIN), None)
    first = await chat.load_threads(3, None, "desc", None)
    second = await chat.load_threads(3, first.after, "desc", None)
    assert (first.has_more, second.has_more) == (True, False)
    assert sorted(each.id for each in [*first.data, *second.data]) == [f"t{number}" for number in range(5)]
    with pytest.raises(UnsupportedError, match="desc"):
        await chat.load_threads(3, None, "asc", None)


async def test_a_record_of_another_form_is_reported(store: Store) -> None:
    chat = EverthreadChatKitStore(store)
    await chat.add_thread_item("trip", item(1), None)
    name = next(each for each in await store.list_documents(KEY) if "msg_1" in each)
    await store.put_document(KEY, name, b'{"value":{"type":"private text"}}')
    with pytest.raises(CorruptRecordError, match="msg_1") as caught:
        await chat.load_item("trip", "msg_1", None)
    assert "private text" not in str(caught.value)


async def test_one_damaged_record_hides_no_other(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    chat = EverthreadChatKitStore(store)
    for number in range(3):
        await chat.add_thread_item("trip", item(number), None)
    name = next(each for each in await store.list_documents(KEY) if "msg_1" in each)
    await store.put_document(KEY, name, b'{"value":{"type":"private text"}}')
    page = await chat.load_thread_items("trip", None, 3, "asc", None)
    assert ([each.id for each in page.data], page.has_more) == (["msg_0", "msg_2"], False)
    await chat.save_thread(ThreadMetadata(id="other", created_at=BEGIN), None)
    await store.update_thread(KEY, title="Rome", metadata={"chatkit": {"status": "private text"}})
    listed = {each.id: each.title for each in (await chat.load_threads(5, None, "desc", None)).data}
    assert listed == {"other": None, "trip": "Rome"}
    with pytest.raises(CorruptRecordError):
        await chat.load_thread("trip", None)
    assert "msg_1" in caplog.text
    assert "private text" not in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["postgres", "objects"])
async def test_other_engines_store_threads_and_items(
    engine: str, model: ScriptedResponses, request: pytest.FixtureRequest
) -> None:
    async with open_store(empty_place(request, engine)) as store:
        await test_the_agent_and_the_ui_have_one_thread(store, model)
        await test_items_are_paged_in_both_orders(store)


@pytest.mark.parametrize("loop", list(LOOPS))
def test_a_store_by_url_works_in_every_loop(loop: str, request: pytest.FixtureRequest) -> None:
    chat = EverthreadChatKitStore(empty_place(request, "sqlite"))

    async def use(number: int) -> int:
        await chat.add_thread_item("trip", item(number), None)
        return len((await chat.load_thread_items("trip", None, 10, "asc", None)).data)

    assert [run(use(number), LOOPS[loop]) for number in range(3)] == [1, 2, 3]

"""Sessions of the framework's history over vector stores are imported as its own provider reads them."""

from __future__ import annotations

import agent_framework
import pytest
from agent_framework import Message

from everthread import Store
from everthread.adapters.agent_framework import EverthreadHistoryProvider
from everthread.transfer import import_threads
from everthread.transfer.foreign.vector_history import VectorHistorySource

if not hasattr(agent_framework, "VectorStoreHistoryProvider"):
    pytest.skip("vector stores came with agent-framework-core 1.18", allow_module_level=True)

from agent_framework import InMemoryStore, VectorStoreHistoryProvider

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def said(*texts: str) -> list[Message]:
    return [Message("user" if n % 2 == 0 else "assistant", [text]) for n, text in enumerate(texts)]


@pytest.mark.parametrize("contents_format", ["json", "msgpack"])
async def test_sessions_continue_with_the_provider_of_everthread(target: Store, contents_format: str) -> None:
    vectors = InMemoryStore()
    made = {"application_id": "app", "contents_format": contents_format}
    former = VectorStoreHistoryProvider(vectors, tenant_id="acme", **made)
    others = VectorStoreHistoryProvider(vectors, "notes", **made)
    unrelated = VectorStoreHistoryProvider(vectors, application_id="b", contents_format=contents_format)
    await former.save_messages("trip", said("Hello", "Hi", "yes", "ok", "yes"))
    await former.save_messages("~x", said(*(str(n) for n in range(250))))
    await others.save_messages("trip", said("a note"))
    await unrelated.save_messages("trip", said("of another application"))
    source = VectorHistorySource(vectors, **made)
    assert (await import_threads(target, source)).threads == {"new": 3}
    assert (await import_threads(target, source)).threads == {"unchanged": 3}
    await former.save_messages("trip", said("later"))
    assert (await import_threads(target, source)).threads == {"extended": 1, "unchanged": 2}
    for provider, options in ((former, {"tenant": "acme"}), (others, {"source_id": "notes"})):
        ours = EverthreadHistoryProvider(target, **options)
        for session in ("trip", "~x"):
            expected = [message.to_dict() for message in await provider.get_messages(session)]
            assert [message.to_dict() for message in await ours.get_messages(session)] == expected


async def test_a_scope_of_an_agent_is_read_alone(target: Store) -> None:
    vectors = InMemoryStore()
    for agent in (None, "planner"):
        provider = VectorStoreHistoryProvider(vectors, application_id="app", agent_id=agent)
        await provider.save_messages("trip", said(f"to {agent}"))
    await import_threads(target, VectorHistorySource(vectors, application_id="app", agent_id="planner"))
    assert [each.text for each in await EverthreadHistoryProvider(target).get_messages("trip")] == ["to planner"]


async def test_records_that_are_no_messages_fail_their_session_alone(target: Store) -> None:
    vectors = InMemoryStore()
    provider = VectorStoreHistoryProvider(vectors, application_id="app")
    for session in ("bad", "good", "x" * 600):
        await provider.save_messages(session, said("Hello"))
    records = provider._collection
    (bad,) = [each for each in await records.get(top=10) if each["session_id"] == "bad"]
    await records.upsert([bad | {"message": "{"}], generate_vectors=False)
    report = await import_threads(target, VectorHistorySource(vectors, application_id="app"))
    assert report.threads == {"new": 1, "failed": 1}
    assert len(report.skipped) == 1
    assert len(await EverthreadHistoryProvider(target).get_messages("good")) == 1

"""Earlier turns of other sessions are added to a run, marked, bounded and never stored again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from agent_framework import Message

from everthread import ConfigurationError, StoreUnavailableError, ThreadKey, open_store
from everthread.adapters.agent_framework import EverthreadHistoryProvider, EverthreadRecall
from everthread.listing import ThreadFilter, tag_thread
from everthread.recall import Follower, FunctionEmbedder, SqliteVectorIndex
from tests.adapters.agents import agent_with, run
from tests.adapters.scripted import Call, ScriptedClient
from tests.recall.embedding import DIMENSIONS, words_embedder

INVOICE = ("My second invoice is wrong, order 4711", "I corrected the second invoice.")


async def indexed(store, tmp_path: Path, **talks: tuple[str, str]) -> SqliteVectorIndex:
    history = EverthreadHistoryProvider(store)
    for session, (question, answer) in talks.items():
        await history.save_messages(session, [Message("user", [question]), Message("assistant", [answer])])
    index = SqliteVectorIndex(tmp_path / "index.db", words_embedder())
    await Follower(store, index, words_embedder(), allow_encrypted=True).catch_up()
    return index


def texts(client: ScriptedClient) -> list[str]:
    return [message.text for message in client.seen[-1]]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_run_gets_the_nearest_turn_of_another_session(store, tmp_path: Path, stream: bool) -> None:
    index = await indexed(store, tmp_path, invoice=INVOICE, trip=("I prefer trains", "Noted."))
    history = EverthreadHistoryProvider(store)
    client = ScriptedClient("It was corrected.")
    recalling = EverthreadRecall(store, index, words_embedder(), limit=1, min_score=0.2)
    agent = agent_with(client, history, recalling)
    assert await run(agent, "What about the second invoice?", stream=stream) == "It was corrected."
    added, asked = texts(client)[-2:]
    assert asked == "What about the second invoice?"
    assert "order 4711" in added
    assert "[invoice, position 0" in added
    assert "follow no instructions" in added
    assert "trains" not in added
    stored = await history.get_messages("trip")
    assert [message.text for message in stored][-2:] == ["What about the second invoice?", "It was corrected."]
    assert len(stored) == 4
    await index.aclose()


async def test_turns_of_the_session_itself_are_left_out(store, tmp_path: Path) -> None:
    index = await indexed(store, tmp_path, trip=INVOICE)
    client = ScriptedClient("Yes.")
    recalling = EverthreadRecall(store, index, words_embedder(), min_score=-1)
    await run(agent_with(client, EverthreadHistoryProvider(store), recalling), "second invoice")
    assert not any("Parts of earlier" in text for text in texts(client))
    await index.aclose()


async def test_a_filter_and_limits_bound_the_added_message(store, tmp_path: Path) -> None:
    talks = {f"t{number}": (f"second invoice {number} " + "word " * 100, "Yes.") for number in range(6)}
    index = await indexed(store, tmp_path, **talks)
    for name in ("t1", "t2", "t4"):
        await tag_thread(store, ThreadKey(name), {"user": "ana"})
    only = ThreadFilter(metadata={"user": "ana"})
    client = ScriptedClient("Yes.", "Yes.")
    options = {"only": lambda session: only, "limit": 2, "min_score": -1, "max_characters": 300}
    recalling = EverthreadRecall(store, index, words_embedder(), **options)
    await run(agent_with(client, recalling), "second invoice")
    (added,) = [text for text in texts(client) if "Parts of earlier" in text]
    _, _, body = added.partition("\n\n")
    assert len(body) <= 300
    assert all(f"[t{number}," not in body for number in (0, 3, 5))
    strict = EverthreadRecall(store, index, words_embedder(), min_score=1.0)
    await run(agent_with(client, strict), "nothing alike")
    assert not any("Parts of earlier" in text for text in texts(client))
    await index.aclose()


async def test_the_model_can_ask_itself(store, tmp_path: Path) -> None:
    index = await indexed(store, tmp_path, invoice=INVOICE)
    client = ScriptedClient([Call("recall_conversations", {"question": "second invoice"})], "Corrected.")
    recalling = EverthreadRecall(store, index, words_embedder(), add=False, search_tool=True, min_score=0.1)
    assert await run(agent_with(client, recalling), "When?") == "Corrected."
    results = [str(c.result) for message in client.seen[-1] for c in message.contents if c.type == "function_result"]
    assert "order 4711" in results[0]
    with pytest.raises(ConfigurationError, match="does nothing"):
        EverthreadRecall(store, index, words_embedder(), add=False)
    await index.aclose()


@pytest.mark.parametrize("failure", ["refuses", "hangs"])
async def test_a_run_goes_on_if_the_model_of_recall_fails(store, tmp_path: Path, caplog, failure: str) -> None:
    async def embed(texts: Sequence[str]) -> list[list[float]]:
        if failure == "hangs":
            await asyncio.Event().wait()
        raise StoreUnavailableError("It is down.")

    embedder = FunctionEmbedder(embed, name="words", dimensions=DIMENSIONS)
    index = await indexed(store, tmp_path, invoice=INVOICE)
    client = ScriptedClient("Yes.")
    recalling = EverthreadRecall(store, index, embedder, timeout=0.05)
    assert await run(agent_with(client, recalling), "second invoice") == "Yes."
    assert "goes on without recall" in caplog.text
    await index.aclose()


async def test_another_tenants_turns_are_never_added(tmp_path: Path) -> None:
    async with open_store(f"sqlite:///{tmp_path}/threads.db") as store:
        history = EverthreadHistoryProvider(store, tenant="acme")
        await history.save_messages("invoice", [Message("user", [INVOICE[0]])])
        index = SqliteVectorIndex(tmp_path / "threads.db", words_embedder())
        await Follower(store, index, words_embedder(), tenants=None).catch_up()
        client = ScriptedClient("Yes.", "Yes.")
        for tenant, is_added in (("globex", False), ("acme", True)):
            recalling = EverthreadRecall(store, index, words_embedder(), tenant=tenant, min_score=-1)
            await run(agent_with(client, recalling), "second invoice")
            assert any("Parts of earlier" in text for text in texts(client)) is is_added
        await index.aclose()

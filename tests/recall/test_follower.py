"""An index that follows a store, whatever happens to its threads, and answers that are checked against the store."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from everthread import (
    ConfigurationError,
    InvalidMessageError,
    Retention,
    Store,
    StoreUnavailableError,
    ThreadKey,
    new_message,
    open_store,
)
from everthread.listing import ThreadFilter
from everthread.model import Message
from everthread.recall import (
    Embedder,
    Follower,
    FunctionEmbedder,
    PostgresVectorIndex,
    RedisVectorIndex,
    SqliteVectorIndex,
    recall,
)
from everthread.recall.index import VectorIndex
from everthread.recall.passages import passages_of
from everthread.wrappers.encryption import Encrypted
from tests.places import empty_place
from tests.recall.embedding import DIMENSIONS, words_embedder
from tests.wrappers.sealed_places import KEYRING

KEY = ThreadKey("trip")


async def say(store: Store, key: ThreadKey, question: str, answer: str, retention: Retention | None = None) -> None:
    turn = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    await store.append(key, [new_message(each) for each in turn], retention=retention)


async def content(index: VectorIndex, tenant: str = "") -> dict[tuple[str, int, int], bytes]:
    """Everything that an index has of a tenant."""
    found: dict[tuple[str, int, int], bytes] = {}
    for thread_id in await index.threads(tenant, limit=10_000):
        for (turn, part), digest in (await index.entries(ThreadKey(thread_id, tenant))).items():
            found[thread_id, turn, part] = digest
    return found


async def wanted(store: Store, *keys: ThreadKey) -> dict[tuple[str, int, int], bytes]:
    """What an index of these threads should have."""
    found: dict[tuple[str, int, int], bytes] = {}
    for key in keys:
        turns: dict[int, list[Message]] = {}
        for message in await store.read(key):
            turns.setdefault(message.turn, []).append(message)
        for turn, messages in turns.items():
            for each in passages_of(messages):
                found[key.thread_id, turn, each.part] = each.digest
    return found


async def test_a_turn_is_found_by_its_words_on_every_engine(every_url: str, tmp_path: Path) -> None:
    async with open_store(every_url) as store:
        await say(store, KEY, "I prefer night trains", "Noted: night trains.")
        await say(store, KEY, "And hotels near the station", "Fine.")
        await say(store, ThreadKey("bread"), "How long does sourdough rise?", "Twelve hours.")
        index, embedder = SqliteVectorIndex(tmp_path / "index.db", words_embedder()), words_embedder()
        done = await Follower(store, index, embedder).catch_up()
        assert (done.threads, done.added) == (2, 3)
        best = (await recall(store, index, embedder, "night trains", limit=2))[0]
        assert (best.key, best.seq, best.turn) == (KEY, 0, 0)
        assert best.snippet == "I prefer night trains\nNoted: night trains."
        assert (await recall(store, index, embedder, "sourdough rise"))[0].key == ThreadKey("bread")
        assert "night" not in repr(best)
        await index.aclose()


async def test_the_index_follows_every_kind_of_change(every_url: str, tmp_path: Path) -> None:
    async with open_store(every_url) as store:
        index = SqliteVectorIndex(tmp_path / "index.db", words_embedder())
        follower = Follower(store, index, words_embedder())
        other = ThreadKey("other")
        for number in range(6):
            await say(store, KEY, f"question {number}", f"answer {number}")
            await say(store, other, f"query {number}", f"reply {number}")
        await follower.catch_up()
        assert await content(index) == await wanted(store, KEY, other)
        assert (await follower.catch_up()).added == 0

        await store.truncate(KEY, stop=8)  # undo, then another turn
        await say(store, KEY, "after the undo", "yes")
        await say(store, other, "trimmed", "now", retention=Retention(max_messages=4))
        await follower.catch_up(whole=False)
        assert await content(index) == await wanted(store, KEY, other)

        await store.delete_thread(KEY)
        await say(store, KEY, "a new thread of the same name", "indeed")
        await store.delete_thread(other)
        await follower.catch_up()
        assert await content(index) == await wanted(store, KEY)
        assert (await follower.lag()).threads == 0
        await index.aclose()


@pytest.mark.parametrize("engine", ["redis", "postgres"])
async def test_an_index_in_the_stores_own_server_follows_it(engine: str, request: pytest.FixtureRequest) -> None:
    url, embedder = empty_place(request, engine), words_embedder()
    index = RedisVectorIndex(url, embedder) if engine == "redis" else PostgresVectorIndex(url, embedder)
    async with open_store(url) as store:
        follower, keys = Follower(store, index, embedder, tenants=None), [ThreadKey("trip"), ThreadKey("t", "acme")]
        for key in keys:
            for number in range(4):
                await say(store, key, f"question {number}", f"answer {number} " + "word " * 300)
        await follower.catch_up()
        for key in keys:
            assert await content(index, key.tenant) == await wanted(store, key)
            await store.truncate(key, stop=6)
            await say(store, key, "another", "end")
        await follower.catch_up(whole=False)
        for key in keys:
            assert await content(index, key.tenant) == await wanted(store, key)
        assert (await recall(store, index, embedder, "another end"))[0].turn == 8
        await store.delete_tenant("acme")
        assert (await follower.catch_up()).removed == 1
        assert (await index.count("acme"), list(await index.tenants())) == (0, [""])
    await index.aclose()


async def test_what_was_deleted_or_changed_is_never_returned(every_url: str, tmp_path: Path) -> None:
    """Also before the follower has seen it."""
    async with open_store(every_url) as store:
        index, embedder = SqliteVectorIndex(tmp_path / "index.db", words_embedder()), words_embedder()
        await say(store, KEY, "kept words", "yes")
        await say(store, KEY, "secret words", "no")
        await say(store, ThreadKey("gone"), "secret words too", "no")
        await Follower(store, index, embedder).catch_up()
        await store.truncate(KEY, stop=2)
        await store.delete_thread(ThreadKey("gone"))
        found = await recall(store, index, embedder, "secret words")
        assert [(each.key, each.turn) for each in found] == [(KEY, 0)]
        await index.aclose()


async def test_erasing_a_tenant_reaches_the_index(every_url: str, tmp_path: Path) -> None:
    async with open_store(every_url) as store:
        index = SqliteVectorIndex(tmp_path / "index.db", words_embedder())
        follower = Follower(store, index, words_embedder(), tenants=("acme", "other"))
        await say(store, ThreadKey("t", "acme"), "secret", "yes")
        await say(store, ThreadKey("t", "other"), "kept", "yes")
        await follower.catch_up()
        await store.delete_tenant("acme")
        done = await follower.catch_up()
        assert done.removed == 1
        assert (await index.count("acme"), await index.count("other")) == (0, 1)
        await index.aclose()


async def test_filters_and_limits(tmp_path: Path) -> None:
    async with open_store("memory:") as store:
        index, embedder = SqliteVectorIndex(tmp_path / "index.db", words_embedder()), words_embedder()
        for number in range(60):
            await say(store, ThreadKey(f"t{number}"), "the second invoice", f"number {number}")
        await store.update_thread(ThreadKey("t7"), metadata={"customer": "acme"})
        await Follower(store, index, embedder).catch_up()
        tagged = await recall(
            store, index, embedder, "invoice", threads=ThreadFilter(metadata={"customer": "acme"}), limit=3
        )
        assert [each.key.thread_id for each in tagged] == ["t7"]
        assert len(await recall(store, index, embedder, "invoice", limit=17)) == 17
        assert not await recall(store, index, embedder, "invoice", tenant="nobody")
        for wrong in ("", "  ", "x" * 10_001, 7):
            with pytest.raises(InvalidMessageError):
                await recall(store, index, embedder, wrong)  # pyright: ignore[reportArgumentType]
        with pytest.raises(ConfigurationError, match="at most 100"):
            await recall(store, index, embedder, "x", limit=101)
        with pytest.raises(ConfigurationError, match="model"):
            await recall(store, index, words_embedder("another"), "x")
        await index.aclose()


async def test_encrypted_stores_are_not_indexed_unless_that_is_asked_for(tmp_path: Path) -> None:
    store = Encrypted(open_store("memory:"), KEYRING)
    async with store:
        await say(store, KEY, "sealed words", "yes")
        index = SqliteVectorIndex(tmp_path / "index.db", words_embedder())
        with pytest.raises(ConfigurationError, match="encrypted"):
            Follower(store, index, words_embedder())
        await Follower(store, index, words_embedder(), allow_encrypted=True).catch_up()
        assert (await recall(store, index, words_embedder(), "sealed"))[0].key == KEY
        await index.aclose()


async def test_following_goes_on_after_the_model_failed(tmp_path: Path) -> None:
    failures = 2

    async def failing(texts: Sequence[str]) -> list[list[float]]:
        nonlocal failures
        if failures:
            failures -= 1
            raise StoreUnavailableError("The model is down.")
        return [[1.0] * DIMENSIONS for _ in texts]

    embedder = FunctionEmbedder(failing, name="failing", dimensions=DIMENSIONS)
    async with open_store("memory:") as store:
        await say(store, KEY, "hello", "yes")
        index = SqliteVectorIndex(tmp_path / "index.db", embedder)
        follower = Follower(store, index, embedder)
        task = asyncio.create_task(follower.follow(interval=0.01))
        async with asyncio.timeout(60):
            while not await index.count(""):
                await asyncio.sleep(0.01)
        await say(store, KEY, "again", "yes")
        async with asyncio.timeout(60):
            while await index.count("") < 2:
                await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await follower.lag()).messages == 0
        await index.aclose()


async def test_two_followers_double_nothing(url: str, tmp_path: Path) -> None:
    async with open_store(url) as store:
        keys = [ThreadKey(f"t{number}") for number in range(8)]
        for key in keys:
            for number in range(5):
                await say(store, key, f"question {number}", "yes")
        indexes = [SqliteVectorIndex(tmp_path / "index.db", words_embedder()) for _ in range(2)]
        followers = [Follower(store, index, words_embedder()) for index in indexes]
        await asyncio.gather(*(follower.catch_up() for follower in followers))
        await followers[0].catch_up()
        assert await content(indexes[0]) == await wanted(store, *keys)
        for index in indexes:
            await index.aclose()


class _Mortal(SqliteVectorIndex):
    """An index whose process is killed at its nth write, before or after it."""

    def __init__(self, path: Path, embedder: Embedder, fatal: int, *, after: bool) -> None:
        super().__init__(path, embedder)
        self._left, self._after = fatal, after

    async def add(self, *arguments: object, **options: object) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]
        self._left -= 1
        if self._left == 0 and not self._after:
            os.kill(os.getpid(), signal.SIGKILL)
        done = await super().add(*arguments, **options)  # pyright: ignore[reportArgumentType]
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return done


def _follow_until_killed(url: str, path: Path, fatal: int, *, after: bool) -> bool:
    """Run a pass in a child process; return whether it was killed."""
    child = os.fork()
    if child == 0:
        status = 1
        try:

            async def follow() -> None:
                async with open_store(url) as store:
                    index = _Mortal(path, words_embedder(), fatal, after=after)
                    await Follower(store, index, words_embedder()).catch_up()
                    await index.aclose()

            asyncio.run(follow())
            status = 0
        finally:
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    assert os.WIFSIGNALED(ended) or os.WEXITSTATUS(ended) == 0
    return os.WIFSIGNALED(ended)


@pytest.mark.slow
def test_fifty_kills_lose_and_double_nothing(url: str, tmp_path: Path) -> None:
    chance = random.Random(3)
    keys = [ThreadKey(f"t{number}") for number in range(12)]
    path = tmp_path / "index.db"
    kills = rounds = 0

    async def change() -> None:
        async with open_store(url) as store:
            for key in keys:
                for number in range(chance.randrange(3)):
                    await say(store, key, f"question {rounds} {number} " + "word " * chance.randrange(2000), "yes")
                page = await store.read_last(key, 4)
                if len(page) == 4 and chance.random() < 0.3:
                    await store.truncate(key, stop=page[2].turn)

    async def check() -> None:
        async with open_store(url) as store:
            index = SqliteVectorIndex(path, words_embedder())
            stored = [key for key in keys if await store.get_thread(key)]
            assert await content(index) == await wanted(store, *stored)
            await index.aclose()

    while kills < 50:
        rounds += 1
        asyncio.run(change())
        while _follow_until_killed(url, path, chance.randrange(1, 8), after=chance.random() < 0.5):
            kills += 1
        asyncio.run(check())

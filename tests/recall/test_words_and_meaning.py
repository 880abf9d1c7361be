"""IDs, numbers and names decide, and the meaning orders the rest."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.recall.__main__ import KINDS, labelled, measure, table
from everthread import ThreadKey, new_message, open_store
from everthread.recall import Follower, SqliteVectorIndex, recall
from everthread.recall.telling_words import MOST_HITS, MOST_WORDS, shared_words, telling_words
from tests.readme import ROOT
from tests.recall.embedding import words_embedder


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("what happened with order 48213", ["48213"]),
        ("RE-2026-0417", ["RE-2026-0417"]),
        ("What did the customer in Porto say about customer_id?", ["customer_id", "Porto"]),
        ("a customer who was charged twice", []),
        ("Refunds of I and We", []),
        ("seven days in March", ["seven", "March"]),
        ("reflog", ["reflog"]),
        ("", []),
        ("?!", []),
        (" ".join(str(number) for number in range(50)), [str(number) for number in range(MOST_WORDS)]),
    ],
)
def test_the_telling_words_of_a_question(question: str, words: list[str]) -> None:
    assert telling_words(question) == words


def test_shared_words_count_words_and_pairs() -> None:
    assert shared_words("the order", "the order") == 2
    assert shared_words("the 90 days", "It costs 79.90 and takes days") == 1
    assert shared_words("of the", "the of") == 0


async def test_a_turn_with_the_number_comes_first_though_others_are_nearer(any_url: str, tmp_path: Path) -> None:
    embedder, index = words_embedder(), SqliteVectorIndex(tmp_path / "index.db", words_embedder())
    async with open_store(any_url) as store:
        for number in range(MOST_HITS + 5):
            text = (
                f"the parcel and the parcel again {number}"
                if number != 7
                else "Another thing: long words that no question has, and 99-41 at the very end of them all"
            )
            await store.append(ThreadKey(f"t{number}"), [new_message({"role": "user", "content": text})])
        await Follower(store, index, embedder).catch_up()
        question = "where is the parcel with reference 99-41"
        assert (await recall(store, index, embedder, question, limit=3))[0].key.thread_id == "t7"
        assert (await recall(store, index, embedder, question, limit=3, by_words=False))[0].key.thread_id != "t7"
        both = await recall(store, index, embedder, question, limit=3)
        assert len({each.key for each in both}) == 3
        await index.aclose()


async def test_a_word_that_most_messages_have_decides_nothing(tmp_path: Path) -> None:
    embedder, index = words_embedder(), SqliteVectorIndex(tmp_path / "index.db", words_embedder())
    async with open_store("memory:") as store:
        for number in range(MOST_HITS + 5):
            text = f"Order 2026: item number {number}" if number else "Order 2026: the blue lamp"
            await store.append(ThreadKey(f"t{number}"), [new_message({"role": "user", "content": text})])
        await Follower(store, index, embedder).catch_up()
        assert (await recall(store, index, embedder, "the blue lamp of 2026", limit=1))[0].key.thread_id == "t0"
        await index.aclose()


@pytest.mark.slow
async def test_recall_is_at_least_as_good_as_words_and_as_meaning_for_every_kind_of_question() -> None:
    _, questions = labelled()
    assert len(questions) >= 200
    measured = await measure()
    for kind in KINDS:
        for position in (0, 1):
            words, meaning, both = (measured[name][kind][position] for name in ("words", "meaning", "recall"))
            assert both >= max(words, meaning) - 1e-9, (kind, position)
    page = (ROOT / "docs" / "how-to" / "search-by-meaning.md").read_text()
    shown = re.search(r"<!-- table: recall -->\n((?:\|.*\n)+)", page)
    assert shown is not None
    assert shown[1].strip() == table(measured)

"""Measure how often the right turn is found: ``python -m bench.recall``.

Prints a table in Markdown: recall@1 and recall@5 by kind of question, for a ranking by words (BM25), by meaning, and
for `everthread.recall.recall`, where IDs, numbers and names decide and meaning orders the rest.
"""

from __future__ import annotations

import asyncio
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from everthread import ThreadKey, new_message, open_store
from everthread.messages.tokenizer import words_of
from everthread.recall import Follower, MiniLMEmbedder, SqliteVectorIndex, recall

KINDS = {"p": "other words", "n": "name", "i": "ID or number", "d": "date"}
LABELLED = Path(__file__).with_name("labelled.txt")
_B, _K = 0.75, 1.2

Rates = dict[str, tuple[float, float, int]]
"""Recall@1, recall@5 and the number of questions, by kind; "" for all."""


class Question(msgspec.Struct, frozen=True):
    """A question, its kind, and the thread with the answer."""

    kind: str
    text: str
    thread: str


def labelled() -> tuple[dict[str, list[tuple[str, str]]], list[Question]]:
    """Return the conversations, as pairs of role and text, and the questions."""
    talks: dict[str, list[tuple[str, str]]] = {}
    questions: list[Question] = []
    thread = ""
    for line in LABELLED.read_text("utf-8").splitlines():
        mark, _, text = line.partition(" ")
        if mark == "==":
            thread = text
            talks[thread] = []
        elif mark in {">", "<"}:
            talks[thread].append(("user" if mark == ">" else "assistant", text))
        elif mark.removesuffix(":") in KINDS and mark.endswith(":"):
            questions.append(Question(mark[0], text, thread))
    return talks, questions


def by_words(talks: dict[str, list[tuple[str, str]]]) -> Callable[[str], list[str]]:
    """Return a ranking of the threads by BM25 (k1 = 1.2, b = 0.75)."""
    words = {thread: Counter(words_of(" ".join(text for _, text in talk))) for thread, talk in talks.items()}
    average = sum(each.total() for each in words.values()) / len(words)

    def score(question: Sequence[str], thread: str) -> float:
        total = 0.0
        for word in question:
            having = sum(word in each for each in words.values())
            rarity = math.log(1 + (len(words) - having + 0.5) / (having + 0.5))
            times = words[thread][word]
            total += rarity * times * (_K + 1) / (times + _K * (1 - _B + _B * words[thread].total() / average))
        return total

    def rank(question: str) -> list[str]:
        asked = words_of(question)
        scores = {thread: score(asked, thread) for thread in words}
        return [thread for thread in sorted(scores, key=lambda each: -scores[each]) if scores[thread] > 0]

    return rank


async def measure() -> dict[str, Rates]:
    """Return the rates of each ranking."""
    talks, questions = labelled()
    embedder = MiniLMEmbedder()
    found: dict[str, list[tuple[Question, list[str]]]] = {"words": [], "meaning": [], "recall": []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "threads.db"
        async with open_store(f"sqlite:///{path}", synchronous="normal") as store:
            for thread, talk in talks.items():
                messages = [new_message({"role": role, "content": text}) for role, text in talk]
                await store.append(ThreadKey(thread), messages)
            index = SqliteVectorIndex(path, embedder)
            await Follower(store, index, embedder).catch_up()
            ranked = by_words(talks)
            for question in questions:
                found["words"].append((question, ranked(question.text)[:5]))
                for name, words in (("meaning", False), ("recall", True)):
                    turns = await recall(store, index, embedder, question.text, limit=5, by_words=words)
                    found[name].append((question, [turn.key.thread_id for turn in turns]))
            await index.aclose()
    return {name: _rates(answers) for name, answers in found.items()}


def _rates(answers: Sequence[tuple[Question, list[str]]]) -> Rates:
    rates: Rates = {}
    for kind in [*KINDS, ""]:
        mine = [(question, threads) for question, threads in answers if kind in {"", question.kind}]
        first = sum(threads[:1] == [question.thread] for question, threads in mine)
        among = sum(question.thread in threads for question, threads in mine)
        rates[kind] = (first / len(mine), among / len(mine), len(mine))
    return rates


def table(measured: dict[str, Rates]) -> str:
    """Return the rates as a table in Markdown."""
    lines = ["| questions | | " + " | ".join(f"{name} @1 | @5" for name in measured) + " |"]
    lines.append("|---|---|" + "---|---|" * len(measured))
    for kind in [*KINDS, ""]:
        count = next(iter(measured.values()))[kind][2]
        cells = " | ".join(f"{rates[kind][0]:.2f} | {rates[kind][1]:.2f}" for rates in measured.values())
        lines.append(f"| {KINDS.get(kind, 'all')} | {count} | {cells} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(asyncio.run(measure())))

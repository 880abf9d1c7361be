"""The words of a question that say more than its meaning: IDs, numbers and names; and the turns that have them."""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import pairwise

from everthread.contract import Store
from everthread.errors import UnsupportedError
from everthread.messages.tokenizer import words_of
from everthread.model import ThreadKey
from everthread.operations.search import Findings, search

MOST_WORDS = 6
"""The most telling words of a question that are searched for."""
MOST_HITS = 20
"""A word in more messages than this tells little."""
WORD_SECONDS = 2.0
"""The time for the searches of one question. A store without an index scans its newest threads for as long."""

_WORD = re.compile(r"[^\W_][\w./:@#+-]*[^\W_]|[^\W_]")
_COMMON = frozenset(
    "a about after all an and any are at before by can could did do does for from had has have he her his how i if in "  # noqa: SIM905 (a list of 70 words takes 70 lines)
    "is it its me my no not of on or our please she should somebody someone that the their there they this to until us "
    "was we were what when where which who whom why will with would yes you your".split()
)

_NUMBERS = frozenset(
    "five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "  # noqa: SIM905 (as above)
    "nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand january february march april june "
    "july august september october november december".split()
)
"""Numbers in words from five on, and months but May: others are too common."""


def telling_words(question: str) -> list[str]:
    """Return the IDs, numbers and names of a question: words with a digit, an underline or a capital.

    At most `MOST_WORDS`, those with a digit first. A capital does not count for common words and for a question's first
    word. The only word of a question always counts.
    """
    words = _WORD.findall(question)
    if len(words) == 1:
        return words
    found = {word: _rank(word, is_first=index == 0) for index, word in enumerate(words)}
    chosen = sorted((word for word, rank in found.items() if rank), key=lambda word: -found[word])
    return chosen[:MOST_WORDS]


def _rank(word: str, *, is_first: bool) -> int:
    if any(character.isdigit() for character in word) or "_" in word:
        return 2
    if word.casefold() in _NUMBERS:
        return 1
    is_name = word[:1].isupper() and word.casefold() not in _COMMON and not is_first
    return 1 if is_name or any(character.isupper() for character in word[1:]) else 0


def shared_words(question: str, text: str) -> float:
    """Return how many words and pairs of words of a question a text has: 0 to 2. Common words count in pairs only."""
    asked, had = words_of(question), words_of(text)
    words, pairs = set(asked) - _COMMON, set(pairwise(asked))
    of_words = len(words & set(had)) / len(words) if words else 0.0
    return of_words + (len(pairs & set(pairwise(had))) / len(pairs) if pairs else 0.0)


async def messages_with(store: Store, tenant: str, words: list[str]) -> dict[tuple[ThreadKey, int], dict[str, float]]:
    """Return the messages with telling words, by thread and position: their words, and 1 / the number of messages."""
    weights: dict[tuple[ThreadKey, int], dict[str, float]] = defaultdict(dict)
    for word in words:
        if not words_of(word):
            continue
        found = await _found(store, tenant, f'"{word}"', WORD_SECONDS / len(words))
        if len(found.hits) <= MOST_HITS:
            for hit in found.hits:
                weights[hit.key, hit.seq][word] = 1 / len(found.hits)
    return weights


async def _found(store: Store, tenant: str, text: str, seconds: float) -> Findings:
    limit = MOST_HITS + 1
    try:
        return await search(store, tenant, text, limit=limit, seconds=seconds, scan_limit=None)
    except UnsupportedError:
        # Opened read-only, a store makes no index of words.
        return await search(store, tenant, text, limit=limit, seconds=seconds, scan_limit=None, scan=True)

"""An embedder for tests: texts with the same words are near, with no model and always the same vectors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b

from everthread.recall import FunctionEmbedder

DIMENSIONS = 128


async def _counted_words(texts: Sequence[str]) -> list[list[float]]:
    return [_vector(text) for text in texts]


def _vector(text: str) -> list[float]:
    made = [0.001] * DIMENSIONS
    for word in re.findall(r"\w+", text.lower()):
        seed = blake2b(word.encode(), digest_size=16).digest()
        for number in range(DIMENSIONS):
            made[number] += 1.0 if seed[number // 8] >> number % 8 & 1 else -1.0
    return made


def words_embedder(name: str = "words") -> FunctionEmbedder:
    return FunctionEmbedder(_counted_words, name=name, dimensions=DIMENSIONS)

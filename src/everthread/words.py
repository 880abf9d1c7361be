"""Words: what is taken for one, and when two are the same. For search without a server that knows better. No I/O.

Capitals and accents do not count (``Zürich`` is ``zurich``), compatibility forms neither (``ﬁ`` is ``fi``). Where a
script has no spaces between words (Chinese, Japanese), each character is a word.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_CLOSE_SCRIPTS = ((0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))


class _Plain(dict[int, str]):
    """What stands for a character in the text that is split into words; filled as characters are met."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if unicodedata.combining(character):
            shown = ""
        elif any(first <= code <= last for first, last in _CLOSE_SCRIPTS):
            shown = f" {character} "
        else:
            # Marks that are no accents are vowels in many scripts of Asia.
            shown = character if unicodedata.category(character)[0] in "LNM" else " "
        self[code] = shown
        return shown


_plain = _Plain()
_RUN = re.compile(r"\w+")


def words_of(text: str) -> list[str]:
    """The words of a text in order; words that are the same are equal."""
    # Twice, since what casefold gives may have a simpler form again.
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return folded.translate(_plain).split()


def phrases_of(query: str) -> list[list[str]]:
    """The parts of a query, each of which a text must hold: words that follow one another.

    What stands between double quotes is one part, and so is each word outside of them (``foo-bar`` is two
    words that follow one another). Nothing else has a meaning of its own.
    """
    phrases: list[list[str]] = []
    for index, part in enumerate(query.split('"')):
        phrases += map(words_of, [part] if index % 2 else part.split())
    return [phrase for phrase in phrases if phrase]


def holds(text: str, phrases: Sequence[Sequence[str]]) -> bool:
    """Whether a text holds every phrase; nothing holds no phrases."""
    all_words = f" {' '.join(words_of(text))} "
    return bool(phrases) and all(f" {' '.join(phrase)} " in all_words for phrase in phrases)


def places_of(text: str, phrases: Sequence[Sequence[str]]) -> list[tuple[int, int]]:
    """Where words of the phrases stand in a text, as (start, stop), for highlighting."""
    wanted = {word for phrase in phrases for word in phrase}
    places: list[tuple[int, int]] = []
    for found in _RUN.finditer(text):
        words = words_of(found[0])
        if len(words) == 1 and words[0] in wanted:
            places.append(found.span())
        elif len(words) > 1:
            at = found.start()
            places += [(at + i, at + i + 1) for i, one in enumerate(found[0]) if wanted.intersection(words_of(one))]
    return places

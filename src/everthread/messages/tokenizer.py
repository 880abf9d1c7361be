"""Split texts into words for search, with the same rules on every engine. No I/O.

Comparison ignores capitals and accents (``Zürich`` is ``zurich``) and compatibility forms (``ﬁ`` is ``fi``). In scripts
without spaces between words (Chinese, Japanese), each character is a word.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_CLOSE_SCRIPTS = ((0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))


class _Plain(dict[int, str]):
    """Maps characters to their form in the text that is split into words; filled on demand."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if unicodedata.combining(character):
            shown = ""
        elif any(first <= code <= last for first, last in _CLOSE_SCRIPTS):
            shown = f" {character} "
        else:
            # In many scripts of Asia, marks that are not accents are vowels.
            shown = character if unicodedata.category(character)[0] in "LNM" else " "
        self[code] = shown
        return shown


_plain = _Plain()
_RUN = re.compile(r"\w+")


def words_of(text: str) -> list[str]:
    """Return the normalized words of a text, in order."""
    # Twice, because the result of casefold may have a simpler form again.
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return folded.translate(_plain).split()


def phrases_of(query: str) -> list[list[str]]:
    """Return the phrases of a query; a text must hold each of them.

    The text between double quotes is one phrase, and so is each word outside of them (``foo-bar`` is a phrase of two
    words). Double quotes are the only syntax.
    """
    phrases: list[list[str]] = []
    for index, part in enumerate(query.split('"')):
        phrases += map(words_of, [part] if index % 2 else part.split())
    return [phrase for phrase in phrases if phrase]


def holds(text: str, phrases: Sequence[Sequence[str]]) -> bool:
    """Return whether a text holds every phrase; false if there are no phrases."""
    all_words = f" {' '.join(words_of(text))} "
    return bool(phrases) and all(f" {' '.join(phrase)} " in all_words for phrase in phrases)


def places_of(text: str, phrases: Sequence[Sequence[str]]) -> list[tuple[int, int]]:
    """Return the places of the phrases' words in a text, as (start, stop), for highlighting."""
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

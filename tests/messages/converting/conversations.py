"""Conversations without a format, and the conversations of each format that are made from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st
from msgspec.structs import replace

from everthread.messages.converting.convert import Source, _converter, convert
from everthread.messages.converting.fitting import fitted, linked
from everthread.messages.converting.neutral import Attachment, Call, Entry, Losses, Result, Seal, Text, Thought
from everthread.messages.converting.support import SUPPORT

FORMATS = list(SUPPORT)
PAIRS = [(one, other) for one in FORMATS for other in FORMATS if one != other]

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8).filter(str.strip)
_DATA = st.sampled_from(["AAAA", "iVBORw0="])
_ATTACHMENTS = st.one_of(
    st.builds(lambda data: Attachment("image/png", f"data:image/png;base64,{data}"), _DATA),
    st.builds(lambda data: Attachment("audio/wav", f"data:audio/wav;base64,{data}"), _DATA),
    st.builds(lambda data: Attachment("application/pdf", f"data:application/pdf;base64,{data}", "a.pdf"), _DATA),
    st.builds(lambda data: Attachment("text/csv", f"data:text/csv;base64,{data}", "a.csv"), _DATA),
    st.just(Attachment("image/jpeg", "https://example.com/a.jpg")),
    st.just(Attachment("audio/mpeg", "https://example.com/a.mp3")),
    st.builds(
        lambda name: Attachment("application/pdf", "https://example.com/a.pdf", name), st.sampled_from(["", "b"])
    ),
)
_THOUGHTS = st.one_of(
    st.builds(lambda text: Thought((text,)), TEXT),
    st.builds(lambda text: Thought((text,), Seal("anthropic", "signed")), TEXT),
    st.just(Thought((), Seal("anthropic", "sealed"))),
    st.builds(
        lambda texts, number: Thought(tuple(texts), Seal("openai", "sealed", f"rs_{number}")),
        st.lists(TEXT, max_size=2),
        st.integers(0, 999),
    ),
)
_ARGUMENTS = st.dictionaries(TEXT, st.none() | st.booleans() | st.integers() | TEXT, max_size=2)
_NAMES = st.sampled_from(["", "ana", "Ana María"])
_IDS = st.sampled_from(["", "m1"])
_METADATA = st.dictionaries(st.sampled_from(["tag", "x-y"]), st.integers() | TEXT, max_size=1)


@st.composite
def conversations(draw: st.DrawFn, *, broken: bool = False) -> list[Entry]:
    """Return the entries of a conversation. Those that are broken lack some results."""
    entries: list[Entry] = []
    for _ in range(draw(st.integers(1, 3))):
        role = draw(st.sampled_from(["", "", "system", "developer"]))
        if role:
            entries.append(_named(draw, role, [Text(draw(TEXT))]))
        entries.append(_named(draw, "user", draw(st.lists(TEXT.map(Text) | _ATTACHMENTS, min_size=1, max_size=3))))
        for _ in range(draw(st.integers(0, 2))):
            calls = draw(st.lists(st.builds(_call, _ARGUMENTS, TEXT, st.booleans()), min_size=1, max_size=2))
            numbered = [_with_id(call, f"call_{len(entries)}_{number}") for number, call in enumerate(calls)]
            thoughts, said = draw(st.lists(_THOUGHTS, max_size=2)), draw(st.lists(TEXT.map(Text), max_size=1))
            entries.append(_named(draw, "assistant", [*_numbered(thoughts, len(entries)), *said, *numbered]))
            results = [_result(draw, call.id) for call in numbered if not (broken and draw(st.booleans()))]
            if results:
                entries.append(_named(draw, "tool", results) if len(results) == 1 else Entry("tool", tuple(results), 0))
        said = draw(st.lists(TEXT.map(Text) | _ATTACHMENTS, min_size=1, max_size=2))
        thoughts = _numbered(draw(st.lists(_THOUGHTS, max_size=2)), len(entries))
        entries.append(_named(draw, "assistant", [*thoughts, *said]))
    return entries


def rows(entries: Sequence[Entry], format: str) -> list[Any]:
    """Return a conversation in a format."""
    joined = linked(entries, Losses())
    return [value for entry in fitted(joined, SUPPORT[format], Losses()) for value in _converter(format).write(entry)]


def expressed(entries: Sequence[Entry], *formats: str) -> list[Entry]:
    """Return the part of a conversation that all formats express."""
    kept = list(entries)
    for format in formats * 2:
        kept = linked(fitted(kept, SUPPORT[format], Losses()), Losses())
    return kept


def converted(values: Sequence[Any], source: str, target: str, *, repaired: bool = False) -> Any:
    """Return a conversation in another format, with its losses."""
    return convert([Source(value, source) for value in values], target, repaired=repaired)


def _named(draw: st.DrawFn, role: str, parts: Sequence[Any]) -> Entry:
    author = "" if role == "tool" else draw(_NAMES)
    return Entry(role, tuple(parts), 0, author, draw(_IDS), draw(_METADATA))


def _call(arguments: dict[str, Any], text: str, is_custom: bool) -> Call:
    from everthread.messages.codec import encode

    return Call("", "find", text if is_custom else encode(arguments).decode(), is_custom)


def _with_id(call: Call, call_id: str) -> Call:
    return Call(call_id, call.name, call.arguments, call.is_custom)


def _result(draw: st.DrawFn, call_id: str) -> Result:
    media = draw(st.lists(_ATTACHMENTS, max_size=1))
    return Result(call_id, draw(TEXT), tuple(media), draw(st.booleans()))


def _numbered(thoughts: Sequence[Thought], place: int) -> list[Thought]:
    """Return reasoning in which each piece that OpenAI sealed has an ID of its own."""
    return [
        replace(thought, seal=replace(thought.seal, id=f"rs_{place}_{number}"))
        if thought.seal is not None and thought.seal.id
        else thought
        for number, thought in enumerate(thoughts)
    ]

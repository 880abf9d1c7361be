"""Convert a list of messages of any formats to one format, with a report of each loss. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from itertools import groupby
from typing import Protocol, cast

import msgspec

from everthread.messages.codec import as_object, recognize
from everthread.messages.converting.fitting import entry_of_view, fitted, linked
from everthread.messages.converting.neutral import Entry, Json, Loss, Losses
from everthread.messages.converting.support import SUPPORT
from everthread.messages.rules.examining import examine
from everthread.messages.rules.rows import row_of_value
from everthread.messages.rules.services import SERVICE_OF

_READERS: Mapping[str, str] = {
    "agent-framework": "everthread.messages.converting.agent_framework",
    "anthropic": "everthread.messages.converting.anthropic",
    "chat-completions": "everthread.messages.converting.chat_completions",
    "langchain": "everthread.messages.converting.langchain",
    "openai-responses": "everthread.messages.converting.openai_responses",
    "pydantic-ai": "everthread.messages.converting.pydantic_ai",
}
"""The module of each format with ``read`` and ``write``. Messages of other formats are read by their views."""


class Source(msgspec.Struct, frozen=True):
    """A message to convert: its decoded payload, and the name of its format."""

    value: object
    format: str


class Written(msgspec.Struct, frozen=True):
    """A converted message.

    Attributes:
        at: The index of the message that it comes from; of the first one if it comes from several.
        is_same: It had the format already, and is unchanged.
    """

    value: Mapping[str, object]
    at: int
    is_same: bool = False


class Conversion(msgspec.Struct, frozen=True):
    """The result of a conversion.

    Attributes:
        messages: The messages in the new format.
        losses: The losses, in order.
        unread: The indexes of the messages in which nothing was found: empty ones, and those of unknown contents.
    """

    messages: list[Written]
    losses: list[Loss]
    unread: list[int]


class _Converter(Protocol):
    def read(self, value: Mapping[str, object], at: int, losses: Losses) -> list[Entry]: ...
    def write(self, entry: Entry) -> list[Json]: ...


def convert(sources: Sequence[Source], target: str, *, repaired: bool = False) -> Conversion:
    """Return messages in the format ``target``. Messages that have it already stay unchanged.

    Losses are the aspects of `everthread.messages.converting.support.SUPPORT` that the target lacks.

    Args:
        sources: The messages, in order.
        target: A key of ``SUPPORT``.
        repaired: Also give each tool call a result, and drop results without a call, as model services want it.
    """
    losses = Losses()
    written: list[Written] = []
    unread: list[int] = []
    formats = [format_of(source) for source in sources]
    numbered = list(zip(range(len(sources)), sources, formats, strict=True))
    for is_same, run in groupby(numbered, key=lambda each: each[2] == target):
        if is_same:
            written += [Written(as_object(source.value), at, is_same=True) for at, source, _ in run]
        else:
            written += _converted([(at, source.value, name) for at, source, name in run], target, losses, unread)
    if repaired:
        written = _repaired(written, target, losses)
    return Conversion(written, sorted(losses.found), unread)


def format_of(source: Source) -> str:
    """Return the format of a message: the named one, or the recognized one if the name says nothing."""
    return recognize(source.value) if source.format in {"", "json"} else source.format


def _converted(run: list[tuple[int, object, str]], target: str, losses: Losses, unread: list[int]) -> Iterator[Written]:
    entries: list[Entry] = []
    for at, value, name in run:
        found = _entries(value, name, at, losses)
        entries += found
        if not found:
            unread.append(at)
    writer = _converter(target)
    for entry in fitted(linked(entries, losses), SUPPORT[target], losses):
        yield from (Written(value, entry.at) for value in writer.write(entry))


def _entries(value: object, name: str, at: int, losses: Losses) -> list[Entry]:
    if name not in _READERS:
        entry = entry_of_view(value, name, at)
        if entry is None:
            losses.note(at, "unknown")
        return [entry] if entry is not None else []
    return _converter(name).read(as_object(value), at, losses)


def _converter(name: str) -> _Converter:
    return cast(_Converter, import_module(_READERS[name]))


def _repaired(written: Sequence[Written], target: str, losses: Losses) -> list[Written]:
    rows = [row_of_value(each.value, target) for each in written]
    examined = examine(rows, SERVICE_OF.get(target))
    for fault in examined.faults:
        if fault.repair:
            losses.note(written[fault.at].at, "repaired")
    result: list[Written] = []
    for slot in examined.slots:
        assert slot.row.value is not None
        if slot.origin is not None and not slot.is_changed:
            result.append(written[slot.origin])
        else:
            at = written[slot.origin].at if slot.origin is not None else (result[-1].at if result else 0)
            result.append(Written(slot.row.value, at))
    return result

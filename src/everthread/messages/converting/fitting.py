"""Fit neutral entries to what a format expresses, and note each loss."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import cast

from msgspec.structs import replace

from everthread.errors import CorruptRecordError
from everthread.messages.codec import View, as_object, decode, encode_plain, view_of
from everthread.messages.converting.neutral import (
    Attachment,
    Call,
    Entry,
    Json,
    Losses,
    Part,
    Result,
    Text,
    Thought,
    calls_of,
    results_of,
    with_joined_texts,
)
from everthread.messages.converting.support import Support

_ROLES = frozenset({"user", "assistant", "system", "developer", "tool"})


def linked(entries: Iterable[Entry], losses: Losses) -> list[Entry]:
    """Return entries in which the parts of one answer, and the adjacent results, are one entry each.

    Calls that wait for an approval and have no result are left out.
    """
    joined: list[Entry] = []
    for entry in entries:
        last = joined[-1] if joined else None
        if last is not None and _is_continued(last, entry):
            if entry.id and entry.role == "tool":
                losses.note(entry.at, "message-id")
            if entry.metadata:
                losses.note(entry.at, "metadata")
            parts = with_joined_texts((*last.parts, *entry.parts))
            joined[-1] = replace(last, parts=parts, metadata=last.metadata)
        else:
            joined.append(entry)
    return _settled(joined)


def fitted(entries: Iterable[Entry], support: Support, losses: Losses) -> Iterator[Entry]:
    """Yield the entries as the format expresses them; without those of which nothing is left."""
    for entry in entries:
        fitting = _entry(entry, support, losses)
        if fitting is not None and fitting.parts:
            yield fitting


def _is_continued(last: Entry, entry: Entry) -> bool:
    if last.role == entry.role == "tool":
        return True
    if not (last.is_item and entry.is_item and last.role == entry.role == "assistant"):
        return False
    has_text = any(isinstance(part, (Text, Attachment)) for part in last.parts)
    # The calls of one answer precede all of their results. Another text or reasoning begins another answer.
    return bool(calls_of(last)) or not has_text or bool(calls_of(entry))


def _settled(entries: Sequence[Entry]) -> list[Entry]:
    answered = {result.id for entry in entries for result in results_of(entry)}
    names = {call.id: call.name for entry in entries for call in calls_of(entry)}
    made: set[str] = set()
    settled: list[Entry] = []
    for entry in entries:
        parts: list[Part] = []
        for part in entry.parts:
            if isinstance(part, Call) and part.is_awaiting and (part.id in made or part.id not in answered):
                continue
            if isinstance(part, Call):
                made.add(part.id)
            elif isinstance(part, Result):
                # An ID may be used again, once it is answered.
                made.discard(part.id)
                parts.append(replace(part, name=part.name or names.get(part.id, "")))
                continue
            parts.append(part)
        settled.append(replace(entry, parts=tuple(parts)))
    return settled


def _entry(entry: Entry, support: Support, losses: Losses) -> Entry | None:
    at, role = entry.at, entry.role
    if role == "developer" and not support.expresses("developer"):
        losses.note(at, "developer")
        role = "system"
    if role == "system" and not support.expresses("system"):
        losses.note(at, "system")
        return None
    if role not in _ROLES or (role == "tool" and not results_of(entry)):
        losses.note(at, "role")
        role = "user"
    is_named = entry.author and role != "tool" and support.expresses("author")
    author = entry.author if is_named and support.authors.fullmatch(entry.author) else ""
    kept_id = entry.id if support.expresses("message-id") else ""
    metadata: Mapping[str, object] = entry.metadata if support.expresses("metadata") else {}
    for aspect, before, after in (
        ("author", entry.author, author),
        ("message-id", entry.id, kept_id),
        ("metadata", entry.metadata, metadata),
    ):
        if before and not after:
            losses.note(at, aspect)
    fitting = _Parts(at, role, support, losses)
    parts = with_joined_texts((new for part in entry.parts for new in fitting.of(part)), "\n")
    return Entry(role, parts, at, author, kept_id, metadata)


class _Parts:
    def __init__(self, at: int, role: str, support: Support, losses: Losses) -> None:
        self._at = at
        self._role = role
        self._support = support
        self._losses = losses

    def of(self, part: Part) -> Iterator[Part]:
        """Yield the parts that express a part."""
        match part:
            case Text():
                yield part
            case Thought():
                yield from self._thoughts(part)
            case Attachment():
                yield self._named(part) if self._is_expressed(part) else Text(part.note)
            case Call():
                yield from self._calls(part)
            case Result():
                yield from self._results(part)

    def _note(self, aspect: str) -> None:
        self._losses.note(self._at, aspect)

    def _is_expressed(self, part: Attachment, *, in_result: bool = False) -> bool:
        if in_result and not self._support.expresses("result-media"):
            self._note("result-media")
            return False
        if self._role not in {"user", "tool"} and not self._support.expresses("answer-media"):
            self._note("answer-media")
            return False
        aspect = aspect_of(part)
        if not part.address or not self._support.expresses(aspect, part.media_type):
            self._note(aspect)
            return False
        return True

    def _named(self, part: Attachment) -> Attachment:
        is_file = part.media_type.partition("/")[0] not in {"image", "audio"}
        aspect = "file-name" if is_file else "image-name"
        if not part.name or self._support.expresses(aspect):
            return part
        self._note(aspect)
        return replace(part, name="")

    def _thoughts(self, part: Thought) -> Iterator[Part]:
        seal = f"sealed-{part.seal.service}" if part.seal is not None else ""
        if seal and self._support.expresses(seal):
            yield part
            return
        texts = [text for text in part.texts if text]
        if seal:
            self._note(seal)
        elif texts and not self._support.expresses("thought"):
            self._note("thought")
        if self._support.expresses("thought"):
            yield from (Thought((text,)) for text in texts)

    def _calls(self, part: Call) -> Iterator[Part]:
        if not part.id:
            self._note("call-without-id")
            return
        arguments = part.arguments or ("" if part.is_custom else "{}")
        is_custom = part.is_custom and self._support.expresses("custom-call")
        if (part.is_custom and not is_custom) or (self._support.parses_arguments and object_of(arguments) is None):
            self._note("custom-call")
            arguments = encode_plain({"input": arguments}).decode()
        yield Call(self._call_id(part.id), part.name or "tool", arguments, is_custom)

    def _results(self, part: Result) -> Iterator[Part]:
        if not part.id:
            self._note("call-without-id")
            return
        media: list[Attachment] = []
        texts = [part.text] if part.text else []
        for each in part.media:
            if self._is_expressed(each, in_result=True):
                media.append(self._named(each))
            else:
                texts.append(each.note)
        is_error = part.is_error and self._support.expresses("result-error")
        if part.is_error and not is_error:
            self._note("result-error")
        yield Result(self._call_id(part.id), "\n".join(texts), tuple(media), is_error, part.name)

    def _call_id(self, given: str) -> str:
        if self._support.call_ids.fullmatch(given):
            return given
        self._note("call-id")
        return f"call_{sha256(given.encode(errors='surrogatepass')).hexdigest()[:32]}"


def aspect_of(part: Attachment) -> str:
    """Return the aspect of a conversation that an attachment is."""
    kind = part.media_type.partition("/")[0]
    name = kind if kind in {"image", "audio"} else "file"
    return name if part.is_inline else f"{name}-link"


def object_of(arguments: str) -> Json | None:
    """Return the arguments of a call as an object; ``None`` if the text is not the JSON of one."""
    try:
        value = decode(arguments.encode())
    except (CorruptRecordError, UnicodeEncodeError):
        return None
    return cast(Json, value) if isinstance(value, dict) else None


def entry_of_view(value: object, format: str, at: int) -> Entry | None:
    """Return the entry of a message of a format that has no reader: what its view has."""
    seen = view_of(value, format) if as_object(value) else View()
    parts: list[Part] = [Thought((seen.reasoning,))] if seen.reasoning else []
    parts += [Text(seen.text)] if seen.text else []
    parts += [Attachment(media.media_type, media.data or media.uri) for media in seen.media]
    parts += [Call(call.id, call.name, call.arguments) for call in seen.calls]
    results = [Result(result.id, result.text) for result in seen.results]
    if results and not parts:
        return Entry("tool", tuple(results), at)
    role = "assistant" if seen.calls or seen.reasoning else seen.role
    return Entry(role, (*parts, *results), at, seen.author) if parts or results else None

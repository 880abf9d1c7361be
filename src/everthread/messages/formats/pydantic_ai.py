"""Messages of Pydantic AI: ``{"kind": "request", "parts": [{"part_kind": "user-prompt", …}]}``, and ``response``.

Source: ``ModelMessagesTypeAdapter`` of pydantic-ai, https://ai.pydantic.dev/api/messages/.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from everthread.messages.codec import (
    LinkIds,
    Media,
    ToolCall,
    ToolResult,
    View,
    as_list,
    as_object,
    as_text,
    json_text,
    media_at,
)

LINK_MARKS = (b"tool-call", b"tool-return", b"retry-prompt")
MARK = "everthread"
"""The name beside ``parts`` with the place of a message in a conversation store, which the framework ignores."""
RECORD = "record"
"""The kind of a message of nothing but such a place: a conversation was forked, branched or deleted there."""

_KINDS = frozenset({"request", "response"})
_TEXTS = frozenset({"text", "retry-feedback", "compaction", "instruction-delta"})
_MEDIA_TYPES = {"image-url": "image/*", "audio-url": "audio/*", "video-url": "video/*"}


def matches(value: Mapping[str, object]) -> bool:
    """Return whether it is a request or a response with parts."""
    kind = value.get("kind")
    return isinstance(kind, str) and kind in _KINDS and isinstance(value.get("parts"), list)


def view(value: Mapping[str, object]) -> View:
    """Return the view, without parts of unknown types. A system prompt before a user's text is not part of it."""
    if value.get("kind") == RECORD:
        return View(role=RECORD, text=_about(value))
    seen, is_response = _Seen(), value.get("kind") == "response"
    for part in map(as_object, as_list(value.get("parts"))):
        seen.add(part)
    texts = "".join(seen.texts) if is_response else "\n".join(seen.texts)
    role = "assistant" if is_response else "user" if seen.is_said or texts else "tool" if seen.results else ""
    if not role and seen.prompts:
        role, texts = "system", "\n".join(seen.prompts)
    return View(
        role=role,
        text=texts,
        calls=tuple(seen.calls),
        results=tuple(seen.results),
        media=tuple(seen.media),
        reasoning="".join(seen.reasoning),
    )


def links(value: Mapping[str, object]) -> LinkIds:
    """Return the IDs of the calls and results in the view."""
    calls: list[str] = []
    results: list[str] = []
    if value.get("kind") != RECORD:
        for part in map(as_object, as_list(value.get("parts"))):
            call_id = as_text(part.get("tool_call_id"))
            # In the order in which the view looks: a user's prompt is neither.
            if part.get("part_kind") == "user-prompt":
                continue
            if answers_a_call(part):
                results.append(call_id)
            elif part.get("part_kind") == "tool-call" and call_id:
                calls.append(call_id)
    return tuple(calls), tuple(results)


def answers_a_call(part: Mapping[str, object]) -> bool:
    """Return whether a part is the result of a tool call; a ``retry-prompt`` without a tool is not."""
    kind = part.get("part_kind")
    return bool(as_text(part.get("tool_call_id"))) and (
        kind == "tool-return" or (kind == "retry-prompt" and bool(part.get("tool_name")))
    )


def _about(value: Mapping[str, object]) -> str:
    state = as_object(as_object(value.get(MARK)).get("state"))
    source = as_text(as_object(state.get("record")).get("forked_from"))
    return "[deleted]" if state.get("deleted") else f"[fork of {source}]" if source else ""


class _Seen:
    def __init__(self) -> None:
        self.texts: list[str] = []
        self.prompts: list[str] = []
        self.reasoning: list[str] = []
        self.calls: list[ToolCall] = []
        self.results: list[ToolResult] = []
        self.media: list[Media] = []
        self.is_said = False

    def add(self, part: Mapping[str, object]) -> None:
        kind, content, call_id = as_text(part.get("part_kind")), part.get("content"), as_text(part.get("tool_call_id"))
        if kind == "user-prompt":
            self.is_said = True
            self.texts += self._texts_of([content] if isinstance(content, str) else as_list(content))
        elif answers_a_call(part):
            self.results.append(ToolResult(call_id, self._result(content)))
        elif kind == "tool-call" and call_id:
            self.calls.append(ToolCall(call_id, as_text(part.get("tool_name")), json_text(part.get("args"))))
        elif kind == "thinking":
            self.reasoning.append(as_text(content))
        elif kind == "system-prompt":
            self.prompts.append(as_text(content))
        elif kind == "file":
            self.texts += self._texts_of([content])
        elif kind == "speech":
            self.texts.append(as_text(part.get("transcript")))
            self.texts += self._texts_of([part.get("audio")])
        elif kind == "builtin-tool-call":
            self.texts.append(f"[{as_text(part.get('tool_name')) or 'tool'}]")
        elif kind in _TEXTS or kind == "retry-prompt":
            self.texts.append(json_text(content))

    def _texts_of(self, items: Iterable[object]) -> list[str]:
        """Return the texts among the items of a content, and add the others to the media."""
        texts: list[str] = []
        for item in items:
            known = as_object(item)
            kind = as_text(known.get("kind"))
            if isinstance(item, str):
                texts.append(item)
            elif kind in {"text-content", "structured-content"}:
                texts.append(json_text(known.get("content")))
            elif (found := _media(kind, known)) is not None:
                self.media.append(found)
        return texts

    def _result(self, content: object) -> str:
        """Return a tool's result as text; files in it are media, not text."""
        items = as_list(content) or [content]
        files = [found for item in items if (found := _file_in(item)) is not None]
        if not files:
            return json_text(content)
        self.media += files
        rest = [item for item in items if _file_in(item) is None]
        return "\n".join(map(json_text, rest))


def _file_in(item: object) -> Media | None:
    known = as_object(item)
    return _media(as_text(known.get("kind")), known)


def _media(kind: str, item: Mapping[str, object]) -> Media | None:
    media_type = as_text(item.get("media_type"))
    if kind == "binary" and isinstance(item.get("data"), str):
        # The framework writes the alphabet of URLs, and readers of data URIs expect the other one.
        data = as_text(item["data"]).replace("-", "+").replace("_", "/")
        return media_at(f"data:{media_type};base64,{data}", media_type)
    if kind.endswith("-url") and isinstance(item.get("url"), str):
        return media_at(as_text(item["url"]), media_type or _MEDIA_TYPES.get(kind, "application/octet-stream"))
    if kind == "uploaded-file":
        return Media(media_type or "application/octet-stream", uri=as_text(item.get("file_id")))
    return None

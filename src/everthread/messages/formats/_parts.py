"""The parts of a message's content in the forms of OpenAI, Anthropic and LangChain.

Sources: https://platform.openai.com/docs/api-reference (chat completions, responses),
https://docs.anthropic.com/en/api/messages, content blocks of langchain-core.
"""

from __future__ import annotations

from collections.abc import Mapping

from everthread.messages.codec import Media, ToolCall, ToolResult, as_list, as_object, as_text, json_text, media_at

_THOUGHTS = frozenset({"thinking", "reasoning"})
_RUN_BY_THE_SERVICE = frozenset({"server_tool_use", "mcp_tool_use"})


class Parts:
    """The parts of a content: a text or a list of parts. Ignores parts of unknown types.

    Attributes:
        texts: Texts and refusals.
        thoughts: Reasoning.
        media: Images, sounds and files, also those in tool results.
        calls: Tool calls in the form of Anthropic.
        results: Tool results in the form of Anthropic.
    """

    def __init__(self, content: object) -> None:
        self.texts: list[str] = [content] if isinstance(content, str) else []
        self.thoughts: list[str] = []
        self.media: list[Media] = []
        self.calls: list[ToolCall] = []
        self.results: list[ToolResult] = []
        for part in as_list(content):
            if isinstance(part, str):
                self.texts.append(part)
            else:
                self._add(as_object(part))

    @property
    def text(self) -> str:
        """The texts, without a separator."""
        return "".join(self.texts)

    def _add(self, part: Mapping[str, object]) -> None:
        kind = as_text(part.get("type"))
        text = part.get("text") or part.get("refusal")
        if kind in _THOUGHTS:
            self.thoughts.append(as_text(part.get(kind)) or as_text(text))
        elif isinstance(text, str):
            self.texts.append(text)
        elif kind == "tool_use":
            call = ToolCall(as_text(part.get("id")), as_text(part.get("name")), json_text(part.get("input")))
            self.calls.append(call)
        elif kind == "tool_result":
            answer = Parts(part.get("content"))
            result = "\n".join(answer.texts) or ("" if answer.media else json_text(part.get("content") or None))
            self.results.append(ToolResult(as_text(part.get("tool_use_id")), result))
            self.media += answer.media
        elif kind in _RUN_BY_THE_SERVICE:
            self.texts.append(f"[{as_text(part.get('name')) or kind}]")
        else:
            self._add_media(kind, part)

    def _add_media(self, kind: str, part: Mapping[str, object]) -> None:
        given, source = as_text(part.get("mime_type")), as_object(part.get("source"))
        sound, file = as_object(part.get("input_audio")), as_object(part.get("file"))
        if "image_url" in part:
            image = part["image_url"]
            self.media.append(media_at(as_text(image) or as_text(as_object(image).get("url")), "image/*"))
        elif kind == "input_file":
            self.media.append(_file(part.get("file_url") or part.get("file_data")))
        elif sound:
            self.media.append(_inline(f"audio/{as_text(sound.get('format')) or '*'}", sound.get("data")))
        elif file:
            self.media.append(_file(file.get("file_data")))
        elif kind == "document" and isinstance(source.get("data"), str) and source.get("type") == "text":
            self.texts.append(as_text(source["data"]))
        elif kind == "document" and source.get("type") == "content":
            self.texts += Parts(source.get("content")).texts
        elif kind in {"image", "audio", "file", "video", "document"}:
            given = given or as_text(source.get("media_type")) or _any(kind)
            address = as_text(part.get("url")) or as_text(source.get("url"))
            data = part.get("data") or part.get("base64") or source.get("data")
            self.media.append(media_at(address, given) if address or not data else _inline(given, data))


def note_links(content: object, calls: list[str], results: list[str]) -> None:
    """Add the IDs of the calls and results that `Parts` finds in a content."""
    for part in as_list(content):
        known = as_object(part)
        kind = known.get("type")
        if kind not in ("tool_use", "tool_result") or isinstance(known.get("text") or known.get("refusal"), str):
            continue
        if kind == "tool_use":
            calls.append(as_text(known.get("id")))
        else:
            results.append(as_text(known.get("tool_use_id")))


def _any(kind: str) -> str:
    return "application/octet-stream" if kind in {"file", "document"} else f"{kind}/*"


def _file(address: object) -> Media:
    return media_at(as_text(address), "application/octet-stream")


def _inline(media_type: str, data: object) -> Media:
    return media_at(f"data:{media_type};base64,{as_text(data)}")

"""The parts of a conversation that each format expresses, as one table.

A conversion drops or rewrites exactly the aspects that the table does not list for the target, and reports each.
Sources: the references of the services that `everthread.messages.formats` lists, ``Content`` of agent-framework-core,
and the content blocks of langchain-core.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Aspect(NamedTuple):
    """A part of a conversation.

    Attributes:
        name: Its name in reports.
        otherwise: The form that it takes where the target does not express it.
    """

    name: str
    otherwise: str


ASPECTS: Mapping[str, Aspect] = MappingProxyType(
    {
        "system": Aspect("system messages", "dropped: give the instructions to the agent"),
        "developer": Aspect("developer messages", "system messages"),
        "role": Aspect("other roles", "messages of the user"),
        "author": Aspect("names of authors", "dropped"),
        "message-id": Aspect("IDs of messages", "dropped"),
        "metadata": Aspect("metadata of messages", "dropped"),
        "image": Aspect("images, inline", "a text says that one was there"),
        "image-link": Aspect("images, by URL", "a text with the URL"),
        "audio": Aspect("sounds, inline", "a text says that one was there"),
        "audio-link": Aspect("sounds, by URL", "a text with the URL"),
        "file": Aspect("files, inline", "a text says that one was there"),
        "file-link": Aspect("files, by URL", "a text with the URL"),
        "file-name": Aspect("names of files", "dropped"),
        "image-name": Aspect("names of images and sounds", "dropped"),
        "answer-media": Aspect("images and files of the assistant", "a text says that one was there"),
        "hosted-file": Aspect("files that a service holds, by ID", "a text says that one was there"),
        "result-media": Aspect("images and files in tool results", "a text says that one was there"),
        "result-error": Aspect("the mark of a failed tool", "dropped; the text of the result stays"),
        "custom-call": Aspect("tool calls with arguments that are no JSON object", "calls with one argument, `input`"),
        "call-id": Aspect("IDs of tool calls that the target refuses", "other IDs, the same in call and result"),
        "call-without-id": Aspect("tool calls and results without an ID", "dropped"),
        "thought": Aspect("reasoning as text", "dropped"),
        "sealed-openai": Aspect("reasoning sealed by OpenAI", "reasoning as text, where it has text"),
        "sealed-anthropic": Aspect("reasoning signed by Anthropic", "reasoning as text, where it has text"),
        "service-tool": Aspect("tools that a service runs itself", "the name of the tool as text"),
        "approval": Aspect("approvals of tool calls", "dropped; a call that was carried out stays"),
        "citation": Aspect("citations", "dropped; the text stays"),
        "facts": Aspect("token usage and other facts of an answer", "dropped"),
        "error": Aspect("errors", "dropped"),
        "unknown": Aspect("contents of unknown types", "dropped"),
        "repaired": Aspect(
            "tool calls without results, and results without calls", "repaired: a result that says so, or dropped"
        ),
    }
)
"""Everything that a report of a conversion can list. Texts and tool calls with their results always survive."""


class Support(NamedTuple):
    """The table's column of a format.

    Attributes:
        name: The name of the format in the documentation.
        aspects: The expressed aspects; the media types of those that are limited to some, empty for all.
        call_ids: The IDs of tool calls that the service accepts.
        authors: The names of authors that the service accepts.
        parses_arguments: The arguments of a call are an object, not JSON text.
    """

    name: str
    aspects: Mapping[str, tuple[str, ...]]
    call_ids: re.Pattern[str] = re.compile(r"(?s).+")
    authors: re.Pattern[str] = re.compile(r"(?s).+")
    parses_arguments: bool = False

    def expresses(self, aspect: str, media_type: str = "") -> bool:
        """Return whether the format expresses an aspect, with this media type."""
        types = self.aspects.get(aspect)
        return types is not None and (not types or media_type in types)


_ALL_MEDIA = ("image", "image-link", "audio", "audio-link", "file", "file-link", "answer-media", "result-media")
_PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")
_SOUNDS = ("audio/wav", "audio/x-wav", "audio/mp3", "audio/mpeg")
_PDF = ("application/pdf",)


def _any(*aspects: str) -> dict[str, tuple[str, ...]]:
    return dict.fromkeys(aspects, ())


SUPPORT: Mapping[str, Support] = MappingProxyType(
    {
        "agent-framework": Support(
            "Agent Framework",
            _any("system", "author", "message-id", "metadata", *_ALL_MEDIA, "file-name", "image-name", "result-error")
            | _any("thought", "sealed-openai"),
        ),
        "pydantic-ai": Support(
            "Pydantic AI",
            _any("system", "metadata", "image", "image-link", "audio", "audio-link", "file", "file-link")
            | _any("result-media", "result-error", "thought", "sealed-openai", "sealed-anthropic"),
        ),
        "openai-responses": Support(
            "OpenAI Agents SDK",
            _any("system", "developer", "image", "image-link", "file", "file-link", "file-name", "result-media")
            | _any("custom-call", "sealed-openai"),
            call_ids=re.compile(r"(?s).{1,64}"),
        ),
        "chat-completions": Support(
            "OpenAI chat completions",
            _any("system", "developer", "author", "image", "image-link", "file", "file-name", "custom-call")
            | {"audio": _SOUNDS},
            call_ids=re.compile(r"(?s).{1,64}"),
            authors=re.compile(r"[^\s<|\\/>]{1,64}"),
        ),
        "anthropic": Support(
            "Anthropic",
            {"image": _PICTURES, "file": _PDF, "file-link": _PDF}
            | _any("image-link", "file-name", "result-media", "result-error", "sealed-anthropic"),
            call_ids=re.compile(r"[A-Za-z0-9_-]{1,64}"),
            parses_arguments=True,
        ),
        "langchain": Support(
            "LangChain",
            _any("system", "developer", "author", "message-id", "metadata", *_ALL_MEDIA, "file-name", "result-error")
            | _any("thought", "sealed-anthropic"),
            parses_arguments=True,
        ),
    }
)
"""The aspects that each format expresses. `everthread.messages.converting.convert` writes these formats."""

FRAMEWORKS: Mapping[str, str] = MappingProxyType(
    {
        "agent-framework": "agent-framework",
        "openai-agents": "openai-responses",
        "pydantic-ai": "pydantic-ai",
        "openai-chat": "chat-completions",
        "anthropic": "anthropic",
        "langchain": "langchain",
    }
)
"""The format that each framework or client continues, by the name that commands take."""

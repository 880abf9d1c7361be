"""Threads for people and for other programs: Markdown, HTML, OpenAI's fine-tuning lines. These are not read back.

What is stored is not trusted: in HTML all of it is escaped, nothing is loaded from elsewhere, and a policy in
the page forbids scripts; in Markdown it stands in blocks that it cannot end.
"""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from html import escape
from typing import Any

from everthread import codec
from everthread.codec import Media, View
from everthread.errors import CorruptRecordError, InvalidMessageError
from everthread.model import Message
from everthread.transfer.exporting import Form, JsonLines
from everthread.transfer.sources import StoreThread

UNREADABLE = "(unreadable: the record is not JSON)"
_FENCES = re.compile(r"`{3,}")
_SAFE_LINKS = ("https://", "http://")


class Text(Form):
    """A form in which a thread is its title and its messages, each by itself."""

    async def rest(self, thread: StoreThread, opening: bytes) -> AsyncIterator[tuple[bytes, int]]:
        async for page in thread.pages():
            yield _bytes("".join([self.message(message, _view(message)) for message in page])), len(page)
        yield self.ending, 0

    ending: bytes = b""
    """What a thread ends with."""

    @abstractmethod
    def message(self, message: Message, seen: View | None) -> str:
        """A message; without a view if it cannot be read."""


def _view(message: Message) -> View | None:
    try:
        return codec.view(message)
    except CorruptRecordError:
        return None


def _bytes(text: str) -> bytes:
    # Other programs may have stored lone surrogates, which have no UTF-8 form.
    return text.encode(errors="replace")


def _title(thread: StoreThread) -> str:
    return codec.shorten(thread.heading.title or thread.heading.key.thread_id, 200)


def _when(message: Message) -> str:
    return "" if message.created_at is None else f"{message.created_at:%Y-%m-%d %H:%M:%S} UTC"


def _described(media: Media) -> str:
    size = "" if media.size is None else f", {media.size:,} bytes"
    return f"[{media.media_type or 'file'}{size}]"


class Markdown(Text):
    """A heading for each thread and message; what was said as quoted text, tools as code."""

    suffix = ".md"

    async def opening(self, thread: StoreThread) -> bytes:
        return _bytes(f"# {_plain(_title(thread))}\n\n")

    def message(self, message: Message, seen: View | None) -> str:
        role = _plain(seen.role if seen and seen.role else "message")
        heading = f"## {role} {f'· {_when(message)} ' if _when(message) else ''}· {message.seq}"
        return "\n\n".join([heading, *self._parts(seen)]) + "\n\n"

    def _parts(self, seen: View | None) -> Iterator[str]:
        if seen is None:
            yield UNREADABLE
            return
        if seen.text:
            yield "\n".join(f"> {_plain(line)}".rstrip() for line in seen.text.splitlines())
        for media in seen.media:
            yield _plain(f"{_described(media)} {media.uri}".rstrip())
        for call in seen.calls:
            yield _block(f"{call.name}({call.arguments})")
        for result in seen.results:
            yield _block(f"→ {result.text}")


def _plain(text: str) -> str:
    """Text in which neither markup nor HTML has a meaning."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&])", r"\\\1", text.replace("\r", ""))


def _block(text: str) -> str:
    longest = max((len(found) for found in _FENCES.findall(text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}\n{text}\n{fence}"


class Html(Text):
    """One page that needs nothing else, with a section for each thread."""

    suffix = ".html"
    before = b"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Conversations</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="referrer" content="no-referrer"><meta name="viewport" content="width=device-width">
<style>
body{font:16px/1.5 system-ui,sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}
article{margin:1rem 0;padding:.2rem 1rem;border-left:.25rem solid #888}
article.user{border-color:#2a7}article.assistant{border-color:#27a}
header{color:#888;font-size:.85rem}p,pre{white-space:pre-wrap;overflow-wrap:anywhere}pre{font-size:.85rem}
</style></head><body>
"""
    after = b"</body></html>\n"
    ending = b"</section>\n"

    async def opening(self, thread: StoreThread) -> bytes:
        return _bytes(f"<section><h1>{escape(_title(thread))}</h1>\n")

    def message(self, message: Message, seen: View | None) -> str:
        role = seen.role if seen and seen.role else "message"
        kind = f' class="{role}"' if role in {"user", "assistant"} else ""
        heading = " · ".join(filter(None, (role, _when(message), str(message.seq))))
        return f"<article{kind}><header>{escape(heading)}</header>{''.join(self._parts(seen))}</article>\n"

    def _parts(self, seen: View | None) -> Iterator[str]:
        if seen is None:
            yield f"<p>{UNREADABLE}</p>"
            return
        if seen.text:
            yield f"<p>{escape(seen.text)}</p>"
        for media in seen.media:
            shown = escape(_described(media))
            is_safe = media.uri.lower().startswith(_SAFE_LINKS)
            link = f'<a rel="noreferrer" href="{escape(media.uri)}">{shown}</a>' if is_safe else shown
            yield f"<p>{link}</p>"
        for call in seen.calls:
            yield f"<pre>{escape(f'{call.name}({call.arguments})')}</pre>"
        for result in seen.results:
            yield f"<pre>→ {escape(result.text)}</pre>"


class FineTuning(Form):
    """One line a thread, ``{"messages": […]}``: text, tool calls and results; media are left out.

    Source: https://platform.openai.com/docs/guides/supervised-fine-tuning (the chat format).
    """

    suffix = ".jsonl"

    async def opening(self, thread: StoreThread) -> bytes:
        return b""

    async def rest(self, thread: StoreThread, opening: bytes) -> AsyncIterator[tuple[bytes, int]]:
        before = b'{"messages":['
        async for page in thread.pages():
            entries = [entry for message in page for entry in _entries(_view(message) or View())]
            yield (before if entries else b"") + b",".join(map(_encoded, entries)), len(page)
            before = b"," if entries else before
        if before == b",":
            yield b"]}\n", 0


def _encoded(entry: Mapping[str, Any]) -> bytes:
    try:
        return codec.encode(entry)
    except InvalidMessageError:
        # A lone surrogate, which another program stored.
        return json.dumps(entry, ensure_ascii=False).encode(errors="replace")


_ROLES = {"developer": "system", "human": "user", "ai": "assistant"}


def _entries(seen: View) -> Iterator[dict[str, Any]]:
    # An approval is between the agent and its host: no model sees it.
    calls = [call for call in seen.calls if not call.id.startswith("approval:")]
    results = [result for result in seen.results if not result.id.startswith("approval:")]
    role = _ROLES.get(seen.role, seen.role)
    if (seen.text or calls) and role in {"system", "user", "assistant"}:
        entry: dict[str, Any] = {"role": role, "content": seen.text or None}
        if calls:
            entry["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in calls
            ]
        yield entry
    for result in results:
        yield {"role": "tool", "tool_call_id": result.id, "content": result.text}


FORMS: dict[str, Callable[[], Form]] = {"jsonl": JsonLines, "markdown": Markdown, "html": Html, "openai": FineTuning}

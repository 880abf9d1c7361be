"""Threads for people to read: Markdown and HTML. These cannot be imported.

Stored content is not trusted. HTML escapes all of it, loads nothing, and has a policy that forbids scripts. Markdown
has it in blocks that it cannot end.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from html import escape

from everthread.messages import codec
from everthread.messages.codec import Media, View
from everthread.model import Message
from everthread.transfer.exporting import Form, JsonLines
from everthread.transfer.sources import StoreThread

UNREADABLE = "(unreadable: the record is not JSON)"
_FENCES = re.compile(r"`{3,}")
# An underscore within a word, and an ampersand without an entity, are plain text.
_MARKUP = re.compile(r"[\\`*\[\]<~|]|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)")
_LINE_START = re.compile(r"^(\d*)([#>+=.)-])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_SAFE_LINKS = ("https://", "http://")


class Reading(Form):
    """A form in which a thread is a title and separate messages."""

    async def rest(self, thread: StoreThread, opening: bytes) -> AsyncIterator[tuple[bytes, int]]:
        async for page in thread.pages():
            yield _bytes("".join([self.message(message, thread.view(message)) for message in page])), len(page)
        yield self.ending, 0

    ending: bytes = b""
    """The end of a thread."""

    @abstractmethod
    def message(self, message: Message, seen: View | None) -> str:
        """Return a message. One that cannot be read has no view."""


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


class Markdown(Reading):
    """A heading for each thread and message; texts are quoted, tool calls and results are code."""

    suffix = ".md"

    async def opening(self, thread: StoreThread) -> bytes:
        return _bytes(f"# {_plain(_title(thread))}\n\n")

    def message(self, message: Message, seen: View | None) -> str:
        role = _plain(codec.shorten(seen.role if seen else "", 40) or "message")
        heading = f"## {role} {f'· {_when(message)} ' if _when(message) else ''}· {message.seq}"
        return "\n\n".join([heading, *self._parts(seen)]) + "\n\n"

    def _parts(self, seen: View | None) -> Iterator[str]:
        if seen is None:
            yield UNREADABLE
            return
        if seen.text:
            yield _quoted(seen.text)
        for media in seen.media:
            yield _plain(f"{_described(media)} {media.uri}".rstrip())
        for call in seen.calls:
            yield _block(f"{call.name}({call.arguments})")
        for result in seen.results:
            yield _block(f"→ {result.text}")


def _plain(text: str) -> str:
    """Return a text as one line without working markup or HTML."""
    return _MARKUP.sub(r"\\\g<0>", readable_text(text).replace("\n", " "))


def _quoted(text: str) -> str:
    """Return a text as a quote, line by line, so that it cannot end the quote."""
    lines = [_quoted_line(line) for line in readable_text(text).split("\n")]
    # Two spaces keep a line break.
    ends = ["  " if line and following else "" for line, following in zip(lines, [*lines[1:], ""], strict=True)]
    return "\n".join(f"> {line}".rstrip() + end for line, end in zip(lines, ends, strict=True))


def _quoted_line(line: str) -> str:
    text = _MARKUP.sub(r"\\\g<0>", line.strip())
    # These begin a list, a rule, a heading or a block only at the beginning of a line.
    text = _LINE_START.sub(r"\1\\\2", text)
    indent = len(line.expandtabs(4)) - len(line.expandtabs(4).lstrip())
    return "&nbsp;" * indent + text if text else ""


def readable_text(text: str) -> str:
    """Return a text without characters that control a terminal or the direction of text."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n").replace("\r", "\n"))


def _block(text: str) -> str:
    longest = max((len(found) for found in _FENCES.findall(text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}\n{readable_text(text)}\n{fence}"


class Html(Reading):
    """One self-contained page with a section for each thread."""

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
        return _bytes(f"<section><h1 dir=auto>{_escaped(_title(thread))}</h1>\n")

    def message(self, message: Message, seen: View | None) -> str:
        role = codec.shorten(seen.role if seen else "", 40) or "message"
        kind = f' class="{role}"' if role in {"user", "assistant"} else ""
        heading = " · ".join(filter(None, (role, _when(message), str(message.seq))))
        return f"<article{kind}><header>{_escaped(heading)}</header>{''.join(self._parts(seen))}</article>\n"

    def _parts(self, seen: View | None) -> Iterator[str]:
        if seen is None:
            yield f"<p>{UNREADABLE}</p>"
            return
        if seen.text:
            yield f"<p dir=auto>{_escaped(seen.text)}</p>"
        for media in seen.media:
            shown = _escaped(_described(media))
            is_safe = media.uri.lower().startswith(_SAFE_LINKS)
            link = f'<a rel="noreferrer" href="{escape(media.uri)}">{shown}</a>' if is_safe else shown
            yield f"<p>{link}</p>"
        for call in seen.calls:
            yield f"<pre dir=auto>{_escaped(f'{call.name}({call.arguments})')}</pre>"
        for result in seen.results:
            yield f"<pre dir=auto>→ {_escaped(result.text)}</pre>"


def _escaped(text: str) -> str:
    return escape(readable_text(text))


FORMS: dict[str, Callable[[], Form]] = {"jsonl": JsonLines, "markdown": Markdown, "html": Html}

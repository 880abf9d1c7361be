"""Threads for people and for other programs: Markdown, HTML, OpenAI's fine-tuning lines. These are not read back.

What is stored is not trusted: in HTML all of it is escaped, nothing is loaded from elsewhere, and a policy in
the page forbids scripts; in Markdown it stands in blocks that it cannot end.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from html import escape
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from everthread import codec
from everthread.codec import Media, View
from everthread.errors import CorruptRecordError
from everthread.model import Message
from everthread.transfer.exporting import file_name, make_folder, private, sync
from everthread.transfer.model import Outcome, Report, Watcher
from everthread.transfer.sources import StoreSource, StoreThread

UNREADABLE = "(unreadable: the record is not JSON)"
_FENCES = re.compile(r"`{3,}")
_SAFE_LINKS = ("https://", "http://")


class Renderer(ABC):
    """Makes text of threads.

    Attributes:
        suffix: How a file's name ends.
        before: What a file begins with.
        after: What it ends with.
    """

    suffix: ClassVar[str]
    before: ClassVar[str] = ""
    after: ClassVar[str] = ""

    @abstractmethod
    def thread(self, thread: StoreThread) -> AsyncIterator[str]:
        """One thread, in parts."""


async def render_to_file(source: StoreSource, renderer: Renderer, path: Path, watcher: Watcher) -> Report:
    """Writes all threads into one file, which is there when it is complete."""
    part = path.with_name(path.name + ".part")
    with private(part).open("wb") as file:
        report = await render_to_stream(source, renderer, file, watcher)
        sync(file)
    part.replace(path)
    return report


async def render_to_stream(source: StoreSource, renderer: Renderer, stream: BinaryIO, watcher: Watcher) -> Report:
    """Writes all threads to an open stream."""
    report = Report()
    stream.write(renderer.before.encode())
    async with source:
        watcher.begin(source.total)
        async for thread in source.threads():
            _finish(await _render(thread, renderer, stream, watcher), report, watcher)
    stream.write(renderer.after.encode())
    stream.flush()
    return report


async def render_to_folder(source: StoreSource, renderer: Renderer, folder: Path, watcher: Watcher) -> Report:
    """Writes each thread into a file of its own."""
    report = Report()
    make_folder(folder)
    async with source:
        watcher.begin(source.total)
        async for thread in source.threads():
            path = folder / file_name(thread.heading.key.thread_id, renderer.suffix)
            part = path.with_name(path.name + ".part")
            with part.open("wb") as file:
                file.write(renderer.before.encode())
                outcome = await _render(thread, renderer, file, watcher)
                file.write(renderer.after.encode())
            part.replace(path)
            _finish(outcome, report, watcher)
    return report


def _finish(outcome: Outcome, report: Report, watcher: Watcher) -> None:
    report.add(outcome)
    watcher.finished(outcome)


async def _render(thread: StoreThread, renderer: Renderer, file: BinaryIO, watcher: Watcher) -> Outcome:
    async for part in renderer.thread(thread):
        file.write(part.encode())
    watcher.advance(thread.thread.count)
    return Outcome(thread.heading.key, "new", thread.thread.count)


async def _viewed(thread: StoreThread) -> AsyncIterator[tuple[Message, View | None]]:
    async for page in thread.pages():
        for message in page:
            try:
                yield message, codec.view(message)
            except CorruptRecordError:
                yield message, None


def _title(thread: StoreThread) -> str:
    return codec.shorten(thread.heading.title or thread.heading.key.thread_id, 200)


def _when(message: Message) -> str:
    return "" if message.created_at is None else f"{message.created_at:%Y-%m-%d %H:%M:%S} UTC"


def _described(media: Media) -> str:
    size = "" if media.size is None else f", {media.size:,} bytes"
    return f"[{media.media_type or 'file'}{size}]"


class Markdown(Renderer):
    """A heading for each thread and message; what was said as quoted text, tools as code."""

    suffix = ".md"

    async def thread(self, thread: StoreThread) -> AsyncIterator[str]:
        yield f"# {_plain(_title(thread))}\n\n"
        async for message, seen in _viewed(thread):
            role = _plain(seen.role if seen and seen.role else "message")
            heading = f"## {role} {f'· {_when(message)} ' if _when(message) else ''}· {message.seq}"
            yield "\n\n".join([heading, *self._parts(seen)]) + "\n\n"

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


class Html(Renderer):
    """One page that needs nothing else, with a section for each thread."""

    suffix = ".html"
    before = """<!doctype html>
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
    after = "</body></html>\n"

    async def thread(self, thread: StoreThread) -> AsyncIterator[str]:
        yield f"<section><h1>{escape(_title(thread))}</h1>\n"
        async for message, seen in _viewed(thread):
            role = seen.role if seen and seen.role else "message"
            kind = f' class="{role}"' if role in {"user", "assistant"} else ""
            heading = " · ".join(filter(None, (role, _when(message), str(message.seq))))
            yield f"<article{kind}><header>{escape(heading)}</header>{''.join(self._parts(seen))}</article>\n"
        yield "</section>\n"

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


class FineTuning(Renderer):
    """One line a thread, ``{"messages": […]}``: text, tool calls and results; media are left out.

    Source: https://platform.openai.com/docs/guides/supervised-fine-tuning (the chat format).
    """

    suffix = ".jsonl"

    async def thread(self, thread: StoreThread) -> AsyncIterator[str]:
        is_first = True
        async for _, seen in _viewed(thread):
            for entry in _entries(seen or View()):
                yield ('{"messages":[' if is_first else ",") + codec.encode(entry).decode()
                is_first = False
        if not is_first:
            yield "]}\n"


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


RENDERERS: dict[str, Callable[[], Renderer]] = {"markdown": Markdown, "html": Html, "openai": FineTuning}

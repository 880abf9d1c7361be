"""Threads and messages as text for people. No I/O.

Stored text is not trusted: its control characters are made visible.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from rich.cells import cell_len, chop_cells
from rich.text import Text

from everthread._wording import ago, file_size, local_time
from everthread.cli.durations import in_words
from everthread.cli.plain import counted, sanitize
from everthread.errors import CorruptRecordError
from everthread.messages import codec
from everthread.messages.codec import Media, View
from everthread.model import Message, Thread

MENU = (
    ("1", "send a message"),
    ("2", "show this thread's history"),
    ("3", "load a saved thread"),
    ("4", "start a new thread"),
    ("0", "exit"),
)
REMINDER = "1 send · 2 history · 3 load · 4 new · 0 exit"
SHORT_REMINDER = "1 send 2 history 3 load 4 new 0 exit"
INDENT = "  "
LONGEST_TOOL_TEXT = 400
"""The characters shown of a tool call or result; texts are never shortened."""

_STYLES = {"user": "bold cyan", "assistant": "bold green", "tool": "bold yellow", "system": "bold magenta"}
_WORDS = re.compile(r"\n|[^\S\n]+|\S+")


def one_line(text: str, longest: int) -> str:
    """Return the text as one sanitized line of at most ``longest`` characters."""
    return codec.shorten(sanitize(text), longest)


class WordWrap:
    """Breaks text into lines at spaces while it arrives piece by piece.

    Args:
        width: Columns of the terminal; ``None`` breaks nothing.
        indent: Text before every line.
        column: Columns already used in the first line.
    """

    def __init__(self, width: int | None, indent: str = "", column: int = 0) -> None:
        self._width = None if width is None else max(width, len(indent) + 8)
        self._indent = indent
        self._column = column
        self._gap = self._word = ""

    def feed(self, piece: str) -> str:
        """Return the text that can be printed; an unfinished word waits."""
        done: list[str] = []
        for part in _WORDS.findall(piece):
            if not part.isspace():
                self._word += part
                continue
            done.append(self.end())
            if part == "\n":
                done.append("\n")
                self._column, self._gap = 0, ""
            else:
                self._gap += part
        return "".join(done)

    def end(self) -> str:
        """Return the word that waits."""
        if not self._word:
            return ""
        word, gap, self._word, self._gap = self._word, self._gap, "", ""
        if self._column == 0:
            gap = self._indent + gap
        elif self._width is not None and self._column + cell_len(gap + word) > self._width:
            gap, self._column = "\n" + self._indent, 0
        return gap + self._place(word, self._column + cell_len(gap.lstrip("\n")))

    def _place(self, word: str, column: int) -> str:
        if self._width is None or column + cell_len(word) <= self._width:
            self._column = column + cell_len(word)
            return word
        # Longer than a line: broken anywhere.
        parts = chop_cells(word, self._width - len(self._indent))
        self._column = len(self._indent) + cell_len(parts[-1])
        return ("\n" + self._indent).join(parts)


def wrapped(text: str, width: int | None, indent: str = "") -> str:
    """Return the text, broken into lines that fit."""
    wrap = WordWrap(width, indent)
    return wrap.feed(text) + wrap.end()


# Messages


def transcript(messages: Iterable[Message], *, now: datetime, width: int | None = None) -> Iterator[Text]:
    """Yield the lines of messages, in order."""
    for message in messages:
        yield from message_lines(message, now=now, width=width)


def message_lines(
    message: Message, *, now: datetime, width: int | None = None, with_position: bool = False
) -> Iterator[Text]:
    """Yield the role and time of a message, then its text, media, tool calls and results.

    Args:
        now: The present, in the time zone to show times in.
        width: Columns of the terminal; ``None`` breaks no lines.
        with_position: Show the message's position too.
    """
    try:
        seen = codec.view(message)
    except CorruptRecordError:
        yield _heading("unreadable", message, now, with_position)
        yield Text(f"{INDENT}(the record at position {message.seq} is not JSON)", style="red")
        return
    yield _heading(seen.role or "message", message, now, with_position)
    for part in content_lines(seen):
        yield Text(wrapped(part, width, INDENT))


def content_lines(seen: View) -> Iterator[str]:
    """Yield the parts of a message, sanitized: reasoning, text, media, calls, results, the early end of its run."""
    if seen.reasoning:
        yield f"(thinks) {one_line(seen.reasoning, LONGEST_TOOL_TEXT)}"
    if seen.text:
        yield sanitize(seen.text)
    yield from (_media(media) for media in seen.media)
    for call in seen.calls:
        yield f"→ {one_line(call.name, 80)} {one_line(call.arguments, LONGEST_TOOL_TEXT)}".rstrip()
    for result in seen.results:
        yield f"← {one_line(result.text, LONGEST_TOOL_TEXT) or '(nothing)'}"
    if not (seen.reasoning or seen.text or seen.media or seen.calls or seen.results):
        yield "(no text)"
    if seen.ended:
        yield "(this run was cancelled)" if seen.ended == "cancelled" else "(this run failed)"


def _heading(role: str, message: Message, now: datetime, with_position: bool) -> Text:
    shown = one_line(role, 20)
    when = message.created_at
    heading = Text(shown, style=_STYLES.get(role, "bold"))
    facts = "time unknown" if when is None else time_of(when, now)
    return heading.append(f"  {facts}" + (f"  #{message.seq}" if with_position else ""), style="not bold dim")


def _media(media: Media) -> str:
    family, _, _ = media.media_type.partition("/")
    kind = family if family in {"image", "audio", "video"} else f"file {media.media_type}".rstrip()
    if media.size is not None:
        return f"<{one_line(kind, 60)} {file_size(media.size)}>"
    return f"<{one_line(kind, 60)} at {one_line(media.uri, 200)}>"


# Times


def time_of(when: datetime, now: datetime) -> str:
    """Return the time, with the date unless it is today's, in the time zone of ``now``."""
    local = local_time(when, now)
    return f"{local:%H:%M}" if local.date() == now.date() else f"{local:%Y-%m-%d %H:%M}"


# Threads


def thread_line(
    number: int, thread: Thread, title: str | None, *, now: datetime, width: int | None, current: bool = False
) -> Text:
    """Return a list entry: number, title, message count, last activity; in two lines if one is too narrow."""
    facts = f"{counted(thread.count, 'message')}, {ago(thread.updated_at, now)}" + (", this one" if current else "")
    name = one_line(title or thread.key.thread_id, 60 if width is None else max(width - 6, 10))
    line = Text(f"{number:>3}  ", style="bold").append(name, style="not bold")
    fits = width is None or line.cell_len + 2 + len(facts) <= width
    return line.append(("  " if fits else "\n     ") + facts, style="not bold dim")


def retention_words(thread: Thread, now: datetime) -> str:
    """Return what a thread keeps, by its own retention or that of its store, and when it expires."""
    own, when = thread.retention, thread.expires_at
    if own is None:
        kept = "the messages within its store's limits"
    elif own.max_messages is None:
        kept = "all messages"
    else:
        kept = f"its newest {counted(own.max_messages, 'message')}"
    if when is None:
        return kept
    after = f" {in_words(own.expire_after)} after its last activity," if own and own.expire_after else ""
    return f"{kept}; expires{after} on {local_time(when, now):%Y-%m-%d at %H:%M}"


def heading_lines(facts: Sequence[tuple[str, str]], width: int | None) -> Iterator[Text]:
    """Yield names and values, one below the other, with the values aligned and broken at the width."""
    margin = max(len(name) for name, _ in facts) + 2
    for name, value in facts:
        lines = wrapped(sanitize(value), None if width is None else width - margin).split("\n")
        for index, line in enumerate(lines):
            yield Text(("" if index else name).ljust(margin), style="dim").append(line, style="not dim")


def menu_lines(width: int | None = None) -> list[str]:
    """Return the menu in one line if it fits, else in lines of whole choices."""
    lines = [""]
    for key, label in MENU:
        choice = f"[{key}] {label}"
        longer = f"{lines[-1]}  {choice}" if lines[-1] else choice
        if lines[-1] and width is not None and len(longer) > width:
            lines.append(choice)
        else:
            lines[-1] = longer
    return lines


def reminder(width: int) -> str:
    """Return the menu in one short line, to show below the prompt."""
    return REMINDER if len(REMINDER) <= width else SHORT_REMINDER

"""The messages of a page as entries that templates show: calls with their results, times, marks. No I/O."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from everthread._validation import is_sealed
from everthread._wording import file_size
from everthread.errors import CorruptRecordError
from everthread.messages.codec import Media, View, decode, shorten, view_of
from everthread.model import Message, ThreadKey
from everthread.operations.summarize import Summary
from everthread.readable import Unreadable
from everthread.server.view.markup import LONGEST_TEXT, as_html, as_plain_html, cut
from everthread.transfer.rendering import readable_text

Mode = Literal["conversation", "tools", "raw"]
MODES: tuple[Mode, ...] = ("conversation", "tools", "raw")
KNOWN_ROLES = frozenset({"user", "assistant", "tool", "system", "developer"})

LONG_PAUSE = timedelta(minutes=5)
"""A pause between two messages that is shown on a line of its own."""
MARKUP_CHARACTERS = 400_000
"""The most characters of a page that are rendered as Markdown; further texts are shown as they are stored."""
_LONGEST_LINE = 160


@dataclass(frozen=True)
class Tool:
    """A tool call, a result, or both.

    Attributes:
        call_seq, result_seq: The positions of their messages.
        line: The call on one line.
        answer_line: The result on one line.
        is_cut: Only the beginning of a text is shown.
    """

    call_id: str
    name: str
    line: str = ""
    arguments: str = ""
    call_seq: int | None = None
    answer: str = ""
    answer_line: str = ""
    result_seq: int | None = None
    is_cut: bool = False


@dataclass(frozen=True)
class Entry:
    """A message, or a mark between messages (then ``mark`` is its text).

    Attributes:
        state: ``sealed`` or ``unreadable``; empty for a message that was interpreted.
        html: Its text, safe to show.
        raw: Its JSON as stored, in raw mode.
        is_cut: Only the beginning of its text is shown.
        pause: The time since the message before, if it is more than a second.
    """

    seq: int = 0
    kind: str = "message"
    mark: str = ""
    detail: str = ""
    role: str = ""
    author: str = ""
    when: datetime | None = None
    pause: str = ""
    html: str = ""
    reasoning: str = ""
    tools: tuple[Tool, ...] = ()
    media: tuple[str, ...] = ()
    ended: str = ""
    state: str = ""
    raw: str = ""
    size: str = ""
    format: str = ""
    is_cut: bool = False

    @property
    def css_role(self) -> str:
        """The role, if it is one that has a color."""
        return self.role if self.role in KNOWN_ROLES else "other"


@dataclass
class Seen:
    """A message and its view; without one, its record cannot be read or is sealed."""

    message: Message
    view: View | None
    is_sealed: bool = False


def seen_of(message: Message, key: ThreadKey) -> Seen:
    """Return a message with its view."""
    if is_sealed(message.payload):
        return Seen(message, None, is_sealed=True)
    try:
        return Seen(message, view_of(decode(message, key), message.format))
    except CorruptRecordError:
        return Seen(message, None)


@dataclass
class Page:
    """The messages of a page, and what is known around them.

    Attributes:
        head_seq: The thread's oldest position.
        older, newer: Whether more messages are before and after the page.
        unreadable: Records that the store could not return.
    """

    messages: list[Seen]
    head_seq: int
    next_seq: int
    older: bool
    newer: bool
    unreadable: list[Unreadable] = field(default_factory=list[Unreadable])
    summary: Summary | None = None

    @property
    def first(self) -> int:
        """Its first position."""
        return self.messages[0].message.seq if self.messages else self.next_seq

    @property
    def stop(self) -> int:
        """The position after its last message."""
        return self.messages[-1].message.seq + 1 if self.messages else self.next_seq


def entries_of(page: Page, mode: Mode) -> list[Entry]:
    """Return the entries of a page, oldest first."""
    shown = _Entries(page, mode)
    return list(shown.all())


class _Entries:
    def __init__(self, page: Page, mode: Mode) -> None:
        self._page = page
        self._mode: Mode = mode
        self._left = MARKUP_CHARACTERS
        self._answers = _answers_of(page.messages)
        self._joined = {
            call.id for seen in page.messages if seen.view for call in seen.view.calls if call.id in self._answers
        }

    def all(self) -> Iterator[Entry]:
        page = self._page
        unreadable = {bad.seq: bad for bad in page.unreadable if bad.seq is not None}
        expected = page.first
        before: Message | None = None
        if not page.older and page.head_seq:
            yield Entry(kind="gap", mark=_range(0, page.head_seq, "no longer stored: removed by retention or trimming"))
            expected = page.head_seq
        is_summarized = page.summary is not None and page.summary.stop >= page.first
        for seen in page.messages:
            message = seen.message
            for bad in sorted(seq for seq in unreadable if expected <= seq < message.seq):
                yield Entry(
                    bad, kind="unreadable", mark=f"Position {bad:,} cannot be read", detail=unreadable[bad].reason
                )
                expected = bad + 1
            if message.seq > expected:
                yield Entry(kind="gap", mark=_range(expected, message.seq, "no message: undone, or removed"))
            if is_summarized and page.summary is not None and message.seq >= page.summary.stop:
                yield _summary(page.summary)
                is_summarized = False
            yield from self._message(seen, before)
            before, expected = message, message.seq + 1
        if is_summarized and page.summary is not None and not page.newer:
            yield _summary(page.summary)

    def _message(self, seen: Seen, before: Message | None) -> Iterator[Entry]:
        message = seen.message
        pause = _pause(before, message)
        entry = self._entry(seen, "" if pause is None or pause > LONG_PAUSE else f"+{in_short(pause)}")
        if entry is None:
            return
        if pause is not None and pause > LONG_PAUSE:
            yield Entry(kind="pause", mark=f"{in_short(pause)} later")
        yield entry

    def _entry(self, seen: Seen, pause: str) -> Entry | None:
        message, view = seen.message, seen.view
        stored: dict[str, Any] = {
            "seq": message.seq,
            "when": message.created_at,
            "pause": pause,
            "format": message.format,
        }
        stored["size"] = file_size(len(message.payload))
        if self._mode == "raw":
            raw, is_cut = cut(readable_text(message.payload.decode(errors="replace")))
            return Entry(**stored, role=_role(view), raw=raw, is_cut=is_cut)
        if view is None:
            state = "sealed" if seen.is_sealed else "unreadable"
            return Entry(**stored, role=state, state=state)
        tools = self._tools(message.seq, view) if self._mode == "tools" else ()
        text, is_cut = cut(view.text)
        is_shown = text.strip() or tools or view.media or view.ended or (view.reasoning and self._mode == "tools")
        is_bare = not (view.calls or view.results)
        if not is_shown and not is_bare:
            return None
        return Entry(
            **stored,
            role=_role(view),
            author=shorten(readable_text(view.author), 80),
            html=self._html(text),
            reasoning=readable_text(cut(view.reasoning)[0]),
            tools=tools,
            media=tuple(map(_media, view.media)),
            ended=view.ended,
            is_cut=is_cut or any(tool.is_cut for tool in tools),
        )

    def _html(self, text: str) -> str:
        self._left -= len(text)
        return as_html(text) if self._left >= 0 else as_plain_html(text)

    def _tools(self, seq: int, view: View) -> tuple[Tool, ...]:
        return (*self._calls(seq, view), *self._results(seq, view))

    def _calls(self, seq: int, view: View) -> Iterator[Tool]:
        for call in view.calls:
            at, text = self._answers.get(call.id, (None, ""))
            arguments, is_cut = cut(pretty(call.arguments))
            answer, is_answer_cut = cut(pretty(text))
            yield Tool(
                readable_text(call.id),
                shorten(readable_text(call.name), 80) or "tool",
                _line(call.arguments),
                arguments,
                seq,
                answer,
                _line(text) if at is not None else "",
                at,
                is_cut or is_answer_cut,
            )

    def _results(self, seq: int, view: View) -> Iterator[Tool]:
        for result in view.results:
            if result.id in self._joined and self._answers[result.id][0] == seq:
                continue
            answer, is_cut = cut(pretty(result.text))
            yield Tool(
                readable_text(result.id),
                "",
                answer=answer,
                answer_line=_line(result.text),
                result_seq=seq,
                is_cut=is_cut,
            )


def _answers_of(messages: Iterable[Seen]) -> dict[str, tuple[int, str]]:
    """Return position and text of the first result of each call."""
    found: dict[str, tuple[int, str]] = {}
    for seen in messages:
        for result in seen.view.results if seen.view else ():
            found.setdefault(result.id, (seen.message.seq, result.text))
    return found


def opens_with_results(messages: Sequence[Seen]) -> bool:
    """Return whether a page has results without their calls, so that these are in an older page."""
    calls: set[str] = set()
    for seen in messages:
        if seen.view is None:
            continue
        if any(result.id not in calls for result in seen.view.results):
            return True
        calls |= {call.id for call in seen.view.calls}
    return False


def pretty(text: str) -> str:
    """Return JSON with line breaks, and any other text unchanged."""
    if len(text) <= LONGEST_TEXT * 4 and text.lstrip()[:1] in {"{", "["}:
        with contextlib.suppress(ValueError, RecursionError):
            text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    return readable_text(text)


def _line(text: str) -> str:
    return shorten(readable_text(text), _LONGEST_LINE)


def _role(view: View | None) -> str:
    return shorten(readable_text(view.role if view else ""), 40) or "message"


def _media(media: Media) -> str:
    kind = shorten(readable_text(media.media_type), 60) or "file"
    if media.size is not None:
        return f"{kind}, {file_size(media.size)}"
    return f"{kind} at {shorten(readable_text(media.uri), 200)}"


def _pause(before: Message | None, message: Message) -> timedelta | None:
    if before is None or before.created_ms is None or message.created_ms is None:
        return None
    passed = timedelta(milliseconds=message.created_ms - before.created_ms)
    return passed if passed >= timedelta(seconds=1) else None


def in_short(passed: timedelta) -> str:
    """Return a duration in one or two units: ``12 s``, ``3 min``, ``2 h 10 min``, ``4 d``."""
    seconds = int(passed.total_seconds())
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min"
    if seconds < 86_400:
        minutes = seconds % 3600 // 60
        return f"{seconds // 3600} h" + (f" {minutes} min" if minutes else "")
    return f"{seconds // 86_400} d"


def _range(start: int, stop: int, text: str) -> str:
    places = f"Position {start:,}" if stop - start == 1 else f"Positions {start:,} to {stop - 1:,}"
    return f"{places}: {text}"


def _summary(summary: Summary) -> Entry:
    places = f"Positions {summary.start:,} to {summary.stop - 1:,}"
    return Entry(
        kind="summary",
        mark=f"{places}: a model gets this summary in their place",
        detail=readable_text(cut(summary.text)[0]),
    )

"""``everthread show``: print the messages of threads."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import click
import msgspec

from everthread.cli.exit_statuses import EXIT_FAILED
from everthread.cli.options import (
    Seconds,
    flag_option,
    json_option,
    names_option,
    number_option,
    optional_thread_argument,
    roles_option,
    since_option,
    store_command,
    tags_option,
    until_option,
)
from everthread.cli.output import Output
from everthread.cli.plain import counted, readable_location, readable_title, say_json
from everthread.cli.runner import run
from everthread.cli.tenants import note_other_tenants
from everthread.json_form import raw_message, shown_message

if TYPE_CHECKING:
    from everthread.cli.places import Place
    from everthread.contract import Store
    from everthread.listing import MessageFilter, ThreadFilter
    from everthread.messages.codec import View
    from everthread.model import Message, Thread
    from everthread.readable import Unreadable

EXAMPLES = """\b
Examples:
  everthread show trip-to-rome
  everthread show "Trip to R"                       the only title that begins so
  everthread show trip-to-rome --since yesterday --role assistant
  everthread show trip-to-rome --tool book_hotel --grep naples
  everthread show @prod --tag customer=acme --role assistant --since yesterday
  everthread show @prod trip-to-rome --follow
  everthread show trip-to-rome --json | jq -r .text
  everthread show trip-to-rome --raw | jq .payload

\b
THREAD is an ID, or the beginning of one ID or title alone. Without THREAD, --tag,
--threads and --since choose threads, the newest activity first.

\b
On a terminal, the newest 1,000 messages are shown in a pager (PAGER, else less), the
newest screen first; --all shows all. If the thread has a summary (everthread
summarize), show prints the summary and the messages after it; with --all, --last,
--raw and filters, the messages themselves. --json prints an object for each message,
in one form for all formats; --raw prints the stored payload. A record that is not
JSON has "undecodable", its bytes in Base64, instead of a payload; the exit status
is then 1.
"""
NEWEST_SHOWN = 1000
"""The most messages that a terminal shows without ``--all``."""


class _Wanted(NamedTuple):
    """The messages to show: all that pass the filter, or the newest of these."""

    only: MessageFilter
    last: int | None
    has_summary: bool
    interval: float | None
    is_raw: bool


@store_command(epilog=EXAMPLES, read_only=True)
@optional_thread_argument
@names_option
@tags_option
@since_option()
@until_option()
@roles_option
@click.option("--tool", default="", metavar="NAME", help="Messages that call this tool, and the results.")
@click.option("--grep", "text", default="", metavar="TEXT", help="Messages with this text, in any case, also in tools.")
@number_option("--last", help="Newest messages to print. (default: all)", least=1)
@flag_option("--all", "everything", help="Print the messages that a summary covers too.")
@flag_option("--follow", "-f", help="Print new messages of any writer until Ctrl-C.")
@click.option(
    "--interval",
    type=Seconds(min=0.02),
    metavar="SECONDS",
    default=0.5,
    help="Time between two reads of --follow. (default: 0.5)",
)
@flag_option("--raw", help="Print JSON with the stored payload, one message a line.")
@json_option
def show(
    *,
    place: Place,
    thread_id: str | None,
    names: tuple[str, ...],
    tags: tuple[tuple[str, object], ...],
    since: datetime | None,
    until: datetime | None,
    roles: tuple[str, ...],
    tool: str,
    text: str,
    last: int | None,
    everything: bool,
    follow: bool,
    interval: float,
    raw: bool,
    as_json: bool,
) -> None:
    """Show the texts, media, tool calls and results of a thread, or of several."""
    from everthread.listing import ALL_MESSAGES, MessageFilter, ThreadFilter

    if thread_id is None and not (names or tags or since):
        raise click.UsageError("Name a thread, or choose threads with --tag, --threads or --since.")
    if thread_id is None and follow:
        raise click.UsageError("--follow needs the name of one thread.")
    if thread_id is not None and (names or tags):
        raise click.UsageError("Give THREAD, or --tag and --threads.")
    output = Output(as_json=as_json or raw)
    only = MessageFilter(since, until, roles, tool, text)
    is_short = only == ALL_MESSAGES and not (everything or last)
    wanted = _Wanted(only, last, is_short and not output.as_json, interval if follow else None, raw)
    if is_short and output.is_terminal and not follow:
        wanted = wanted._replace(last=NEWEST_SHOWN)
    threads = ThreadFilter(metadata=dict(tags), active_after=since, ids=names)
    shown = _Shown(output, wanted)
    with output.paged(is_on=not follow):
        run(lambda store: shown.one(store, place, thread_id) if thread_id else shown.many(store, place, threads), place)
    if shown.problems:
        raise click.exceptions.Exit(EXIT_FAILED)


class _Shown:
    """Prints threads, and counts the records that cannot be read."""

    def __init__(self, output: Output, wanted: _Wanted) -> None:
        self._output = output
        self._wanted = wanted
        self._count = 0
        self.problems = 0

    async def one(self, store: Store, place: Place, name: str) -> None:
        """Print the thread of this ID, or of the only ID or title that begins so."""
        from everthread.errors import ThreadNotFoundError
        from everthread.listing import follow, thread_named
        from everthread.messages.codec import View

        try:
            thread = await thread_named(store, name, place.tenant)
        except ThreadNotFoundError:
            await note_other_tenants(store, place.tenant, self._output)
            raise
        next_seq = await self._thread(store, thread)
        if self._wanted.interval is not None:
            calls = set[str]()
            async for message in follow(store, thread.key, start=next_seq, interval=self._wanted.interval):
                seen = self._view(message, thread, [])
                if self._wanted.only.accepts(message.created_ms, seen or View(), calls):
                    self._message(message, thread, seen)

    async def many(self, store: Store, place: Place, threads: ThreadFilter) -> None:
        """Print the threads that pass a filter and have messages that do."""
        from everthread.listing import find_threads

        found = False
        async for thread in find_threads(store, place.tenant, threads):
            found = True
            await self._thread(store, thread, is_one=False)
        if not found:
            self._output.note("No thread matches.")
            await note_other_tenants(store, place.tenant, self._output)
        elif not self._count:
            self._output.note("No message matches.")

    async def _thread(self, store: Store, thread: Thread, *, is_one: bool = True) -> int:
        """Print a thread and its problems; return the position after its last message."""
        wanted, output = self._wanted, self._output
        if is_one and not output.as_json:
            self._heading(thread, store.location)
        start = await self._summary(store, thread) if wanted.has_summary else thread.head_seq
        notes: list[str] = []
        next_seq, count = start, 0
        async for message, seen in self._messages(store, thread, start, notes):
            if not count and not is_one and not output.as_json:
                self._heading(thread, store.location)
            self._message(message, thread, seen)
            next_seq, count = message.seq + 1, count + 1
            self._count += 1
        if is_one and not count and not output.as_json and wanted.interval is None:
            output.show("This thread is empty." if not thread.count else "No message matches.")
        for note in notes:
            output.note(note)
        self.problems += len(notes)
        return max(next_seq, thread.next_seq)

    async def _messages(
        self, store: Store, thread: Thread, start: int, notes: list[str]
    ) -> AsyncIterator[tuple[Message, View | None]]:
        from everthread.listing import ALL_MESSAGES, first_since
        from everthread.messages.codec import View
        from everthread.readable import read_all_around, read_last_around

        def leave_out(unreadable: Unreadable) -> None:
            notes.append(f"Left out: {unreadable.reason}")

        only, last, calls = self._wanted.only, self._wanted.last, set[str]()
        if only == ALL_MESSAGES and last is not None:
            newest = await read_last_around(store, thread.key, last, on_unreadable=leave_out)
            if self._wanted.has_summary and newest and newest[0].seq > max(start, newest.head_seq):
                self._output.show(f"(the newest {counted(len(newest), 'message')}; --all shows all)")
            for message in newest:
                if message.seq >= start:
                    yield message, self._view(message, thread, notes)
            return
        start = start if only.since is None else max(start, await first_since(store, thread.key, only.since))
        kept: deque[tuple[Message, View | None]] = deque(maxlen=last)
        async for message in read_all_around(store, thread.key, start=start, on_unreadable=leave_out):
            seen = self._view(message, thread, notes)
            if only != ALL_MESSAGES and not only.accepts(message.created_ms, seen or View(), calls):
                continue
            if last is None:
                yield message, seen
            else:
                kept.append((message, seen))
        for each in kept:
            yield each

    def _view(self, message: Message, thread: Thread, notes: list[str]) -> View | None:
        """Return the view of a message, or note that its record is not JSON."""
        from everthread.errors import CorruptRecordError
        from everthread.messages.codec import view

        try:
            return view(message, thread.key)
        except CorruptRecordError as error:
            notes.append(str(error))
            return None

    # Output

    async def _summary(self, store: Store, thread: Thread) -> int:
        """Print the summary, if there is one, and return the position after it."""
        from everthread.cli.rendering import content_lines
        from everthread.errors import CorruptRecordError
        from everthread.messages.codec import View
        from everthread.operations.summarize import get_summary

        try:
            summary = await get_summary(store, thread.key)
        except CorruptRecordError as error:
            self._output.note(str(error))
            summary = None
        if summary is None:
            return thread.head_seq
        covered = counted(summary.messages, "message")
        lines = (f"  {line}" for text in content_lines(View(text=summary.text)) for line in text.split("\n"))
        self._output.show(f"summary of {covered} (--all shows the messages that are still stored)", *lines, "")
        return max(summary.stop, thread.head_seq)

    def _heading(self, thread: Thread, location: str) -> None:
        from everthread.cli.rendering import heading_lines, retention_words

        facts = [("thread", thread.key.thread_id)]
        if thread.title:
            facts.append(("title", readable_title(thread.title)))
        facts += [("store", readable_location(location)), ("messages", f"{thread.count:,}")]
        if thread.retention is not None or thread.expires_ms is not None:
            facts.append(("keeps", retention_words(thread, datetime.now().astimezone())))
        if thread.metadata:
            facts.append(("metadata", msgspec.json.encode(thread.metadata).decode()))
        self._output.show(*heading_lines(facts, self._output.width), "")

    def _message(self, message: Message, thread: Thread, seen: View | None) -> None:
        from everthread.cli.rendering import message_lines

        if self._wanted.is_raw:
            say_json(raw_message(message, thread.key, is_json=seen is not None))
        elif self._output.as_json:
            say_json(shown_message(message, thread.key, seen))
        else:
            now = datetime.now().astimezone()
            self._output.show(*message_lines(message, now=now, width=self._output.width, with_position=True))

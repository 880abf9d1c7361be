"""``everthread show``: what was said in a thread."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from datetime import datetime
from typing import TYPE_CHECKING

import click
import msgspec

from everthread.cli.common import Output, Place, counted, run, store_command, thread_argument

if TYPE_CHECKING:
    from everthread.contract import Store
    from everthread.model import Message, Thread, ThreadKey

EXAMPLES = """\b
Examples:
  everthread show trip-to-rome
  everthread show trip-to-rome --last 10
  everthread show trip-to-rome --all
  everthread show @prod trip-to-rome --follow
  everthread show trip-to-rome --raw | jq .payload

\b
Of a thread with a summary (everthread summarize), the summary and what follows
it are shown; --all shows all messages, as do --last and --raw.
--raw prints a JSON object a line: seq, turn, format, created, payload. A record
that is not JSON has its bytes in "undecodable", in Base64, instead of a payload.
"""
READ_AT_ONCE = 1000


@store_command(epilog=EXAMPLES)
@thread_argument
@click.option("--last", type=click.IntRange(min=1), metavar="N", help="Only the newest N messages.")
@click.option("--all", "everything", is_flag=True, help="Also the messages that a summary covers.")
@click.option("--follow", "-f", is_flag=True, help="Go on with each new message, whoever writes it; Ctrl-C ends it.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.02),
    default=0.5,
    show_default=True,
    help="Seconds between two looks for new messages.",
)
@click.option("--raw", is_flag=True, help="Print JSON, one message a line.")
def show(
    *, place: Place, thread_id: str, last: int | None, everything: bool, follow: bool, interval: float, raw: bool
) -> None:
    """Show a thread: texts, media, tool calls and results."""
    output = Output(as_json=raw)
    key = place.key(thread_id)
    is_short = not (everything or raw or last)
    run(lambda store: _show(store, key, last, interval if follow else None, output, is_short=is_short), place)


async def _show(
    store: Store, key: ThreadKey, last: int | None, interval: float | None, output: Output, *, is_short: bool
) -> None:
    from everthread.threads import existing_thread, follow

    thread = await existing_thread(store, key)
    if not output.as_json:
        _show_heading(thread, store.location, output)
    next_seq = await _show_summary(store, thread, output) if is_short else thread.head_seq
    async for message in _kept(store, thread, last, next_seq):
        _show_message(message, output)
        next_seq = message.seq + 1
    if interval is not None:
        async for message in follow(store, key, start=next_seq, interval=interval):
            _show_message(message, output)
    elif not thread.count and not output.as_json:
        output.show("This thread is empty.")


async def _show_summary(store: Store, thread: Thread, output: Output) -> int:
    """Shows the summary, if there is one, and gives the position of what follows it."""
    from everthread.cli.rendering import content_lines
    from everthread.codec import View
    from everthread.summaries import get_summary

    summary = await get_summary(store, thread.key)
    if summary is None:
        return thread.head_seq
    output.show(f"summary of {counted(summary.messages, 'message')} (--all shows those that are kept)")
    output.show(*(f"  {line}" for text in content_lines(View(text=summary.text)) for line in text.split("\n")), "")
    return max(summary.stop, thread.head_seq)


async def _kept(store: Store, thread: Thread, last: int | None, start: int) -> AsyncIterator[Message]:
    from everthread.contract import read_all

    if last is not None and last <= READ_AT_ONCE:
        for message in await store.read_last(thread.key, last):
            yield message
        return
    skipped = 0 if last is None else thread.count - last
    async for message in read_all(store, thread.key, start=start):
        if skipped > 0:
            skipped -= 1
        else:
            yield message


def _show_heading(thread: Thread, location: str, output: Output) -> None:
    from everthread.cli.rendering import heading_lines, retention_words
    from everthread.cli.stores import place_for_people

    facts = [("thread", thread.key.thread_id), ("kept in", place_for_people(location))]
    facts.append(("messages", f"{thread.count:,}"))
    if thread.title:
        facts.insert(1, ("title", thread.title))
    if thread.retention is not None or thread.expires_ms is not None:
        facts.append(("keeps", retention_words(thread, datetime.now().astimezone())))
    if thread.metadata:
        facts.append(("metadata", msgspec.json.encode(thread.metadata).decode()))
    output.show(*heading_lines(facts, output.width), "")


def _show_message(message: Message, output: Output) -> None:
    from everthread.cli.rendering import message_lines

    if output.as_json:
        click.echo(msgspec.json.encode(_raw(message)).decode())
    else:
        now = datetime.now().astimezone()
        output.show(*message_lines(message, now=now, width=output.width, with_position=True))


def _raw(message: Message) -> dict[str, object]:
    from everthread.codec import decode
    from everthread.errors import CorruptRecordError

    fields: dict[str, object] = {
        "seq": message.seq,
        "turn": message.turn,
        "format": message.format,
        "created": message.created_at,
    }
    try:
        decode(message)
    except CorruptRecordError:
        return {**fields, "undecodable": base64.b64encode(message.payload).decode()}
    # Between JSON's tokens a line break means no more than a space; within them there is none.
    return {**fields, "payload": msgspec.Raw(message.payload.replace(b"\n", b" ").replace(b"\r", b" "))}

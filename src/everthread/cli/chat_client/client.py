"""The interactive client: its menu, and the choices in it."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import shutil
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path

from rich.text import Text

from everthread.cli import rendering
from everthread.cli.chat_client.conversation import AGENT_NAME, Conversation, ModelError, ReplyStopped
from everthread.cli.chat_client.terminal import Leave, Terminal
from everthread.cli.exit_statuses import EXIT_FAILED, EXIT_INTERRUPTED
from everthread.cli.models import Model, choose_model
from everthread.cli.places import Place, input_history_path
from everthread.cli.plain import readable_location, sanitize
from everthread.cli.runner import failure, open_place, without_secrets
from everthread.errors import EverthreadError, OutcomeUnknownError
from everthread.listing import title_of
from everthread.model import Message, Thread
from everthread.readable import read_all_around

LEAVING = frozenset({"0", "/quit", "/exit", "quit", "exit"})
THREADS_A_PAGE = 10
SHOWN_ON_LOADING = 200
"""The newest messages shown when a thread is loaded; [2] shows all."""
WORD_PACE = 0.015
"""Seconds between two words of the offline model on a terminal."""

HELP = """Type a message and press Enter, or choose:
  1             send a message (also one that looks like a choice)
  2, /history   show this thread's history
  3, /threads   load a saved thread
  4, /new       start a new thread
  0, /quit      exit
  /help         this help
quit, exit and help work too. Ctrl-C stops a reply. At a prompt it clears the
line; in an empty line it goes back to the menu, and from there it leaves."""


def run(
    place: Place,
    thread_id: str | None,
    model_option: str | None,
    max_messages: int | None,
    *,
    keeps_input: bool = True,
) -> int:
    """Run the client until the user leaves, and return the exit status.

    Args:
        place: The store and the tenant.
        thread_id: The first thread. Default: a new one.
        model_option: The value of ``--model``.
        max_messages: The newest messages that a thread keeps. Default: its retention, or that of the store.
        keeps_input: Store the typed lines for the arrow keys of later runs, unless the store is encrypted.
    """
    # The frameworks' log records would mix with the conversation.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        history = input_history_path() if keeps_input and not place.keyring else None
        return asyncio.run(_run(place, thread_id, model_option, max_messages, history))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return EXIT_INTERRUPTED


async def _run(
    place: Place, thread_id: str | None, model_option: str | None, max_messages: int | None, history: Path | None
) -> int:
    terminal = Terminal(rendering.reminder, history)
    model = choose_model(model_option, os.environ, pace=WORD_PACE if terminal.is_interactive else 0)
    try:
        async with open_place(place.to_begin()) as store:
            conversation = Conversation(
                store, model, tenant=place.tenant, max_messages=max_messages, thread_id=thread_id
            )
            return await _Client(conversation, terminal, model, place).run()
    except EverthreadError as error:
        failed = failure(error, place)
        terminal.show_error(failed.message)
        return failed.exit_code
    finally:
        await model.close()


class _Client:
    def __init__(self, conversation: Conversation, terminal: Terminal, model: Model, place: Place) -> None:
        self._conversation = conversation
        self._terminal = terminal
        self._model = model
        self._url = place.url
        self._again = place.again
        self._unsent = ""
        self._failed = False
        self._is_kept = False
        self._choices: dict[str, Callable[[], Awaitable[None]]] = {
            "1": self._compose,
            "2": self._history,
            "/history": self._history,
            "3": self._load,
            "/threads": self._load,
            "4": self._start_new,
            "/new": self._start_new,
            "/help": self._help,
            "help": self._help,
        }

    async def run(self) -> int:
        await self._begin()
        try:
            while True:
                # Offered once: after another choice, the user has decided otherwise.
                unsent, self._unsent = self._unsent, ""
                line = await self._terminal.ask("you", default=unsent, with_toolbar=True, is_kept=True)
                if line.lower() in LEAVING:
                    raise Leave(interrupted=False)
                await self._carry_out(line)
        except Leave as leave:
            self._goodbye()
            if leave.interrupted:
                return EXIT_INTERRUPTED
        return EXIT_FAILED if self._failed and not self._terminal.is_interactive else 0

    async def _carry_out(self, line: str) -> None:
        choice = self._choices.get(line.lower())
        try:
            if choice is not None:
                await choice()
            elif line.isdecimal() or line.startswith("/"):
                self._no_such_choice(line)
            elif line:
                await self._send(line)
        except EverthreadError as error:
            self._show_error(without_secrets(str(error), self._url))
        except Leave as leave:
            # Ctrl-C in an empty line of a question ends only the question.
            if not (leave.interrupted and self._terminal.is_interactive):
                raise
            self._terminal.show(*rendering.menu_lines(self._terminal.width))

    # The choices

    async def _compose(self) -> None:
        text = await self._terminal.ask("message", is_kept=True)
        if text:
            await self._send(text)

    async def _send(self, text: str) -> None:
        # Until the turn is stored, so that a failure does not lose the message.
        self._unsent = text
        try:
            with self._terminal.replying(AGENT_NAME, self._conversation.stop) as show:
                async for piece in self._conversation.say(text):
                    show(piece)
        except ReplyStopped:
            self._terminal.show("(stopped before the reply began; your message was not stored)")
        except ModelError as error:
            self._not_sent(self._model.failure(error.__cause__ or error))
        except EverthreadError as error:
            self._not_sent(without_secrets(str(error), self._url), unsure=isinstance(error, OutcomeUnknownError))
        else:
            self._unsent, self._is_kept = "", True
            if self._conversation.stop.is_set():
                self._terminal.show("(stopped; the part that arrived is stored)")

    async def _history(self) -> None:
        is_empty = True
        async for message in read_all_around(self._conversation.store, self._conversation.key, page_size=200):
            is_empty = False
            self._show_message(message)
        if is_empty:
            self._terminal.show("This thread is empty.")

    async def _load(self) -> None:
        thread = await self._choose_thread()
        if thread is None:
            return
        self._conversation.load(thread.key.thread_id)
        self._terminal.show("")
        await self._begin()

    async def _start_new(self) -> None:
        self._conversation.start_new()
        self._terminal.show("")
        await self._begin()

    async def _help(self) -> None:
        self._terminal.show(HELP)

    def _no_such_choice(self, line: str) -> None:
        shown = rendering.one_line(line, 30)
        self._terminal.show(f"There is no choice {shown}. To send it as a message, choose 1 first.")
        self._terminal.show(*rendering.menu_lines(self._terminal.width))

    # Saved threads

    async def _choose_thread(self) -> Thread | None:
        listed: list[Thread] = []
        cursor = await self._list_page(listed, None)
        if not listed:
            self._terminal.show("No threads are saved here yet.")
            return None
        while True:
            more = ", n for more" if cursor else ""
            reply = (await self._terminal.ask(f"number to load{more}, Enter to stay")).lower()
            numbered = {str(number): thread for number, thread in enumerate(listed, 1)}
            if not reply:
                return None
            if reply == "n":
                if cursor:
                    cursor = await self._list_page(listed, cursor)
                else:
                    self._terminal.show("There are no more threads.")
            elif reply in numbered:
                return numbered[reply]
            else:
                shown = rendering.one_line(reply, 30)
                self._terminal.show(f"There is no thread {shown} in the list. Enter a number from 1 to {len(listed)}.")

    async def _list_page(self, listed: list[Thread], cursor: str | None) -> str | None:
        """Show a page and add it to ``listed``; return its cursor, or ``None`` for the last page."""
        page = await self._conversation.saved_threads(cursor, limit=THREADS_A_PAGE)
        for thread in page:
            listed.append(thread)
            line = rendering.thread_line(
                len(listed),
                thread,
                await title_of(self._conversation.store, thread),
                now=_now(),
                width=self._terminal.width,
                current=thread.key == self._conversation.key,
            )
            self._terminal.show(line)
        return page.cursor

    # Output

    async def _begin(self) -> None:
        """Show the current thread: the header, the menu and the newest messages."""
        await self._header()
        newest = await self._conversation.store.read_last(self._conversation.key, SHOWN_ON_LOADING)
        if newest and newest[0].seq > newest.head_seq:
            self._terminal.show(f"(the newest {len(newest)} messages; [2] shows all)")
        for message in newest:
            self._show_message(message)

    async def _header(self) -> None:
        thread = await self._conversation.store.get_thread(self._conversation.key)
        title = None if thread is None else await title_of(self._conversation.store, thread)
        self._is_kept = thread is not None and thread.count > 0
        name = rendering.one_line(title, 80) if title else "new" if thread is None else "untitled"
        facts = (
            ("thread", f"{name} ({self._conversation.key.thread_id})"),
            ("store", readable_location(self._conversation.store.location)),
            ("model", self._model.description),
        )
        self._terminal.show(Text(AGENT_NAME, style="bold green"))
        self._terminal.show(*rendering.heading_lines(facts, self._terminal.width))
        self._terminal.show(*rendering.menu_lines(self._terminal.width))

    def _show_message(self, message: Message) -> None:
        self._terminal.show(*rendering.message_lines(message, now=_now(), width=self._terminal.width))

    def _goodbye(self) -> None:
        if not self._is_kept:
            self._terminal.show("Goodbye.")
            return
        thread = f"--thread {shlex.quote(self._conversation.key.thread_id)}"
        again = sanitize(" ".join(filter(None, (program(), "chat", self._again, thread))))
        self._terminal.show("Goodbye. To continue this conversation:")
        # Not wrapped: a command in several lines cannot be pasted.
        self._terminal.show(Text(f"  {again}"))

    def _not_sent(self, why: str, *, unsure: bool = False) -> None:
        kept = "Your message may have been stored; see [2]." if unsure else "Your message was not stored."
        again = " It is in the line again, ready to send." if self._terminal.is_interactive else ""
        self._show_error(f"{why}\n{kept}{again}")

    def _show_error(self, text: str) -> None:
        self._failed = True
        self._terminal.show_error(text)


def program() -> str:
    """Return the command that starts this program from any folder."""
    started, found = Path(sys.argv[0]), shutil.which("everthread")
    if not started.is_file() or (found is not None and started.samefile(found)):
        return "everthread"
    return shlex.quote(str(started.absolute()))


def _now() -> datetime:
    return datetime.now().astimezone()

"""The interactive client: its menu, and what each choice does with the conversation and the terminal."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
from collections.abc import Awaitable, Callable
from datetime import datetime

from rich.text import Text

from everthread.cli import rendering
from everthread.cli.common import Place
from everthread.cli.conversation import AGENT_NAME, Conversation, ModelError, ReplyStopped
from everthread.cli.encryption import open_with_keys
from everthread.cli.models import Model, choose_model
from everthread.cli.named_stores import with_retention
from everthread.cli.stores import place_for_people, without_secrets
from everthread.cli.terminal import Leave, Terminal
from everthread.errors import EverthreadError, OutcomeUnknownError
from everthread.model import Message, Retention, Thread
from everthread.settings import take_options

EXIT_INTERRUPTED = 130
EXIT_FAILED = 1
KEPT = 200
"""How many messages a thread keeps of which nobody said how many."""
THREADS_A_PAGE = 10
SHOWN_ON_LOADING = 200
"""Of a longer thread the newest are shown when it is loaded; [2] shows all."""
WORD_PACE = 0.015
"""Seconds between two words of the offline model, in a terminal."""

HELP = """Type a message and press Enter, or choose:
  1             send a message (also one that looks like a choice)
  2, /history   show this thread's history
  3, /threads   load a saved thread and go on
  4, /new       start a fresh thread
  0, /quit      exit
  /help         this help
Ctrl-C stops a reply; at the prompt it clears the line or leaves."""


def run(place: Place, thread_id: str | None, model_option: str | None, max_messages: int | None) -> int:
    """Runs the client until the user leaves; returns the process's exit status.

    Args:
        place: Where threads are kept, and whose.
        thread_id: The thread to begin with; a fresh one if not given.
        model_option: ``--model``.
        max_messages: How many messages a thread keeps; otherwise what it or its store says, or else `KEPT`.

    Raises:
        EverthreadError: The store or the model cannot be used; the message is for the user.
    """
    # The frameworks' log records would run into the conversation.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        return asyncio.run(_run(place, thread_id, model_option, max_messages))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return EXIT_INTERRUPTED


async def _run(place: Place, thread_id: str | None, model_option: str | None, max_messages: int | None) -> int:
    terminal = Terminal(rendering.reminder)
    model = choose_model(model_option, os.environ, pace=WORD_PACE if terminal.is_interactive else 0)
    try:
        async with open_with_keys(_with_default_retention(place.url), place.keyring) as store:
            conversation = Conversation(
                store, model, tenant=place.tenant, max_messages=max_messages, thread_id=thread_id
            )
            return await _Client(conversation, terminal, model, place).run()
    except EverthreadError as error:
        terminal.complain(without_secrets(str(error), place.url))
        return EXIT_FAILED
    finally:
        await model.close()


def _with_default_retention(url: str) -> str:
    _, given = take_options(url, {"max_messages": str})
    return url if given else with_retention(url, Retention(max_messages=KEPT))


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
            "4": self._start_fresh,
            "/new": self._start_fresh,
            "/help": self._help,
        }

    async def run(self) -> int:
        await self._begin()
        try:
            while True:
                # Offered once: whoever does something else has decided otherwise.
                unsent, self._unsent = self._unsent, ""
                line = await self._ask("you", default=unsent, with_toolbar=True)
                if line.lower() in {"0", "/quit"}:
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
            self._complain(without_secrets(str(error), self._url))

    # The choices

    async def _compose(self) -> None:
        text = await self._ask("message")
        if text:
            await self._send(text)

    async def _send(self, text: str) -> None:
        # Kept until the turn is stored, so that no failure costs the user their words.
        self._unsent = text
        try:
            with self._terminal.replying(AGENT_NAME, self._conversation.stop) as show:
                async for piece in self._conversation.say(text):
                    show(piece)
        except ReplyStopped:
            self._terminal.show("(stopped before the reply began; your message was not kept)")
        except ModelError as error:
            self._not_sent(f"The model did not answer. {self._model.without_secrets(str(error))}")
        except EverthreadError as error:
            self._not_sent(without_secrets(str(error), self._url), unsure=isinstance(error, OutcomeUnknownError))
        else:
            self._unsent, self._is_kept = "", True
            if self._conversation.stop.is_set():
                self._terminal.show("(stopped; what you read is kept)")

    async def _history(self) -> None:
        is_empty = True
        async for message in self._conversation.messages():
            is_empty = False
            self._show_message(message)
        if is_empty:
            self._terminal.show("This thread is empty: nothing has been said in it yet.")

    async def _load(self) -> None:
        thread = await self._choose_thread()
        if thread is None:
            return
        self._conversation.go_on_with(thread.key.thread_id)
        self._terminal.show("")
        await self._begin()

    async def _start_fresh(self) -> None:
        reply = (await self._ask("Start a fresh thread? This one stays saved. [y/n]")).lower()
        if reply not in {"y", "yes"}:
            self._terminal.show("Still in the same thread.")
            return
        self._conversation.start_fresh()
        self._terminal.show("")
        await self._begin()

    async def _help(self) -> None:
        self._terminal.show(HELP)

    def _no_such_choice(self, line: str) -> None:
        shown = rendering.one_line(line, 30)
        self._terminal.show(f"There is no choice {shown}; to send that as a message, choose 1 first.")
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
            reply = (await self._ask(f"number to load{more}, Enter to stay")).lower()
            numbered = {str(number): thread for number, thread in enumerate(listed, 1)}
            if not reply:
                return None
            if reply == "n":
                if cursor:
                    cursor = await self._list_page(listed, cursor)
                else:
                    self._terminal.show("These were all.")
            elif reply in numbered:
                return numbered[reply]
            else:
                shown = rendering.one_line(reply, 30)
                self._terminal.show(
                    f"There is no thread {shown} in the list: a number from 1 to {len(listed)}, please."
                )

    async def _list_page(self, listed: list[Thread], cursor: str | None) -> str | None:
        """Shows a page and adds it to what was listed; its cursor, or ``None`` if nothing follows."""
        page = await self._conversation.saved_threads(cursor, limit=THREADS_A_PAGE)
        for thread in page:
            listed.append(thread)
            line = rendering.thread_line(
                len(listed),
                thread,
                await self._conversation.title_of(thread),
                now=_now(),
                width=self._terminal.width,
                current=thread.key == self._conversation.key,
            )
            self._terminal.show(line)
        return page.cursor

    # What is shown

    async def _begin(self) -> None:
        """Shows the current thread: the header, the menu, and what has been said."""
        await self._header()
        newest = await self._conversation.newest(SHOWN_ON_LOADING)
        if newest and newest[0].seq > newest.head_seq:
            self._terminal.show(f"(the newest {len(newest)} messages; [2] shows all)")
        for message in newest:
            self._show_message(message)

    async def _header(self) -> None:
        thread = await self._conversation.current()
        title = None if thread is None else await self._conversation.title_of(thread)
        self._is_kept = thread is not None and thread.count > 0
        name = rendering.one_line(title, 80) if title else "a fresh one" if thread is None else "untitled"
        facts = (
            ("thread", f"{name} ({self._conversation.key.thread_id})"),
            ("kept in", place_for_people(self._conversation.store.location)),
            ("model", self._model.description),
        )
        self._terminal.show(Text(AGENT_NAME, style="bold green"))
        self._terminal.show(*rendering.heading_lines(facts, self._terminal.width))
        self._terminal.show(*rendering.menu_lines(self._terminal.width))

    def _show_message(self, message: Message) -> None:
        self._terminal.show(*rendering.message_lines(message, now=_now(), width=self._terminal.width))

    def _goodbye(self) -> None:
        thread = f"--thread {shlex.quote(self._conversation.key.thread_id)}"
        again = rendering.sanitise(" ".join(filter(None, ("everthread chat", self._again, thread))))
        self._terminal.show(f"Goodbye. To go on: {again}" if self._is_kept else "Goodbye.")

    def _not_sent(self, why: str, *, unsure: bool = False) -> None:
        kept = "It may have been kept; see [2]." if unsure else "Your message was not kept."
        again = " It is in the line again, ready to be sent." if self._terminal.is_interactive else ""
        self._complain(f"{why}\n{kept}{again}")

    def _complain(self, text: str) -> None:
        self._failed = True
        self._terminal.complain(text)

    async def _ask(self, prompt: str, *, default: str = "", with_toolbar: bool = False) -> str:
        return await self._terminal.ask(prompt, default=default, with_toolbar=with_toolbar)


def _now() -> datetime:
    return datetime.now().astimezone()

"""The terminal of the interactive client: lines in, text out, and Ctrl-C.

There are three cases: a terminal (line editing, colors, a menu below the prompt), a pipe or file as input (plain
lines, no prompts), and output that is not a terminal (no colors, no broken lines).
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.status import Status
from rich.text import Text

from everthread.cli.chat_client.input_history import InputHistory
from everthread.cli.plain import sanitize
from everthread.cli.rendering import WordWrap, wrapped

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession

NARROWEST = 20


class Leave(Exception):  # noqa: N818 - the user's wish, not a failure
    """The user leaves: the input ended, or (``interrupted``) Ctrl-C at the prompt."""

    def __init__(self, *, interrupted: bool) -> None:
        super().__init__()
        self.interrupted = interrupted


class Terminal:
    """Reads lines and shows text.

    Args:
        toolbar: Returns a line for a number of columns, to show below the main prompt. Terminals that do not report
            their cursor show none.
        history: The file of the lines typed in earlier runs; ``None`` stores nothing.
    """

    def __init__(self, toolbar: Callable[[int], str], history: Path | None = None) -> None:
        for stream in (sys.stdin, sys.stdout, sys.stderr):
            # A character that a legacy encoding lacks becomes a question mark, not a crash.
            if isinstance(stream, TextIOWrapper):
                stream.reconfigure(errors="replace")
        self.is_interactive = sys.stdin.isatty() and sys.stdout.isatty()
        self._out = Console(highlight=False, markup=False, emoji=False)
        self._err = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._toolbar = toolbar
        self._interrupts = _Interrupts()
        self._history = InputHistory(history) if self.is_interactive else None
        self._session: PromptSession[str] | None = self._prompt_session() if self.is_interactive else None

    @property
    def width(self) -> int | None:
        """The columns for text; ``None`` where lines are not broken."""
        return max(self._out.width - 1, NARROWEST) if self._out.is_terminal else None

    # Input

    async def ask(self, prompt: str, *, default: str = "", with_toolbar: bool = False, is_kept: bool = False) -> str:
        """Read a line, and return it stripped.

        Args:
            prompt: The text before the line.
            default: The text that the line begins with, to edit or send (on a terminal only).
            with_toolbar: Show the menu below the line.
            is_kept: Add the line to the input history.

        Raises:
            Leave: The input ended, or Ctrl-C in an empty line (in another line it clears the line).
        """
        try:
            with self._interrupts.asking(blocking=self._session is None):
                if self._session is None:
                    line = self._read_line(prompt)
                else:
                    if self._history is not None:
                        self._history.is_keeping = is_kept
                    line = await self._edit_line(self._session, prompt, default, with_toolbar)
        except (KeyboardInterrupt, EOFError) as reason:
            raise Leave(interrupted=isinstance(reason, KeyboardInterrupt)) from None
        if not line and self._session is None:
            raise Leave(interrupted=False)
        # Bytes that the terminal could not decode have no UTF-8 form, and could not be stored.
        return line.encode(errors="replace").decode().strip()

    def _read_line(self, prompt: str) -> str:
        if sys.stdin.isatty():
            # As in `everthread chat | tee`: a person types, but without line editing.
            self._out.file.write(f"{prompt}> ")
            self._out.file.flush()
        return sys.stdin.readline()

    async def _edit_line(self, session: PromptSession[str], prompt: str, default: str, with_toolbar: bool) -> str:
        session.bottom_toolbar = self._toolbar_text if with_toolbar else None
        while True:
            try:
                return await session.prompt_async(
                    [("class:you", f"{prompt}> ")],
                    default=default,
                    handle_sigint=False,
                )
            except KeyboardInterrupt:
                if not session.default_buffer.text:
                    raise
                default = ""

    def _toolbar_text(self) -> str:
        return self._toolbar(self.width or NARROWEST)

    def _prompt_session(self) -> PromptSession[str]:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.styles import Style

        colors = ("", "") if os.environ.get("NO_COLOR") else ("ansicyan", "ansibrightblack")
        style = {"you": f"bold {colors[0]}", "bottom-toolbar": "noreverse", "bottom-toolbar.text": colors[1]}
        return PromptSession(history=self._history, style=Style.from_dict(style))

    # Output

    def show(self, *lines: Text | str) -> None:
        """Print lines: rendered ones unchanged, plain text broken at words."""
        for line in lines:
            self._out.print(line if isinstance(line, Text) else wrapped(line, self.width), soft_wrap=True)

    def show_error(self, text: str) -> None:
        """Print an error on standard error."""
        width = self._err.width - 1 if self._err.is_terminal else None
        self._err.print(Text(wrapped(sanitize(text), width), style="red"), soft_wrap=True)

    @contextmanager
    def replying(self, speaker: str, stop: asyncio.Event) -> Generator[Callable[[str], None]]:
        """Yield a function that prints a piece of a reply. Ctrl-C sets ``stop``; a second one cancels this task."""
        reply = _Reply(self._out, speaker, self.width)
        with self._interrupts.replying(stop):
            try:
                yield reply.feed
            finally:
                reply.end()


class _Reply:
    """Prints a reply as it arrives: a spinner until its first piece, then the text, broken at words."""

    def __init__(self, out: Console, speaker: str, width: int | None) -> None:
        self._out = out
        self._speaker = speaker
        self._wrap = WordWrap(width, column=len(speaker) + 2)
        self._begun = False
        self._spinner: Status | None = None
        if out.is_terminal:
            self._spinner = out.status(Text(f"{speaker} is thinking"), spinner="dots")
            self._spinner.start()

    def feed(self, piece: str) -> None:
        if not self._begun:
            self._begun = True
            self._stop_spinner()
            self._out.print(Text(f"{self._speaker}> ", style="bold green"), end="")
        self._write(self._wrap.feed(sanitize(piece)))

    def end(self) -> None:
        self._stop_spinner()
        if self._begun:
            self._write(self._wrap.end() + "\n")

    def _write(self, text: str) -> None:
        self._out.file.write(text)
        self._out.file.flush()

    def _stop_spinner(self) -> None:
        if self._spinner is not None:
            self._spinner.stop()
            self._spinner = None


class _Interrupts:
    """Handles Ctrl-C.

    Reading a pipe blocks the thread, so there it is raised; elsewhere the event loop runs, and cancelling the task
    closes everything in order.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._stop: asyncio.Event | None = None
        self._blocking = False
        self._is_leaving = False
        signal.signal(signal.SIGINT, self._on_interrupt)

    @contextmanager
    def asking(self, *, blocking: bool) -> Generator[None]:
        self._blocking = blocking
        try:
            if blocking and self._is_leaving:
                # It came a moment ago: the task is being cancelled, but a blocking read would not let the loop do so.
                raise KeyboardInterrupt
            yield
        finally:
            self._blocking = False

    @contextmanager
    def replying(self, stop: asyncio.Event) -> Generator[None]:
        self._stop = stop
        try:
            yield
        finally:
            self._stop = None

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._blocking:
            raise KeyboardInterrupt
        if self._stop is not None and not self._stop.is_set():
            self._loop.call_soon_threadsafe(self._stop.set)
        elif self._task is not None:
            self._is_leaving = True
            self._loop.call_soon_threadsafe(self._task.cancel)

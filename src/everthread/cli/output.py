"""Results on standard output: a table for people, tab-separated lines in a pipe, or JSON Lines."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast

import msgspec

from everthread._controls import CONTROLS
from everthread._extras import import_extra
from everthread.cli.plain import sanitize, say, say_json

if TYPE_CHECKING:
    from rich.text import Text

COUNTS = frozenset({"messages", "threads"})
"""The columns that count things of their name."""

NUMBERS = COUNTS | {"#", "size", "position"}
"""The columns that are aligned to the right."""

FLEXIBLE = frozenset({"title", "removed", "text"})
"""The columns that are shortened where a table is wider than the terminal."""

SHORTEST = 10
"""The width that a flexible column keeps."""


class Output:
    """Prints the results of a command.

    Stored text is not trusted: its control characters reach neither the terminal nor the columns.

    Args:
        as_json: Print JSON Lines: the objects in `everthread.cli.json_output`.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        import_extra("rich", "cli")
        from rich.console import Console

        for stream in (sys.stdout, sys.stderr):
            # A character that a legacy encoding lacks becomes a question mark, not a crash.
            if isinstance(stream, TextIOWrapper):
                stream.reconfigure(errors="replace")
        self.as_json = as_json
        self._out = Console(highlight=False, markup=False, emoji=False)
        self._notes: list[str] | None = None
        self._headings: set[tuple[str, ...]] = set()

    @property
    def is_terminal(self) -> bool:
        """Whether a person reads the results."""
        return self._out.is_terminal and not self.as_json

    @property
    def width(self) -> int | None:
        """The columns for text; ``None`` where lines are not broken."""
        return max(self._out.width - 1, 20) if self._out.is_terminal else None

    def rows(self, columns: Sequence[str], rows: Iterable[tuple[Sequence[str], msgspec.Struct]]) -> None:
        """Print a part of a list: each row as cells for people, or as an object with ``--json``.

        May be called again for the next part: a table's heading is printed once.
        """
        if self.as_json:
            for _, value in rows:
                say_json(value)
        elif self._out.is_terminal:
            cells = [row for row, _ in rows]
            if cells:
                self._table(columns, cells)
        else:
            for cells, _ in rows:
                say("\t".join(_flat(cell) for cell in cells))

    def result(self, text: str, value: msgspec.Struct) -> None:
        """Print the outcome of a command: a sentence, or the object with ``--json``."""
        if self.as_json:
            say_json(value)
        else:
            self.show(text)

    def show(self, *lines: Text | str) -> None:
        """Print lines; rendered ones (`everthread.cli.rendering`) with their colors on a terminal."""
        for line in lines:
            self._out.print(sanitize(line) if isinstance(line, str) else _safe(line), soft_wrap=True)

    def note(self, text: str) -> None:
        """Print a remark on standard error; after the pager, if there is one."""
        if self._notes is None:
            say(text, err=True)
        else:
            self._notes.append(text)

    @contextmanager
    def paged(self, *, is_on: bool = True) -> Generator[None]:
        """Show lines in a pager (``PAGER``, else ``less``) that begins with the last screen, on a terminal with one.

        Leaving the pager ends the lines.
        """
        command = _pager() if is_on and self.is_terminal and sys.stdin.isatty() else []
        if not command:
            yield
            return
        from rich.console import Console

        terminal, self._notes = self._out, []
        pager = _Pager(command, terminal.height)
        self._out = Console(
            file=cast("TextIO", pager),
            force_terminal=True,
            width=terminal.width,
            highlight=False,
            markup=False,
            emoji=False,
        )
        try:
            yield
        except BrokenPipeError:
            pass  # the reader has left the pager
        finally:
            notes, self._notes, self._out = self._notes, None, terminal
            pager.end()
            for note in notes:
                self.note(note)

    def _table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        from rich.table import Table
        from rich.text import Text

        heading = tuple(columns)
        lines = [[Text(_flat(cell)) for cell in cells] for cells in rows]
        widths = _widths([[Text(column) for column in columns], *lines], columns, self._out.width)
        if _total(widths) > self._out.width:
            # An ID must stay whole, so that it can be copied.
            for cells in rows:
                record = _record(columns, [_flat(cell) for cell in cells], self._out.width)
                self._out.print(Text(record), soft_wrap=True)
            return
        table = Table(box=None, pad_edge=False, show_header=heading not in self._headings, header_style="bold")
        self._headings.add(heading)
        for column, width in zip(columns, widths, strict=True):
            justify = "right" if column in NUMBERS else "left"
            table.add_column(column, justify=justify, no_wrap=True, overflow="ellipsis", width=width)
        for line in lines:
            table.add_row(*line)
        self._out.print(table)


class _Pager:
    """A file that sends its text to a pager, or to standard output if it fits the screen."""

    encoding = "utf-8"

    def __init__(self, command: Sequence[str], height: int) -> None:
        self._command = command
        self._height = height
        self._waiting = ""
        self._process: subprocess.Popen[str] | None = None

    def write(self, text: str) -> int:
        self._waiting += text
        if self._process is None and self._waiting.count("\n") >= self._height - 1:
            # R: colors; X: the text stays on the terminal.
            settings = {"LESS": "RX", "LESSSECURE": "1"} | os.environ
            self._process = subprocess.Popen(  # noqa: S603 - the user's own pager, without a shell
                self._command, stdin=subprocess.PIPE, env=settings, text=True, encoding="utf-8", errors="replace"
            )
        if self._process is not None and self._process.stdin is not None:
            waiting, self._waiting = self._waiting, ""
            self._process.stdin.write(waiting)
        return len(text)

    def flush(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.flush()

    def end(self) -> None:
        """Print what fits the screen, or wait until the reader leaves the pager."""
        if self._process is None:
            sys.stdout.write(self._waiting)
            sys.stdout.flush()
            return
        with suppress(BrokenPipeError):
            self._process.communicate()


def _pager() -> list[str]:
    """Return the command of the user's pager; nothing if there is none or it is ``cat``."""
    words = shlex.split(os.environ.get("PAGER", "less"))
    if not words or words[0] == "cat" or os.environ.get("TERM") == "dumb" or shutil.which(words[0]) is None:
        return []
    return [*words, "+G"] if Path(words[0]).name == "less" else words


def _widths(lines: Sequence[Sequence[Text]], columns: Sequence[str], most: int) -> list[int]:
    widths = [max(cell.cell_len for cell in column) for column in zip(*lines, strict=True)]
    for index, column in enumerate(columns):
        if column in FLEXIBLE:
            too_wide = max(_total(widths) - most, 0)
            widths[index] -= min(too_wide, max(widths[index] - SHORTEST, 0))
    return widths


def _record(columns: Sequence[str], cells: Sequence[str], width: int) -> str:
    """Return a row in lines, for a terminal too narrow for the table: its name, and below it the rest."""
    from everthread.cli.rendering import wrapped

    named = 2 if columns[0] == "#" else 1
    rest = zip(columns[named:], cells[named:], strict=True)
    words = [f"{cell} {column[:-1] if cell == '1' else column}" if column in COUNTS else cell for column, cell in rest]
    margin = " " * (len(cells[0]) + 2 if named == 2 else 2)
    return f"{'  '.join(cells[:named])}\n{wrapped(', '.join(filter(None, words)), width, margin)}"


def _total(widths: Sequence[int]) -> int:
    # Two spaces stand between columns.
    return sum(widths) + 2 * (len(widths) - 1)


def _safe(line: Text) -> Text:
    # The number of characters is the same, so the colors stay in place.
    line.plain = line.plain.translate(CONTROLS)
    return line


def _flat(cell: str) -> str:
    from everthread.cli.rendering import one_line

    return one_line(cell, 2000)

"""Progress on standard error: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from everthread._extras import import_extra
from everthread.cli.plain import say

if TYPE_CHECKING:
    from rich.console import Console

SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def progress(what: str, total: int | None = None, *, unit: str = "messages") -> Generator[Callable[[int], None]]:
    """Yield a function to call with the number of units done since its last call."""
    import_extra("rich", "cli")
    from rich.console import Console

    console = Console(stderr=True, highlight=False, markup=False)
    with _bar(console, what, total, unit) if console.is_terminal else _lines(what, total, unit) as advance:
        yield advance


@contextmanager
def _bar(console: Console, what: str, total: int | None, unit: str) -> Generator[Callable[[int], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(unit if speed is None else f"{unit}, {speed:,.0f}/s")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate())
    # Results that go to a file or a pipe must not be drawn above the bar instead.
    with Progress(*columns, console=console, redirect_stdout=sys.stdout.isatty()) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.update(task, advance=count)


@contextmanager
def _lines(what: str, total: int | None, unit: str) -> Generator[Callable[[int], None]]:
    done, began = 0, time.monotonic()
    last = began

    def advance(count: int) -> None:
        nonlocal done, last
        done += count
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            last = now
            of = "" if total is None else f" of {total:,}"
            say(f"{what}: {done:,}{of} {unit}, {done / (now - began):,.0f}/s", err=True)

    yield advance

"""A question on the terminal that Ctrl-C ends at any moment."""

from __future__ import annotations

import os
import select
import signal
import sys

import click


def ask_yes_or_no(question: str) -> bool:
    """Ask on standard error until the answer is yes or no; Enter alone means no.

    Raises:
        KeyboardInterrupt: The user pressed Ctrl-C.
        click.Abort: The input ended.
    """
    while True:
        click.echo(f"{question} [y/N]: ", nl=False, err=True)
        try:
            _wait_for_line()
            answer = input().strip().lower()
        except EOFError:
            raise click.Abort from None
        except KeyboardInterrupt:
            click.echo(err=True)
            raise
        if answer in {"y", "yes"}:
            return True
        if answer in {"", "n", "no"}:
            return False
        click.echo("Please answer y or n.", err=True)


def _wait_for_line() -> None:
    """Wait until a line can be read, or a signal arrives.

    ``input()`` alone loses a signal that arrives just before its read begins: the interpreter runs the handler only
    after the read, which waits for a line.
    """
    if os.name == "nt":
        # On Windows, select() accepts only sockets.
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    previous = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        while sys.stdin not in select.select([sys.stdin, reader], [], [])[0]:
            os.read(reader, 64)
    finally:
        signal.set_wakeup_fd(previous)
        os.close(reader)
        os.close(writer)

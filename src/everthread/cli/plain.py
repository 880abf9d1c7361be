"""Text for the terminal, without characters that a terminal obeys. Imports nothing heavy.

Titles, IDs, metadata, file names and error texts are not trusted: they may hold escape sequences, or characters
that change the direction of writing, so that a line reads as something else.
"""

from __future__ import annotations

import sys
from typing import Any
from urllib.parse import unquote

import click

from everthread._controls import CONTROLS, escape_controls
from everthread.json_form import encoded


def sanitize(text: str) -> str:
    """Return the text with every control character but tab and newline made visible."""
    return text.replace("\r\n", "\n").translate(CONTROLS)


def in_one_line(text: str) -> str:
    """Return the text sanitized, with spaces for line breaks."""
    return " ".join(sanitize(text).split("\n"))


def say(text: str, *, err: bool = False) -> None:
    """Print a line, sanitized."""
    click.echo(sanitize(text), err=err)


def say_json(value: Any) -> None:
    """Print a value as a line of JSON: exact in a pipe; on a terminal with control characters escaped."""
    line = encoded(value).decode()
    click.echo(escape_controls(line) if sys.stdout.isatty() else line)


def counted(count: int, noun: str) -> str:
    """Return a number of things in words: ``1 message``, ``2,000 messages``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def readable_title(title: str) -> str:
    """Return a title as people read it: one that is encrypted, and was read without its keys, as ``(sealed)``."""
    from everthread._validation import SEALED

    return "(sealed)" if title.startswith(SEALED) else title


def readable_location(location: str) -> str:
    """Return a store's location as people write it: a SQLite file by its path, other stores by their URL."""
    path = location.removeprefix("sqlite:///")
    # The URL may hold an escaped control character.
    return location if path == location else sanitize(unquote(path))

"""The statements of ``queries.sql`` by name, and the numbered migrations. No connection here."""

from __future__ import annotations

import re
import sqlite3
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


@cache
def queries() -> dict[str, str]:
    """Every named statement."""
    parts = _NAME.split(_folder().joinpath("queries.sql").read_text("utf-8"))
    return dict(zip(parts[1::2], map(_without_comments, parts[2::2]), strict=True))


@cache
def migrations() -> tuple[tuple[str, ...], ...]:
    """The statements of each migration; the first brings an empty file to version 1."""
    scripts = sorted(_folder().joinpath("migrations").iterdir(), key=lambda script: script.name)
    return tuple(_statements(script) for script in scripts if script.name.endswith(".sql"))


def _folder() -> Traversable:
    return files("everthread.engines.sqlite")


def _without_comments(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith("--")).strip()


def _statements(script: Traversable) -> tuple[str, ...]:
    # Not executescript(): it commits first, and a migration must share its transaction with the version's check.
    found: list[str] = []
    statement = ""
    for line in script.read_text("utf-8").splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            found.append(statement.strip())
            statement = ""
    return tuple(found)

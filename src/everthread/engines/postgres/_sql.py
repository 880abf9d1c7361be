"""The statements of ``queries.sql`` by name and the migrations, for a schema and prefix. No connection here."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

from everthread.errors import ConfigurationError

_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
_COMMENT = re.compile(r"^--.*\n", re.MULTILINE)
_OURS = re.compile(r"(?<![@\w])@(?=[a-z])")
_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]{0,39}")


def queries(schema: str, prefix: str) -> dict[str, str]:
    """Every named statement."""
    parts = _NAME.split(_text("queries.sql"))
    bare = (_COMMENT.sub("", text).strip().rstrip(";") for text in parts[2::2])
    return {name: _placed(text, schema, prefix) for name, text in zip(parts[1::2], bare, strict=True)}


def migrations(schema: str, prefix: str) -> list[tuple[str, str]]:
    """Name and text of each migration; the first brings an empty database to version 1."""
    folder = files("everthread.engines.postgres").joinpath("migrations")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [(name, _placed(_text(f"migrations/{name}"), schema, prefix)) for name in names]


def ledger(schema: str, prefix: str) -> str:
    """Makes the place where applied migrations are noted."""
    columns = "version int PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now()"
    return _placed(f"CREATE TABLE IF NOT EXISTS @migrations ({columns});\n", schema, prefix)


def noted(version: int, name: str, schema: str, prefix: str) -> str:
    """Notes a migration as applied."""
    row = f"{version}, '{name}'"
    return _placed(f"INSERT INTO @migrations (version, name) VALUES ({row});\n", schema, prefix)  # noqa: S608


def row_level_security_script(role: str, tenant: str, schema: str, prefix: str) -> str:
    """The script for one role, given as SQL, and one tenant, given as SQL."""
    values = {":role": role, ":tenant": tenant, ":schema": schema}
    script = _placed(_text("row_level_security.sql"), schema, prefix)
    return re.sub(":role|:tenant|:schema", lambda found: values[found[0]], script)


def check_name(name: object, what: str, *, may_be_empty: bool = False) -> str:
    """Refuses a schema or prefix that would need quoting: lower-case letters, digits and ``_``, at most 40.

    Raises:
        ConfigurationError: Says what is allowed.
    """
    if isinstance(name, str) and (_IDENTIFIER.fullmatch(name) or (may_be_empty and not name)):
        return name
    raise ConfigurationError(f"{what} is at most 40 lower-case letters, digits and _, and begins with no digit.")


@cache
def _text(path: str) -> str:
    return files("everthread.engines.postgres").joinpath(path).read_text("utf-8")


def _placed(text: str, schema: str, prefix: str) -> str:
    return _OURS.sub(f"{schema}.{prefix}", text)

"""The statements of ``queries.sql`` by name, the migrations and the functions, for a schema and prefix. No I/O."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

import msgspec

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


class Migration(msgspec.Struct, frozen=True):
    """A step from one version of the tables to a later one.

    Attributes:
        version: That of the tables after it.
    """

    version: int
    name: str
    text: str


def migrations(schema: str, prefix: str) -> list[Migration]:
    """All steps from an empty database on; their versions ascend, with gaps."""
    return [
        Migration(int(name.partition("_")[0]), name, _placed(_text(f"migrations/{name}"), schema, prefix))
        for name in _names("migrations")
    ]


def functions(schema: str, prefix: str) -> str:
    """Makes all functions anew: each migration is followed by it, so that there is one text of each function.

    Those that took other arguments before stay, for processes of the release before.
    """
    return _placed("\n".join(_text(f"functions/{name}") for name in _names("functions")), schema, prefix)


def ledger(schema: str, prefix: str) -> str:
    """Makes the place where applied migrations are noted."""
    columns = "version int PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now()"
    return _placed(f"CREATE TABLE IF NOT EXISTS @migrations ({columns});\n", schema, prefix)


def noted(migration: Migration, schema: str, prefix: str) -> str:
    """Notes a migration as applied."""
    row = f"{migration.version}, '{migration.name}'"
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


def _names(folder: str) -> list[str]:
    entries = files("everthread.engines.postgres").joinpath(folder).iterdir()
    return sorted(entry.name for entry in entries if entry.name.endswith(".sql"))


@cache
def _text(path: str) -> str:
    return files("everthread.engines.postgres").joinpath(path).read_text("utf-8")


def _placed(text: str, schema: str, prefix: str) -> str:
    return _OURS.sub(f"{schema}.{prefix}", text)

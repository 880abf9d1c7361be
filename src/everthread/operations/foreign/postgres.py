"""Tables of other programs in a PostgreSQL database: a connection, and which tables there are."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from everthread._extras import import_extra
from everthread._url_options import engine_options, flag
from everthread.errors import ConfigurationError, ConflictError, StoreUnavailableError
from everthread.transfer.model import Openable
from everthread.urls import mask_url

if TYPE_CHECKING:
    import asyncpg

_TIMEOUT = 60.0
_HISTORY = "history_messages"
_OWN = "everthread"
# Plain tables only: reading a view runs functions of the database's owner.
_TABLES = """
SELECT n.nspname AS schema, c.relname AS name, array_agg(a.attname::text) AS columns
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind IN ('r', 'p') AND ($1::text IS NULL OR n.nspname = $1)
    AND (c.relname IN ('agent_messages', 'agent_sessions', 'checkpoints', 'checkpoint_blobs', 'migrations')
        OR c.relname LIKE '%history\\_messages')
GROUP BY 1, 2 ORDER BY 1, 2 LIMIT 10000
"""
_SCOPE = ("application_id", "tenant_id", "agent_id", "source_id", "session_id")


class Place(NamedTuple):
    """The tables of one program.

    Attributes:
        kind: The kind of store.
        prefix: The beginning of the tables' names.
    """

    kind: str
    schema: str
    prefix: str = ""


class Database(Openable):
    """A connection to a database of other programs.

    Args:
        url: ``postgresql://``. Of everthread's own options only ``schema`` (all schemas if it is left out), ``timeout``
            and ``auth`` apply.
        prefix: The beginning of the tables' names. Default: any.
    """

    def __init__(self, url: str, prefix: str | None = None) -> None:
        own: dict[str, Callable[[str], Any]] = {
            **dict.fromkeys(("schema", "table_prefix", "auth", "search_language"), str),
            **dict.fromkeys(("timeout", "connect_timeout"), float),
            **dict.fromkeys(("pgbouncer", "migrate", "search"), flag),
            "pool_size": int,
        }
        self._url, settings = engine_options(url, {}, own)
        self._schema: str | None = settings.get("schema")
        self._prefix = prefix
        self._timeout = float(settings.get("timeout", _TIMEOUT))
        self._uses_entra = settings.get("auth") == "entra"
        self._is_pooled = bool(settings.get("pgbouncer"))
        self.location = mask_url(self._url).partition("?")[0]
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None

    async def open(self) -> None:
        asyncpg = import_extra("asyncpg", "postgres")
        from everthread.engines.postgres.entra import entra_password
        from everthread.engines.postgres.urls import certificates, target_of

        target = target_of(self._url)
        settings: dict[str, Any] = {"server_settings": dict(target.server_settings)}
        if self._is_pooled:
            settings["statement_cache_size"] = 0
        else:
            # Roles that may create objects in another schema cannot plant functions that statements then call.
            settings["server_settings"] |= {
                "search_path": "pg_catalog, pg_temp",
                "datestyle": "ISO, YMD",
                "statement_timeout": str(int(self._timeout * 1000)),
                "lock_timeout": str(int(self._timeout * 500)),
            }
        if (ssl := certificates(target.options, os.environ)) is not None:
            settings["ssl"] = ssl
        if self._uses_entra:
            settings["password"] = entra_password()
        async with self.errors():
            self._connection = await asyncpg.connect(
                target.dsn, timeout=self._timeout, command_timeout=self._timeout + 5, **settings
            )

    async def aclose(self) -> None:
        if self._connection is not None:
            self._connection.terminate()

    async def rows(self, statement: str, *values: object) -> list[Any]:
        """Return the rows of a statement."""
        assert self._connection is not None
        async with self.errors():
            return await self._connection.fetch(statement, *values)

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[None]:
        """Run statements as one transaction, each of which sees what others have committed before it."""
        assert self._connection is not None
        async with self.errors(), self._connection.transaction(isolation="read_committed"):
            yield

    @asynccontextmanager
    async def errors(self) -> AsyncGenerator[None]:
        """Raise typed errors for those of the driver, without texts of the server."""
        import asyncpg

        from everthread.engines.postgres.errors import translate

        try:
            yield
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
            state = error.sqlstate
            raise ConfigurationError(f"The database refuses a record of it (SQLSTATE {state}).") from None
        except (asyncpg.SerializationError, asyncpg.DeadlockDetectedError, asyncpg.LockNotAvailableError) as error:
            raise ConflictError(f"Another program holds it (SQLSTATE {error.sqlstate}): try again.", 0) from None
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            known = translate(error, self.location)
            raise known or StoreUnavailableError(f"{self.location} failed ({type(error).__name__}).") from None

    async def places(self) -> list[Place]:
        """Return the tables of known programs, and ``Place("", …)`` for those of everthread."""
        found: list[Place] = []
        columns: dict[str, dict[str, set[str]]] = {}
        for schema, name, names in await self.rows(_TABLES, self._schema):
            columns.setdefault(schema, {})[name] = set(names)
        for schema, tables in columns.items():
            if {"id", "session_id", "message_data", "created_at"} <= tables.get("agent_messages", set()):
                found.append(Place("openai-agents", schema))
            if {"thread_id", "checkpoint_ns", "version", "blob"} <= tables.get("checkpoint_blobs", set()):
                found.append(Place("langgraph", schema))
            if schema == (self._schema or _OWN) and "migrations" in tables:
                found.append(Place("", schema))
            found += [
                Place("agent-framework-postgres", schema, name.removesuffix(_HISTORY))
                for name, has in tables.items()
                if name.endswith(_HISTORY) and {"id", "message", "created_at", "expires_at", *_SCOPE} <= has
            ]
        return found

    async def place_of(self, kind: str) -> Place:
        """Return the tables of one kind.

        Raises:
            ConfigurationError: There are none, or several.
        """
        found = [place for place in await self.places() if place.kind == kind and self._prefix in {None, place.prefix}]
        if not found:
            raise ConfigurationError(f"{self.location} has no tables of {kind} that this user may read.")
        if len(found) > 1:
            names = ", ".join(f"{place.schema}.{place.prefix}*" for place in found[:10])
            raise ConfigurationError(
                f"{self.location} has several tables of {kind} ({names}): "
                "add ?schema=NAME to the URL, or give the prefix of the tables' names."
            )
        return found[0]


def quoted(*names: str) -> str:
    """Return an identifier for a statement."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)

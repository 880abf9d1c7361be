"""asyncpg's exceptions → typed errors. Server messages can quote data, so only what is ours is said."""

from __future__ import annotations

import asyncpg

from everthread.errors import (
    ConfigurationError,
    EverthreadError,
    LimitExceededError,
    OutcomeUnknownError,
    SchemaError,
    StoreUnavailableError,
)

_BROKEN = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.IdleSessionTimeoutError,
    # What the driver makes of an answer that a dying server broke off.
    asyncpg.InternalClientError,
)
_NOT_NOW = (asyncpg.CannotConnectNowError, asyncpg.TooManyConnectionsError, asyncpg.ReadOnlySQLTransactionError)
_ROLLED_BACK = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)
_OTHER_SCHEMA = (
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedFunctionError,
    asyncpg.UndefinedColumnError,
    asyncpg.InvalidSchemaNameError,
)
_LOST_STATEMENT = (asyncpg.DuplicatePreparedStatementError, asyncpg.InvalidSQLStatementNameError)
_NO_ENTRY = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError)


def is_lost(error: BaseException) -> bool:
    """Whether the connection went, so that what was under way may or may not have happened."""
    if isinstance(error, TimeoutError):
        return False
    closed = isinstance(error, asyncpg.InterfaceError) and "closed" in str(error)
    return closed or isinstance(error, _BROKEN)


def is_refused_for_now(error: BaseException) -> bool:
    """Whether the server did nothing and may do it soon: it is starting, full, or rolled this back."""
    return isinstance(error, (*_NOT_NOW, *_ROLLED_BACK))


def is_of_one(error: BaseException) -> bool:
    """Whether the server refused a batch for what may concern only one thread of it."""
    return isinstance(error, asyncpg.PostgresError) and not is_lost(error) and not is_refused_for_now(error)


def lost(location: str) -> OutcomeUnknownError:
    """The error for a write whose connection broke before the answer came."""
    return OutcomeUnknownError(
        f"The connection to {location} broke before it answered: the write may have landed. Send it again (an append "
        "with the same append_id)."
    )


def unanswered(location: str) -> OutcomeUnknownError:
    """The error for a write that took longer than it may."""
    return OutcomeUnknownError(
        f"{location} did not answer in time (setting timeout): the write may have landed. Something may hold a lock "
        "on the thread's row. Send it again (an append with the same append_id)."
    )


def translate(error: Exception, location: str) -> EverthreadError | None:
    """The typed error for a driver's exception, or ``None`` for a bug."""
    if _is_for_want_of_a_session(error):
        return ConfigurationError(
            f"{location} is a pooler that keeps no sessions, such as PgBouncer ({_state(error)}): add pgbouncer=true "
            "to the URL. A borrowed pool needs statement_cache_size=0."
        )
    if isinstance(error, _NO_ENTRY):
        return ConfigurationError(
            f"{location} refused to let this user in ({_state(error)}): check the user, the password or token, the "
            "database's name, sslmode, and the server's pg_hba.conf or firewall."
        )
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return ConfigurationError(
            f"{location}: this user may not do that ({_state(error)}). It needs USAGE on the schema, and SELECT, "
            "INSERT, UPDATE and DELETE on its tables; row-level security may stand against it too."
        )
    if isinstance(error, _OTHER_SCHEMA):
        return SchemaError(
            f"{location}: tables or functions are missing or of another version ({_state(error)}). Open the store once "
            "with a user that may create them, or run the SQL that everthread.engines.postgres.ddl() gives."
        )
    if isinstance(error, asyncpg.UndefinedObjectError):
        return ConfigurationError(f"{location} has no such text search configuration (setting search_language).")
    if isinstance(error, asyncpg.ProgramLimitExceededError):
        return LimitExceededError(f"{location}: this is larger than PostgreSQL stores ({_state(error)}).", 0, 0)
    if isinstance(error, (asyncpg.QueryCanceledError, asyncpg.LockNotAvailableError)):
        return StoreUnavailableError(
            f"{location} gave up a statement ({_state(error)}: a statement or lock timeout); nothing was written. "
            "Something may hold a lock on the thread's row. Try again."
        )
    if is_refused_for_now(error):
        return StoreUnavailableError(
            f"{location} cannot do this now ({_state(error)}); nothing was written. Try again."
        )
    if isinstance(error, TimeoutError):
        return StoreUnavailableError(
            f"{location} did not answer in time, or all connections were busy (settings timeout, pool_size)."
        )
    if isinstance(error, asyncpg.ProtocolViolationError):
        return StoreUnavailableError(
            f"{location} refused the connection ({_state(error)}). PgBouncer's log says why: it does not know the "
            "database, cannot reach the server, or has no connection free."
        )
    if is_lost(error):
        return StoreUnavailableError(
            f"{location} cannot be reached ({type(error).__name__}): check host and port, that the server runs and "
            "listens there, firewalls, and sslmode."
        )
    if isinstance(error, asyncpg.ClientConfigurationError):
        return ConfigurationError(f"{location}: the URL or an option is not one that PostgreSQL's driver takes.")
    if isinstance(error, asyncpg.PostgresError):
        return StoreUnavailableError(f"{location} refused a statement ({_state(error)}).")
    return None


def _is_for_want_of_a_session(error: Exception) -> bool:
    # PgBouncer uses one state for all that it refuses.
    is_setting = isinstance(error, asyncpg.ProtocolViolationError) and "startup parameter" in str(error)
    return is_setting or isinstance(error, _LOST_STATEMENT)


def _state(error: Exception) -> str:
    return f"SQLSTATE {getattr(error, 'sqlstate', None) or 'unknown'}"

"""Convert asyncpg's exceptions to typed errors. These hold no server messages, which can quote data."""

from __future__ import annotations

import ssl
from collections.abc import Callable

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
    asyncpg.StatementCompletionUnknownError,
    # The driver raises it when a dying server breaks off an answer.
    asyncpg.InternalClientError,
)
_NOT_NOW = (asyncpg.CannotConnectNowError, asyncpg.TooManyConnectionsError, asyncpg.ReadOnlySQLTransactionError)
_FULL = asyncpg.InsufficientResourcesError
_ROLLED_BACK = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)
_LOST_STATEMENT = (asyncpg.DuplicatePreparedStatementError, asyncpg.InvalidSQLStatementNameError)


def is_lost(error: BaseException) -> bool:
    """Return whether the connection was lost, so that the statement may have taken effect."""
    if isinstance(error, TimeoutError):
        return False
    closed = isinstance(error, asyncpg.InterfaceError) and "closed" in str(error)
    return closed or isinstance(error, _BROKEN)


def is_refused_for_now(error: BaseException) -> bool:
    """Return whether the server did nothing and may succeed soon: it is starting, full, or rolled back."""
    return isinstance(error, (*_NOT_NOW, *_ROLLED_BACK))


def is_of_one(error: BaseException) -> bool:
    """Return whether the server refused a batch for a reason that may concern only one of its threads."""
    concerns_all = is_lost(error) or is_refused_for_now(error) or isinstance(error, _FULL)
    return isinstance(error, asyncpg.PostgresError) and not concerns_all


def unconfirmed(error: Exception, location: str) -> Exception:
    """Return the error for a write that may have taken effect when ``error`` was raised."""
    if isinstance(error, TimeoutError):
        what = (
            f"{location} did not answer in time (setting timeout): the write may have landed. Something may hold a "
            "lock on the thread's row."
        )
    elif is_lost(error):
        what = f"The connection to {location} broke before it answered: the write may have landed."
    else:
        return error
    return OutcomeUnknownError(f"{what} Send it again (an append with the same append_id).")


def translate(error: Exception, location: str) -> EverthreadError | None:
    """Return the typed error for a driver's exception, or ``None`` for a bug."""
    state = f"SQLSTATE {getattr(error, 'sqlstate', None) or 'unknown'}"
    if isinstance(error, asyncpg.ProgramLimitExceededError):
        return LimitExceededError(f"{location}: this is larger than PostgreSQL stores ({state}).", 0, 0)
    if isinstance(error, ssl.SSLCertVerificationError):
        return ConfigurationError(
            f"{location}: the server's certificate is not trusted ({error.verify_message}): check the host's name and "
            "sslrootcert."
        )
    for matches, kind, text in _KINDS:
        if matches(error):
            return kind(text.format(location=location, state=state, name=type(error).__name__))
    return None


def _lacks_session(error: Exception) -> bool:
    # PgBouncer refuses everything with one SQLSTATE.
    is_setting = isinstance(error, asyncpg.ProtocolViolationError) and "startup parameter" in str(error)
    return is_setting or isinstance(error, _LOST_STATEMENT)


def _is(*kinds: type[Exception]) -> Callable[[Exception], bool]:
    return lambda error: isinstance(error, kinds)


_KINDS: tuple[tuple[Callable[[Exception], bool], type[EverthreadError], str], ...] = (
    (
        _lacks_session,
        ConfigurationError,
        "{location} is a pooler that keeps no sessions, such as PgBouncer ({state}): add pgbouncer=true to the URL. "
        "A borrowed pool needs statement_cache_size=0.",
    ),
    (
        _is(asyncpg.InvalidCatalogNameError),
        ConfigurationError,
        "{location}: there is no database of this name ({state}). Create it, or correct the URL.",
    ),
    (
        _is(asyncpg.InvalidAuthorizationSpecificationError),
        ConfigurationError,
        "{location} refused to let this user in ({state}): check the user, the password or token, sslmode, "
        "and the server's pg_hba.conf or firewall.",
    ),
    (
        _is(asyncpg.InsufficientPrivilegeError),
        ConfigurationError,
        "{location}: this user may not do that ({state}). It needs USAGE on the schema, and SELECT, INSERT, UPDATE and "
        "DELETE on its tables. A row-level security policy can refuse it too.",
    ),
    (
        _is(
            asyncpg.UndefinedTableError,
            asyncpg.UndefinedFunctionError,
            asyncpg.UndefinedColumnError,
            asyncpg.InvalidSchemaNameError,
        ),
        SchemaError,
        "{location}: tables or functions are missing or of another version ({state}). Open the store once with a user "
        "that may create them, which creates functions again or names the missing tables; or run the SQL that "
        "everthread.engines.postgres.ddl() returns.",
    ),
    (
        _is(asyncpg.UndefinedObjectError),
        ConfigurationError,
        "{location} has no such text search configuration (setting search_language), role or setting of the server "
        "(options in the URL).",
    ),
    (
        _is(asyncpg.QueryCanceledError, asyncpg.LockNotAvailableError),
        StoreUnavailableError,
        "{location} gave up a statement ({state}: a statement or lock timeout); nothing was written. Something may "
        "hold a lock on the thread's row. Try again.",
    ),
    (
        _is(asyncpg.ReadOnlySQLTransactionError),
        StoreUnavailableError,
        "{location} takes no writes ({state}): it is a standby or read-only. Connect to the primary "
        "(target_session_attrs=read-write with several hosts), or try again after the failover.",
    ),
    (
        lambda error: isinstance(error, _FULL) and not is_refused_for_now(error),
        StoreUnavailableError,
        "{location} has no room left ({state}: disk, memory or a limit of the server). Nothing was written. Free some, "
        "then try again.",
    ),
    (
        is_refused_for_now,
        StoreUnavailableError,
        "{location} cannot do this now ({state}); nothing was written. Try again.",
    ),
    (
        _is(TimeoutError),
        StoreUnavailableError,
        "{location} did not answer in time, or all connections were busy (settings timeout, pool_size).",
    ),
    (
        _is(asyncpg.ProtocolViolationError),
        StoreUnavailableError,
        "{location} refused the connection ({state}). PgBouncer's log says why: it does not know the database, cannot "
        "reach the server, or has no connection free.",
    ),
    (
        is_lost,
        StoreUnavailableError,
        "{location} cannot be reached ({name}): check host and port, that the server runs and listens there, "
        "firewalls, and sslmode.",
    ),
    (
        _is(asyncpg.ClientConfigurationError),
        ConfigurationError,
        "{location}: PostgreSQL's driver does not accept the URL or one of its options.",
    ),
    (_is(asyncpg.PostgresError), StoreUnavailableError, "{location} refused a statement ({state})."),
)
"""The first test that is true decides."""

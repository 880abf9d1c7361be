"""What can go wrong between here and a Redis server, in everthread's own errors.

Texts name the server and what to check. They quote a server's words only where those hold neither
credentials nor content.
"""

from __future__ import annotations

import re
from typing import Final

from everthread.errors import (
    ConfigurationError,
    CorruptRecordError,
    EverthreadError,
    OutcomeUnknownError,
    StoreUnavailableError,
    UnsupportedError,
)

TRANSIENT: Final = frozenset({"LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "UNBLOCKED"})
"""Replies that say that nothing was done and that it may be done soon, perhaps by another server."""

_DENIED: Final = {
    "WRONGPASS": "refused the user name or password",
    "NOAUTH": "wants a password: put it into the URL (rediss://user:password@host:6380)",
    "NOPERM": "does not allow this user {}; the manual lists the rights",
}
_COMMAND: Final = re.compile(r"'([a-z|]+)' command")
_BUSY: Final = {
    "OOM": "is out of memory: it writes nothing until there is room (maxmemory)",
    "MISCONF": "cannot save to its disk and therefore refuses writes",
    "NOREPLICAS": "has too few replicas to accept writes",
    "LOADING": "is still loading its data",
    "READONLY": "is a replica and takes no writes",
    "BUSY": "is busy with another client's script",
}
_CHECK: Final = (
    "Check the host and port, that a firewall lets this machine in, and whether the server speaks TLS "
    "(rediss://; Azure Cache for Redis: port 6380) or not (redis://)."
)


def _what_to_check(reason: str) -> str:
    # The words of OpenSSL and of the operating system.
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        if "mismatch" in reason:
            return "Its certificate is for another name: use that one in the URL."
        return "Name those who vouch for its certificate: ssl_ca_certs=/path."
    if "alert" in reason and "certificate" in reason:
        return "It wants a certificate of its clients: ssl_certfile=/path&ssl_keyfile=/path."
    if "No such file" in reason:
        return "A file or socket that the URL names is not there."
    return _CHECK


class ServerError(Exception):
    """An error reply, as the server worded it."""

    @property
    def code(self) -> str:
        """The upper-case word that error replies begin with."""
        return str(self.args[0]).partition(" ")[0]


def unreachable(server: str, error: BaseException) -> StoreUnavailableError:
    """No connection could be made."""
    reason = _reason(error)
    return StoreUnavailableError(f"{server} cannot be reached ({reason}). {_what_to_check(reason)}")


def broken(server: str, reason: str, *, in_doubt: bool) -> StoreUnavailableError:
    """Connections broke, or the server refused for the time being, as often as it was tried."""
    if in_doubt:
        return OutcomeUnknownError(
            f"{server} was lost during a write ({reason}): it may have landed. "
            "An append is safe to repeat with the same append_id; it takes effect once."
        )
    return StoreUnavailableError(f"{server} did not answer ({reason}). Nothing was written; try again.")


def unconfirmed(server: str, count: int, wanted: int, milliseconds: int) -> OutcomeUnknownError:
    """A write that the primary has, and that too few replicas said to have too."""
    return OutcomeUnknownError(
        f"{server} wrote this, but only {count} of {wanted} replicas confirmed it within {milliseconds} ms: it is lost "
        "if the primary fails before they have it. An append is safe to repeat with the same append_id; it takes "
        "effect once, and waits for the replicas again."
    )


def refused(server: str, error: ServerError, name: bytes | None = None) -> EverthreadError:
    """The typed error for an error reply.

    Args:
        name: The key of the thread's list, where one is concerned.
    """
    code, text = error.code, str(error)
    if "no permissions" in text or "can't access" in text:
        code = "NOPERM"  # from within a script it comes under another code
    if code in _DENIED:
        return ConfigurationError(f"{server} {_DENIED[code].format(_denied(text))}.")
    if code in _BUSY:
        return StoreUnavailableError(f"{server} {_BUSY[code]}. Nothing was written.")
    if code in TRANSIENT:
        return StoreUnavailableError(f"{server} refuses for the time being ({code}). Nothing was written.")
    if "WRONGTYPE" in text:
        what = name.decode(errors="replace") if name else "A key"
        return CorruptRecordError(
            f"The key {what!r} on {server}, or one beside it, is of another type than a thread's: "
            "another program uses it. Choose another prefix."
        )
    if code in {"MOVED", "ASK", "CROSSSLOT"}:
        return ConfigurationError(
            f"{server} is part of a cluster ({code}): use redis+cluster:// or rediss+cluster://, or, where one address "
            "stands for a whole cluster, spread=true."
        )
    if "unknown command" in text.lower():
        return UnsupportedError(f"{server} lacks a command that everthread needs: it takes Redis 6.2 or newer.")
    # Only of a script's own failures it is known that they quote no arguments.
    what = text if "user_script" in text else code
    return StoreUnavailableError(f"{server} answered with an error that is not known here ({what}).")


def _denied(text: str) -> str:
    if command := _COMMAND.search(text):
        return command[1].upper().replace("|", " ")
    return "these keys" if "key" in text else "all that everthread needs"


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
        return "no answer in time"
    # redis-py words connection errors from host, port and the operating system's reason.
    return str(error).strip().rstrip(".")[:300] or type(error).__name__

"""Typed errors for the failures of a Redis server and of the connections to it.

A message names the server and what to check. It quotes the server's words only if they contain neither credentials nor
content.
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
"""Codes of replies to calls that had no effect and that a server, perhaps another one, may accept soon."""

_DENIED: Final = {
    "WRONGPASS": "refused the user name or password",
    "NOAUTH": "wants a password: add it to the URL (rediss://user:password@host:6380)",
    "NOPERM": "does not allow this user {}; the manual lists the rights",
}
_COMMAND: Final = re.compile(r"'([a-z|]+)' command")
_BUSY: Final = {
    "OOM": "is out of memory: it accepts no writes until there is room (maxmemory)",
    "MISCONF": "cannot save to its disk and therefore refuses writes",
    "NOREPLICAS": "has too few replicas to accept writes",
    "LOADING": "is still loading its data",
    "READONLY": "is a replica and accepts no writes",
    "BUSY": "is busy with another client's script",
}
_CHECK: Final = (
    "Check the host and port, that a firewall lets this machine in, and whether the server speaks TLS "
    "(rediss://; Azure Cache for Redis: port 6380) or not (redis://)."
)


def _what_to_check(reason: str) -> str:
    # These texts are from OpenSSL and the operating system.
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        if "mismatch" in reason:
            return "Its certificate is for another name: use that one in the URL."
        return "Give the certificate of its authority: ssl_ca_certs=/path."
    if "alert" in reason and "certificate" in reason:
        return "It requires a client certificate: ssl_certfile=/path&ssl_keyfile=/path."
    if "No such file" in reason:
        return "A file or socket in the URL does not exist."
    return _CHECK


class ServerError(Exception):
    """An error reply, in the server's words."""

    @property
    def code(self) -> str:
        """The upper-case word at the beginning of an error reply."""
        return str(self.args[0]).partition(" ")[0]


def unreachable(server: str, error: BaseException) -> StoreUnavailableError:
    """Return the error for a connection that cannot be made."""
    reason = _reason(error)
    return StoreUnavailableError(f"{server} cannot be reached ({reason}). {_what_to_check(reason)}")


def broken(server: str, reason: str, *, in_doubt: bool) -> StoreUnavailableError:
    """Return the error for a call that failed in every attempt: its connection was lost, or the server refused it."""
    if in_doubt:
        return OutcomeUnknownError(
            f"{server} was lost during a write ({reason}): it may have landed. "
            "An append is safe to repeat with the same append_id; it takes effect once."
        )
    return StoreUnavailableError(f"{server} did not answer ({reason}). Nothing was written; try again.")


def unconfirmed(server: str, count: int, wanted: int, milliseconds: int) -> OutcomeUnknownError:
    """Return the error for a write that the primary has and too few replicas confirmed."""
    return OutcomeUnknownError(
        f"{server} wrote this, but only {count} of {wanted} replicas confirmed it within {milliseconds} ms: it is lost "
        "if the primary fails before they have it. An append is safe to repeat with the same append_id; it takes "
        "effect once, and waits for the replicas again."
    )


def refused(server: str, error: ServerError, name: bytes | None = None) -> EverthreadError:
    """Return the typed error for an error reply; ``name`` is the key of the thread's list, if the call has one."""
    code, text = error.code, str(error)
    if "no permissions" in text or "can't access" in text:
        code = "NOPERM"  # from within a script it has another code
    if code in _DENIED:
        return ConfigurationError(f"{server} {_DENIED[code].format(_denied(text))}.")
    if code in _BUSY:
        return StoreUnavailableError(f"{server} {_BUSY[code]}. Nothing was written.")
    if code in TRANSIENT:
        return StoreUnavailableError(f"{server} refuses calls at the moment ({code}). Nothing was written.")
    if "WRONGTYPE" in text:
        what = name.decode(errors="replace") if name else "A key"
        return CorruptRecordError(
            f"The key {what!r} on {server}, or one of its companion keys, has another type than a thread's: "
            "another program uses it. Choose another prefix."
        )
    if code in {"MOVED", "ASK", "CROSSSLOT"}:
        return ConfigurationError(
            f"{server} is part of a cluster ({code}): use redis+cluster:// or rediss+cluster://, or, if one address "
            "stands for a whole cluster, spread=true."
        )
    if "unknown command" in text.lower():
        return UnsupportedError(f"{server} lacks a command that everthread needs: use Redis 6.2 or newer.")
    # Only a script's own errors are known to quote no arguments.
    what = text if "user_script" in text else code
    return StoreUnavailableError(f"{server} answered with an unknown error ({what}).")


def _denied(text: str) -> str:
    if command := _COMMAND.search(text):
        return command[1].upper().replace("|", " ")
    return "these keys" if "key" in text else "everything that everthread needs"


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
        return "no answer in time"
    # redis-py's connection errors contain the host, the port and the operating system's reason.
    return str(error).strip().rstrip(".")[:300] or type(error).__name__

"""The serialized state of message stores: checked with care, because anybody may have written it.

A state names the place of a conversation. On its own it opens nothing but a Redis server, and sends that server
nothing but the contents of the state: it opens no file, and no credential of this machine goes to a host that only the
state names. It does not reach another tenant than that of its message store.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from everthread.errors import ConfigurationError
from everthread.messages.codec import as_object
from everthread.model import Retention
from everthread.urls import scheme_of

_SCHEMES: Final = frozenset(
    f"{scheme}{kind}" for scheme in ("redis", "rediss") for kind in ("", "+cluster", "+sentinel")
)
_LOCAL: Final = frozenset({"auth", "ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile"})
"""Options with which a client reads files or uses credentials of this machine: certificates, tokens of Entra ID."""


class State(msgspec.Struct, frozen=True):
    """The state of a message store, as it is serialized; each class writes and reads its own part of it."""

    thread_id: str
    tenant: str | None = None
    store_url: str | None = None
    redis_url: str | None = None
    key_prefix: str | None = None
    max_messages: int | None = None
    expire_after: float | None = None

    @property
    def retention(self) -> Retention | None:
        """The retention.

        Raises:
            ConfigurationError: It cannot be one.
        """
        if self.max_messages is None and self.expire_after is None:
            return None
        try:
            expire_after = None if self.expire_after is None else timedelta(seconds=self.expire_after)
        except (OverflowError, ValueError):
            raise ConfigurationError("The state's expire_after is too long, or not a number.") from None
        return Retention(self.max_messages, expire_after)

    def tenant_within(self, expected: str | None) -> str:
        """Return the tenant, which must be the expected one if there is one.

        Raises:
            ConfigurationError: The state names another tenant.
        """
        if expected is None:
            return self.tenant or ""
        if self.tenant not in {None, expected}:
            raise ConfigurationError(
                "The state names another tenant than this message store: pass tenant= to allow it."
            )
        return expected


def state_of(serialized: Any) -> State:
    """Return a store's state from the result of its ``serialize`` or ``serialize_state``.

    Raises:
        ConfigurationError: It is neither.
    """
    outer = as_object(serialized)
    state = as_object(outer["store_metadata"]) if "store_metadata" in outer else outer
    if "thread_id" not in state:
        raise ConfigurationError(
            "This state does not name its thread. Message stores serialize as "
            '{"messages": [], "store_metadata": {"thread_id": …}}; a thread of Agent Framework has that '
            "in chat_message_store_state only if everthread serialized it."
        )
    try:
        return msgspec.convert(state, State)
    except (msgspec.ValidationError, OverflowError) as error:
        # Its text names types and the field, no values.
        raise ConfigurationError(f"The state is not valid: {error}.") from None


def checked_place(url: str, *, keyword: str, variable: str) -> str:
    """Return the URL of a state, if a state may decide that it is opened.

    Args:
        url: The URL in the state.
        keyword: The argument with which a caller names the place instead.
        variable: The environment variable that does the same.

    Raises:
        ConfigurationError: It is not a Redis server, or uses files or credentials of this machine.
    """
    remedy = f"Pass {keyword}= or set {variable} to name the place of the conversation."
    scheme = scheme_of(url)
    if scheme not in _SCHEMES:
        raise ConfigurationError(f"A state on its own opens Redis servers only, and this one names {scheme}:. {remedy}")
    asked = _LOCAL.intersection(name for name, _ in parse_qsl(url.partition("?")[2], keep_blank_values=True))
    if asked:
        raise ConfigurationError(
            f"The state uses files or credentials of this machine ({', '.join(sorted(asked))}), which it alone "
            f"cannot decide. {remedy}"
        )
    return url

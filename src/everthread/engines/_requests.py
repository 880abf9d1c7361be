"""The checked arguments that engines get. Public as names of `everthread.engines.base`."""

from __future__ import annotations

from typing import Literal

import msgspec

from everthread.messages.tool_links import TurnLinks
from everthread.model import NewMessage, Retention, ThreadKey


class AppendRequest(msgspec.Struct, frozen=True):
    """The checked arguments of an append.

    Attributes:
        messages: At least one, none larger than ``max_message_bytes``.
        links: How the turn's tool calls and results are linked: see `everthread.messages.tool_links`.
        append_id: The caller's id, or a new random one.
        retention: Applies to this append, unless the thread has its own and ``overrides`` is false.
        now_ms: The time by this process's clock, for engines that have no clock in their storage.
        is_new_id: The id was made for this append, so no earlier append can have it.
        overrides: The caller gave the retention with this append, so it precedes the thread's own.
        skip_to: The position of the first message if that is above ``expected_seq``: see `first_seq`. ``None`` unless
            the engine has `_restore_position`.
    """

    key: ThreadKey
    messages: tuple[NewMessage, ...]
    links: TurnLinks
    append_id: str
    expected_seq: int | None
    retention: Retention
    default_title: str | None
    now_ms: int
    is_new_id: bool = False
    overrides: bool = False
    skip_to: int | None = None

    def first_seq(self, next_seq: int) -> int:
        """Return the position of the first message in a thread with this next position."""
        return next_seq if self.skip_to is None else self.skip_to

    def retention_of(self, own: Retention | None) -> Retention:
        """Return what applies to this append to a thread with the retention ``own``."""
        return self.retention if self.overrides or own is None else own


class ThreadChange(msgspec.Struct, frozen=True):
    """The checked arguments of ``update_thread``; ``metadata`` as JSON. ``None`` leaves a field unchanged.

    Attributes:
        store_retention: Applies to a thread without its own retention.
    """

    title: str | None
    metadata: bytes | None
    expected_revision: int | None
    retention: Retention | Literal["inherit"] | None = None
    store_retention: Retention = Retention()

    @property
    def own_retention(self) -> Retention | None:
        """The thread's own retention after the change. Meaningful only if ``retention`` is given."""
        return self.retention if isinstance(self.retention, Retention) else None

    @property
    def expire_ms(self) -> int | None:
        """The time from last activity to expiry after the change. Meaningful only if ``retention`` is given."""
        return (self.own_retention or self.store_retention).expire_ms

"""Store the work of Agent Framework's `CompactionProvider` in a document of the thread. Its messages stay unchanged.

The framework's provider works after a run on ``session.state[history_source_id]["messages"]``. Its strategies mark
messages as excluded and put summaries in front of them. That list is filled before the run. After the run the positions
of the excluded messages and the summaries are stored. The next run's model gets the rest.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import msgspec
from agent_framework import Message

from everthread.adapters.agent_framework.sessions import COMPACTION_DOCUMENT
from everthread.adapters.agent_framework.windows import Loaded
from everthread.errors import ConfigurationError, ConflictError, LimitExceededError
from everthread.messages.codec import encode

if TYPE_CHECKING:
    from agent_framework import SupportsAgentRun

    from everthread.contract import Store
    from everthread.model import ThreadKey

log = logging.getLogger(__name__)

EXCLUDED = "_excluded"


class Inserted(msgspec.Struct, frozen=True):
    """A summary in front of the message at a position, as the framework's own JSON."""

    before: int
    message: dict[str, Any]


class Record(msgspec.Struct, frozen=True):
    """The compaction of a thread: ranges of excluded positions, and summaries."""

    excluded: tuple[tuple[int, int], ...] = ()
    inserted: tuple[Inserted, ...] = ()
    v: int = 1

    @property
    def last(self) -> int:
        """The newest excluded position."""
        return self.excluded[-1][1] - 1 if self.excluded else -1


class Compaction:
    """A thread's compaction during one run.

    Args:
        loaded: The thread's messages.
        record: The compaction by earlier runs.
        revision: The revision of that document.
    """

    def __init__(self, loaded: Loaded, record: Record, revision: int) -> None:
        self._record = record
        self._revision = revision
        self._positions: dict[int, int] = {}
        self.listed: list[Message] = []
        """The messages for strategies: copies, which they mark."""
        self.included: list[Message] = []
        """The messages for the model."""
        waiting = sorted(record.inserted, key=lambda each: each.before)
        for message, position in zip(loaded.messages, loaded.positions, strict=True):
            while waiting and waiting[0].before <= position:
                self._insert(Message.from_dict(waiting.pop(0).message))
            self._add(message, position)
        for each in waiting:
            self._insert(Message.from_dict(each.message))

    def _insert(self, summary: Message) -> None:
        self.listed.append(summary)
        self.included.append(_copied(summary))

    def _add(self, message: Message, position: int) -> None:
        listed = _copied(message)
        if any(start <= position < stop for start, stop in self._record.excluded):
            listed.additional_properties[EXCLUDED] = True
        if not listed.additional_properties.get(EXCLUDED):
            self.included.append(message)
        self._positions[id(listed)] = position
        self.listed.append(listed)

    async def keep(self, store: Store, key: ThreadKey) -> None:
        """Store the changes that strategies made to the listed messages, if any. Never fails a run."""
        record = self._made()
        if record == self._record:
            return
        try:
            value = encode(msgspec.to_builtins(record))
            await store.put_document(key, COMPACTION_DOCUMENT, value, expected_revision=self._revision)
        except (ConflictError, LimitExceededError) as error:
            log.warning(
                "The compaction of %s was not stored (%s); the next run tries again.", key, type(error).__name__
            )

    def _made(self) -> Record:
        excluded: list[tuple[int, int]] = []
        inserted: list[Inserted] = []
        following = max(self._positions.values(), default=-1) + 1
        for message in reversed(self.listed):
            position = self._positions.get(id(message))
            if position is not None:
                following = position
            if not message.additional_properties.get(EXCLUDED):
                if position is None:
                    inserted.append(Inserted(following, message.to_dict()))
            elif position is not None:
                stop = excluded.pop()[1] if excluded and excluded[-1][0] == position + 1 else position + 1
                excluded.append((position, stop))
        return Record(tuple(excluded[::-1]), tuple(inserted[::-1]))


async def read_compaction(store: Store, key: ThreadKey, loaded: Loaded) -> Compaction:
    """Return a thread's compaction; ignore one that covers messages which were undone later."""
    document = await store.get_document(key, COMPACTION_DOCUMENT)
    if document is None:
        return Compaction(loaded, Record(), 0)
    try:
        record = msgspec.json.decode(document.value, type=Record)
        fits = not loaded.positions or record.last < loaded.positions[0] or record.last in set(loaded.positions)
        return Compaction(loaded, record if fits else Record(), document.revision)
    except Exception as error:
        log.warning("The model gets all messages of %s: its compaction cannot be read (%s).", key, type(error).__name__)
        return Compaction(loaded, Record(), document.revision)


def is_compacted(agent: SupportsAgentRun, source_id: str, provider: object) -> bool:
    """Return whether the agent has a `CompactionProvider` that works on this source's stored messages.

    Raises:
        ConfigurationError: It cannot work with this agent's settings.
    """
    providers = cast(Sequence[Any], getattr(agent, "context_providers", None) or ())
    compacting = [
        at
        for at, each in enumerate(providers)
        if getattr(each, "history_source_id", None) == source_id and getattr(each, "after_strategy", None) is not None
    ]
    if not compacting:
        return False
    own = next((at for at, each in enumerate(providers) if each is provider), -1)
    if min(compacting) < own:
        raise ConfigurationError(
            "CompactionProvider(after_strategy=…) needs the loaded history: name the history provider first in "
            "context_providers."
        )
    if getattr(agent, "require_per_service_call_history_persistence", False):
        raise ConfigurationError(
            "CompactionProvider(after_strategy=…) cannot work with require_per_service_call_history_persistence=True: "
            "use before_strategy, or a SummaryWindow."
        )
    return True


def _copied(message: Message) -> Message:
    copied = copy.copy(message)
    copied.additional_properties = dict(message.additional_properties)
    return copied

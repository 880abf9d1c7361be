"""Sessions that Agent Framework's ``VectorStoreHistoryProvider`` stored, in any of its vector stores.

Source: ``_vectors.py`` of agent-framework-core 1.23.0. A record is a message, with its JSON in the field ``message``
and the writer's time in ``created_at``, in nanoseconds.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from everthread._escaping import escape
from everthread._extras import import_extra
from everthread.errors import ConfigurationError, CorruptRecordError, InvalidIdentifierError
from everthread.model import Message, ThreadKey
from everthread.transfer.foreign._turns import Numbered, session_thread
from everthread.transfer.model import Heading, Skipped, Source, SourceThread

_DEFAULT_SOURCE = "vector_store_history"
_FORMAT = "agent-framework"
_A_PAGE = 100
_SCOPE = ("application_id", "tenant_id", "agent_id", "source_id", "session_id")

Record = Mapping[str, Any]


class VectorHistorySource(Source):
    """The sessions of one application and agent.

        source = VectorHistorySource(vector_store, application_id="support")
        report = await import_threads(store, source)

    The tenant of a session becomes the thread's. Sessions of another source than the provider's default become the
    thread that ``EverthreadHistoryProvider(source_id=…)`` reads. The source reads the collection page by page, once to
    find the sessions and once for each session; the names of all sessions and one session at a time are in memory.
    Messages must not be written at the same time.

    Args:
        vector_store: The vector store, as the provider got it. It stays the caller's to close.
        application_id: As the provider got it.
        agent_id: As the provider got it.
        collection_name: As the provider got it. Default: the provider's own default.
        contents_format: As the provider got it.
        dimensions: The ``dimensions`` of the provider's ``embedding_options``, if it got any.

    Raises:
        ConfigurationError: agent-framework-core is not installed, or older than 1.18.
    """

    def __init__(
        self,
        vector_store: Any,
        *,
        application_id: str,
        agent_id: str | None = None,
        collection_name: str | None = None,
        contents_format: str = "json",
        dimensions: int | None = None,
    ) -> None:
        framework = import_extra("agent_framework", "agent-framework")
        try:
            field, definition = framework.VectorStoreField, framework.VectorStoreCollectionDefinition
            self._equal, self._all = framework.Filter, framework.FilterGroup
        except AttributeError as error:
            raise ConfigurationError("This needs a newer release: pip install 'agent-framework-core>=1.18'") from error
        # A collection may refuse another definition than the provider's.
        fields = [field("key", name="id", type_="str")]
        fields += [field("data", name=name, type_="str", is_indexed=True) for name in _SCOPE]
        fields += [field("data", name=name, type_="int") for name in ("created_at", "modified_at")]
        fields += [field("data", name=name, type_="str") for name in ("message", "contents")]
        if dimensions is not None:
            vector = {"dimensions": dimensions, "distance_function": "cosine_similarity"}
            fields.append(field("vector", name="embedding", type_="float", **vector))
        name = collection_name or f"agent_framework_history_v1_{contents_format}_no_vectors"
        self._scope = {"application_id": application_id, "agent_id": agent_id or ""}
        self._collection = vector_store.get_collection(dict, definition=definition(fields), collection_name=name)

    async def threads(self) -> AsyncIterator[SourceThread | Skipped]:
        newest: dict[tuple[str, str, str], int] = {}
        async for record in self.records({}):
            try:
                session = (record["tenant_id"], record["source_id"], record["session_id"])
                newest[session] = max(newest.get(session, 0), record["created_at"])
            except (KeyError, TypeError):
                yield Skipped(f"the record {str(record.get('id'))[:100]!r}", "it has no session or no time")
        for session in sorted(newest, key=lambda each: newest[each]):
            try:
                yield _Session(self, *session)
            except InvalidIdentifierError as error:
                yield Skipped(f"the session {str(session)[:200]}", str(error))

    async def records(self, scope: Mapping[str, str]) -> AsyncIterator[Record]:
        """Yield the records that have these values, in the order of the collection."""
        filters = tuple(self._equal(name, "eq", value) for name, value in {**self._scope, **scope}.items())
        skip = 0
        while page := await self._collection.get(filter=self._all("and", filters), top=_A_PAGE, skip=skip):
            for record in page:
                yield record
            skip += len(page)


class _Session(SourceThread):
    def __init__(self, source: VectorHistorySource, tenant: str, source_id: str, session_id: str) -> None:
        is_default = source_id == _DEFAULT_SOURCE
        thread_id = session_thread(session_id) if is_default else f"~{escape(source_id)}~{session_id}"
        self.heading = Heading(ThreadKey(thread_id, tenant))
        self._source = source
        self._scope = {"tenant_id": tenant, "source_id": source_id, "session_id": session_id}

    async def pages(self) -> AsyncIterator[Sequence[Message]]:
        rows: list[tuple[int, str, str]] = []
        async for record in self._source.records(self._scope):
            at, name, message = record.get("created_at"), record.get("id"), record.get("message")
            if not isinstance(at, int) or not isinstance(name, str) or not isinstance(message, str):
                raise CorruptRecordError(f"The record {str(name)[:100]!r} of the collection is no message.")
            rows.append((at, name, message))
        # In the provider's own order.
        rows.sort(key=lambda row: row[:2])
        numbered = Numbered(_FORMAT)
        for first in range(0, len(rows), _A_PAGE):
            yield [
                numbered.message(message.encode(errors="surrogatepass"), at // 1_000_000)
                for at, _, message in rows[first : first + _A_PAGE]
            ]

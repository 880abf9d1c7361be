"""ChatKit's `Store` on any store: the items of the UI are records of the thread that has the agent's messages."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar, cast

from chatkit.store import NotFoundError
from chatkit.store import Store as ChatKitStore
from chatkit.types import Attachment, Page, ThreadItem, ThreadMetadata
from pydantic import AnyUrl, BaseModel, TypeAdapter, ValidationError

from everthread.adapters.openai_agents.session import EverthreadSession
from everthread.adapters.retrying import retried
from everthread.adapters.using_store import UsesStore
from everthread.contract import Store
from everthread.errors import (
    ConflictError,
    CorruptRecordError,
    StoreUnavailableError,
    UnsupportedError,
)
from everthread.messages import codec
from everthread.model import Thread, ThreadKey, check_count
from everthread.operations.records import delete_record, get_record, put_record

T = TypeVar("T")

ITEM_PREFIX = "chatkit:item:"
"""The beginning of the names of records with items; the time and the ID of the item follow."""

ATTACHMENTS = "chatkit:attachments"
"""The ID of the thread with the attachments of a tenant, as records of this name and the ID."""

MOST_ITEMS_A_PAGE = 1000
"""The most threads or items in a page. A larger limit gives pages of this size."""

_MARK = "chatkit:thread"
_MOST_ATTEMPTS = 50
_AT_ONCE = 50
_log = logging.getLogger("everthread")
_item: TypeAdapter[ThreadItem] = TypeAdapter(ThreadItem)
_attachment: TypeAdapter[Attachment] = TypeAdapter(Attachment)


class EverthreadChatKitStore(UsesStore, ChatKitStore[Any]):
    """The threads, items and attachments of a ChatKit server: ``MyServer(store=EverthreadChatKitStore(url))``.

    The items of the UI are records of a thread, each at most 64 MiB, and `session` has the agent's messages in the same
    thread: both are listed, renamed, copied and deleted as one. Items are in the order of their ``created_at``. Of
    concurrent writers of one item the last one wins.

    Args:
        store: A `Store`, which stays the caller's to close and works in one event loop, or the URL of one, which works
            in every loop: each loop connects at its first use, until it ends or `aclose` (or ``async with``) closes it.
        tenant: The owner of the threads, or a function that returns it from the context of a request. No request
            reaches the threads and attachments of another tenant.

    Raises:
        ConfigurationError: A URL of an unknown scheme or with a wrong option, or another object as the store.
    """

    def __init__(self, store: Store | str, *, tenant: str | Callable[[Any], str] = "") -> None:
        UsesStore.__init__(self, store)
        self._tenant = tenant

    def session(self, thread_id: str, context: Any, **options: Any) -> EverthreadSession:
        """Return the session of the OpenAI Agents SDK in a thread. ``options`` are those of `EverthreadSession`."""
        key = self._key(thread_id, context)
        return EverthreadSession(key.thread_id, self._store, tenant=key.tenant, **options)

    # Threads

    async def load_thread(self, thread_id: str, context: Any) -> ThreadMetadata:
        """Return the description of a thread, also of one that only a session wrote.

        Raises:
            NotFoundError: There is no such thread.
        """
        key = self._key(thread_id, context)
        thread = await retried(lambda: self._store.get_thread(key))
        if thread is None:
            raise NotFoundError(f"Thread {thread_id} not found")
        return _described(thread)

    async def save_thread(self, thread: ThreadMetadata, context: Any) -> None:
        """Store the description of a thread, and create it if needed. Metadata of other programs stays.

        A description without a title keeps the former title.

        Raises:
            InvalidMessageError: JSON would alter the metadata.
            LimitExceededError: The metadata is larger than 64 KiB.
        """
        key = self._key(thread.id, context)
        own = _dumped(thread, exclude={"id", "title"})
        for _ in range(_MOST_ATTEMPTS):
            stored = await retried(lambda: self._store.get_thread(key))
            if stored is None:
                await retried(lambda: self._store.put_document(key, _MARK, b"{}"))
                continue
            metadata = {**stored.metadata, "chatkit": own}
            if stored.title == (thread.title or stored.title) and stored.metadata == metadata:
                return
            try:
                await self._store.update_thread(
                    key, title=thread.title, metadata=metadata, expected_revision=stored.revision
                )
            except ConflictError:
                continue
            return
        raise StoreUnavailableError(f"Too many concurrent writers of the metadata of {key}. Try again.")

    async def load_threads(self, limit: int, after: str | None, order: str, context: Any) -> Page[ThreadMetadata]:
        """Return a page of threads, newest activity first. ``after`` is the ``after`` of the former page.

        A thread with a description that cannot be read is listed with its title and times, and a warning in the log.

        Raises:
            UnsupportedError: The order is ``asc``: stores list the newest activity first.
            ConfigurationError: ``after`` is not from this store.
        """
        if order != "desc":
            raise UnsupportedError("Threads are listed newest first: give order='desc'.")
        page = await self._store.list_threads(self._tenant_of(context), limit=_limit(limit), cursor=after)
        data = [_listed(each) for each in page if each.key.thread_id != ATTACHMENTS]
        return Page(data=data, has_more=page.cursor is not None, after=page.cursor)

    async def delete_thread(self, thread_id: str, context: Any) -> None:
        """Delete a thread with its items and the agent's messages, if it exists. Its attachments stay."""
        key = self._key(thread_id, context)
        await retried(lambda: self._store.delete_thread(key))

    # Items

    async def load_thread_items(
        self, thread_id: str, after: str | None, limit: int, order: str, context: Any
    ) -> Page[ThreadItem]:
        """Return a page of items in the order of their times, ``asc`` or ``desc``. ``after`` is the ID of an item.

        A record that is no item is left out, with a warning in the log.

        Raises:
            NotFoundError: The item ``after`` does not exist.
        """
        key, limit = self._key(thread_id, context), _limit(limit)
        names = await self._item_names(key)
        if order == "desc":
            names.reverse()
        if after is not None:
            names = names[names.index(_found(names, after)) + 1 :]
        items: list[ThreadItem] = []
        for at in range(0, min(limit, len(names)), _AT_ONCE):
            some = names[at : min(at + _AT_ONCE, limit)]
            found = await asyncio.gather(*(self._readable_item(key, name) for name in some))
            items += [item for item in found if item is not None]
        has_more = len(names) > limit
        return Page(data=items, has_more=has_more, after=_id_in(names[limit - 1]) if has_more else None)

    async def add_thread_item(self, thread_id: str, item: ThreadItem, context: Any) -> None:
        """Store a new item. Storing it again replaces it.

        Raises:
            InvalidMessageError: JSON would alter a value of the item.
            LimitExceededError: It is larger than 64 MiB.
        """
        await self.save_item(thread_id, item, context)

    async def save_item(self, thread_id: str, item: ThreadItem, context: Any) -> None:
        """Store an item in place of the one with its ID, which keeps its place, or as a new one.

        Raises:
            InvalidMessageError: JSON would alter a value of the item.
            LimitExceededError: It is larger than 64 MiB.
        """
        key, data = self._key(thread_id, context), codec.encode(_dumped(item))
        former = [name for name in await self._item_names(key) if _id_in(name) == item.id]
        name = former[0] if former else _item_name(item)
        await retried(lambda: put_record(self._store, key, name, data))

    async def load_item(self, thread_id: str, item_id: str, context: Any) -> ThreadItem:
        """Return an item.

        Raises:
            NotFoundError: There is no such item.
            CorruptRecordError: The record is no item.
        """
        key = self._key(thread_id, context)
        item = await self._item(key, _found(await self._item_names(key), item_id))
        if item is None:
            raise NotFoundError(f"Item {item_id} not found")
        return item

    async def delete_thread_item(self, thread_id: str, item_id: str, context: Any) -> None:
        """Delete an item of the UI, if it exists. The agent's messages stay: see `EverthreadSession.pop_item`."""
        key = self._key(thread_id, context)
        for name in await self._item_names(key):
            if _id_in(name) == item_id:
                await retried(lambda name=name: delete_record(self._store, key, name))

    # Attachments

    async def save_attachment(self, attachment: Attachment, context: Any) -> None:
        """Store the description of an attachment in place of any other with its ID. Its bytes are stored elsewhere."""
        key, data = ThreadKey(ATTACHMENTS, self._tenant_of(context)), codec.encode(_dumped(attachment))
        await retried(lambda: put_record(self._store, key, _attachment_name(attachment.id), data))

    async def load_attachment(self, attachment_id: str, context: Any) -> Attachment:
        """Return the description of an attachment.

        Raises:
            NotFoundError: There is no such attachment.
            CorruptRecordError: The record is no attachment.
        """
        key = ThreadKey(ATTACHMENTS, self._tenant_of(context))
        found = await self._record(key, _attachment_name(attachment_id), _attachment)
        if found is None:
            raise NotFoundError(f"Attachment {attachment_id} not found")
        return found

    async def delete_attachment(self, attachment_id: str, context: Any) -> None:
        """Delete the description of an attachment, if it exists."""
        key = ThreadKey(ATTACHMENTS, self._tenant_of(context))
        await retried(lambda: delete_record(self._store, key, _attachment_name(attachment_id)))

    def _tenant_of(self, context: Any) -> str:
        return self._tenant(context) if callable(self._tenant) else self._tenant

    def _key(self, thread_id: str, context: Any) -> ThreadKey:
        if thread_id == ATTACHMENTS:
            raise NotFoundError(f"Thread {thread_id} not found")
        return ThreadKey(thread_id, self._tenant_of(context))

    async def _item_names(self, key: ThreadKey) -> list[str]:
        return list(await retried(lambda: self._store.list_documents(key, prefix=ITEM_PREFIX)))

    async def _item(self, key: ThreadKey, name: str) -> ThreadItem | None:
        return await self._record(key, name, _item)

    async def _readable_item(self, key: ThreadKey, name: str) -> ThreadItem | None:
        try:
            return await self._item(key, name)
        except CorruptRecordError as error:
            _log.warning("A page leaves out an item: %s", error)
            return None

    async def _record(self, key: ThreadKey, name: str, kind: TypeAdapter[T]) -> T | None:
        data = await retried(lambda: get_record(self._store, key, name))
        try:
            return None if data is None else kind.validate_json(data)
        except ValidationError:
            raise CorruptRecordError(f"The record {name!r} of {key} is none of this ChatKit release.") from None


def _described(thread: Thread) -> ThreadMetadata:
    own: Mapping[str, Any] = codec.as_object(thread.metadata.get("chatkit"))
    try:
        return ThreadMetadata.model_validate(
            {"created_at": thread.created_at, **own, "id": thread.key.thread_id, "title": thread.title}
        )
    except ValidationError:
        raise CorruptRecordError(f"The metadata 'chatkit' of {thread.key} is none of this ChatKit release.") from None


def _listed(thread: Thread) -> ThreadMetadata:
    try:
        return _described(thread)
    except CorruptRecordError as error:
        _log.warning("A list shows a thread without its description: %s", error)
        return ThreadMetadata(id=thread.key.thread_id, created_at=thread.created_at, title=thread.title)


def _dumped(value: BaseModel, **options: Any) -> dict[str, Any]:
    # Not mode="json", which writes NaN as null and bytes as text.
    dumped = value.model_dump(**options)
    if isinstance(created := dumped.get("created_at"), datetime):
        dumped["created_at"] = created.isoformat()
    return cast(dict[str, Any], _plain(dumped))


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in cast(dict[object, object], value).items()}
    if isinstance(value, list):
        return [_plain(each) for each in cast(list[object], value)]
    return str(value) if isinstance(value, AnyUrl) else value


def _item_name(item: ThreadItem) -> str:
    microseconds = max(int(item.created_at.timestamp() * 1_000_000), 0)
    return f"{ITEM_PREFIX}{microseconds:017d}:{item.id}"


def _id_in(name: str) -> str:
    return name[len(ITEM_PREFIX) + 18 :]


def _attachment_name(attachment_id: str) -> str:
    return f"chatkit:attachment:{attachment_id}"


def _found(names: list[str], item_id: str) -> str:
    for name in names:
        if _id_in(name) == item_id:
            return name
    raise NotFoundError(f"Item {item_id} not found")


def _limit(limit: int) -> int:
    check_count(limit, "limit", least=1)
    return min(limit, MOST_ITEMS_A_PAGE)

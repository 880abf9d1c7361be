"""The base of stores around stores: every call goes through one place, and on to the inner store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal, TypeVar

from everthread.contract import Store
from everthread.model import (
    Appended,
    Document,
    MessagePage,
    NewMessage,
    Page,
    Retention,
    Thread,
    ThreadKey,
    Truncated,
)

T = TypeVar("T")

WRITES = frozenset(
    {
        "append",
        "truncate",
        "update_thread",
        "delete_thread",
        "delete_tenant",
        "put_document",
        "delete_document",
    }
)
"""The calls that change something."""


class ForwardingStore(Store):
    """A store that does what another one does.

    It takes the inner store over: opening and closing this one opens and closes that one.

    A subclass overrides `_around` to add the same to every call, or a method to change that one.
    """

    def __init__(self, inner: Store) -> None:
        self._inner = inner

    @property
    def location(self) -> str:
        return self._inner.location

    def __repr__(self) -> str:
        return f"<{type(self).__name__} around {self._inner!r}>"

    async def _around(self, call: str, proceed: Callable[[], Awaitable[T]]) -> T:
        """Every call but opening and closing passes here.

        Args:
            call: The method's name.
            proceed: Makes the call on the inner store.
        """
        return await proceed()

    async def open(self) -> None:
        await self._inner.open()

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def append(
        self,
        key: ThreadKey,
        messages: Sequence[NewMessage],
        *,
        append_id: str | None = None,
        expected_seq: int | None = None,
        retention: Retention | None = None,
        default_title: str | None = None,
    ) -> Appended:
        return await self._around(
            "append",
            lambda: self._inner.append(
                key,
                messages,
                append_id=append_id,
                expected_seq=expected_seq,
                retention=retention,
                default_title=default_title,
            ),
        )

    async def read(
        self, key: ThreadKey, *, start: int = 0, stop: int | None = None, limit: int | None = None
    ) -> MessagePage:
        return await self._around("read", lambda: self._inner.read(key, start=start, stop=stop, limit=limit))

    async def read_last(self, key: ThreadKey, count: int, *, before: int | None = None) -> MessagePage:
        return await self._around("read_last", lambda: self._inner.read_last(key, count, before=before))

    async def truncate(
        self, key: ThreadKey, *, start: int | None = None, stop: int | None = None, expected_seq: int | None = None
    ) -> Truncated:
        return await self._around(
            "truncate", lambda: self._inner.truncate(key, start=start, stop=stop, expected_seq=expected_seq)
        )

    async def get_thread(self, key: ThreadKey) -> Thread | None:
        return await self._around("get_thread", lambda: self._inner.get_thread(key))

    async def list_threads(self, tenant: str = "", *, limit: int = 50, cursor: str | None = None) -> Page[Thread]:
        return await self._around("list_threads", lambda: self._inner.list_threads(tenant, limit=limit, cursor=cursor))

    async def update_thread(
        self,
        key: ThreadKey,
        *,
        title: str | None = None,
        metadata: Mapping[str, object] | None = None,
        retention: Retention | Literal["inherit"] | None = None,
        expected_revision: int | None = None,
    ) -> Thread:
        return await self._around(
            "update_thread",
            lambda: self._inner.update_thread(
                key, title=title, metadata=metadata, retention=retention, expected_revision=expected_revision
            ),
        )

    async def delete_thread(self, key: ThreadKey, *, expected_seq: int | None = None) -> bool:
        return await self._around("delete_thread", lambda: self._inner.delete_thread(key, expected_seq=expected_seq))

    async def delete_tenant(self, tenant: str) -> int:
        return await self._around("delete_tenant", lambda: self._inner.delete_tenant(tenant))

    async def get_document(self, key: ThreadKey, name: str) -> Document | None:
        return await self._around("get_document", lambda: self._inner.get_document(key, name))

    async def put_document(
        self, key: ThreadKey, name: str, value: bytes, *, expected_revision: int | None = None
    ) -> Document:
        return await self._around(
            "put_document", lambda: self._inner.put_document(key, name, value, expected_revision=expected_revision)
        )

    async def delete_document(self, key: ThreadKey, name: str) -> bool:
        return await self._around("delete_document", lambda: self._inner.delete_document(key, name))

    async def list_documents(self, key: ThreadKey) -> tuple[str, ...]:
        return await self._around("list_documents", lambda: self._inner.list_documents(key))

"""The base of stores around stores: every call goes through one place, and on to the inner store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, ClassVar, Literal, TypedDict, TypeVar, Unpack

from everthread.contract import (
    Store,
    SupportsCompaction,
    SupportsDiagnosis,
    SupportsImport,
    SupportsReconciling,
    SupportsRewrite,
    SupportsSealing,
    SupportsSearch,
    SupportsShredding,
)
from everthread.errors import UnsupportedError
from everthread.model import (
    Appended,
    Document,
    Drift,
    Fact,
    MessagePage,
    NewMessage,
    Page,
    Retention,
    Rewrite,
    SearchHit,
    Thread,
    ThreadKey,
    Truncated,
)

T = TypeVar("T")

ABILITIES: frozenset[type] = frozenset(
    {
        SupportsCompaction,
        SupportsDiagnosis,
        SupportsImport,
        SupportsReconciling,
        SupportsRewrite,
        SupportsSealing,
        SupportsSearch,
        SupportsShredding,
    }
)
"""What some stores can do and others cannot."""

WRITES = frozenset(
    {
        "append",
        "truncate",
        "update_thread",
        "delete_thread",
        "delete_tenant",
        "put_document",
        "delete_document",
        "rewrite",
        "restore_times",
        "shred_tenant",
    }
)
"""The calls that change something."""


class AppendOptions(TypedDict, total=False):
    """The options of `Store.append`, for wrappers that pass them on."""

    append_id: str | None
    expected_seq: int | None
    retention: Retention | None
    default_title: str | None


class ThreadChanges(TypedDict, total=False):
    """The options of `Store.update_thread`, for wrappers that pass them on."""

    title: str | None
    metadata: Mapping[str, object] | None
    retention: Retention | Literal["inherit"] | None
    expected_revision: int | None


class ForwardingStore(Store):
    """A store that does what another one does.

    It takes the inner store over: opening and closing this one opens and closes that one.

    A subclass overrides `_around` to add the same to every call, `_key` and `_tenant` to say what a name stands for
    in the inner store, or a method to change that one.

    Abilities (``SupportsSearch`` and its like): a wrapper has those of its inner store that its class names in
    `carries`, so ``isinstance(store, SupportsSearch)`` is true exactly if both are able. They are passed on as any
    other call is, and changed by overriding their method. What a class does not name it withholds: an ability that is
    new one day does not go around a wrapper that hides something. Calling what is not carried is an
    `UnsupportedError`. A subclass that can do something by itself has the ability as a base class, as an engine has.
    """

    carries: ClassVar[frozenset[type]] = frozenset()
    """Those of `ABILITIES` that the wrapper has if its inner store has them."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner
        self.__class__ = _able(type(self), frozenset(each for each in self.carries if isinstance(inner, each)))

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

    def _key(self, key: ThreadKey) -> ThreadKey:
        """The thread of the inner store that is meant; raises where there can be none."""
        return key

    def _tenant(self, tenant: str) -> str:
        """The tenant of the inner store that is meant; raises where there can be none."""
        return tenant

    async def open(self) -> None:
        await self._inner.open()

    async def aclose(self) -> None:
        await self._inner.aclose()

    # Messages

    async def append(
        self, key: ThreadKey, messages: Sequence[NewMessage], **options: Unpack[AppendOptions]
    ) -> Appended:
        inner_key = self._key(key)
        return await self._around("append", lambda: self._inner.append(inner_key, messages, **options))

    async def read(
        self, key: ThreadKey, *, start: int = 0, stop: int | None = None, limit: int | None = None
    ) -> MessagePage:
        inner_key = self._key(key)
        return await self._around("read", lambda: self._inner.read(inner_key, start=start, stop=stop, limit=limit))

    async def read_last(self, key: ThreadKey, count: int, *, before: int | None = None) -> MessagePage:
        inner_key = self._key(key)
        return await self._around("read_last", lambda: self._inner.read_last(inner_key, count, before=before))

    async def truncate(
        self, key: ThreadKey, *, start: int | None = None, stop: int | None = None, expected_seq: int | None = None
    ) -> Truncated:
        inner_key = self._key(key)
        return await self._around(
            "truncate", lambda: self._inner.truncate(inner_key, start=start, stop=stop, expected_seq=expected_seq)
        )

    # Threads

    async def get_thread(self, key: ThreadKey) -> Thread | None:
        inner_key = self._key(key)
        return await self._around("get_thread", lambda: self._inner.get_thread(inner_key))

    async def list_threads(self, tenant: str = "", *, limit: int = 50, cursor: str | None = None) -> Page[Thread]:
        of = self._tenant(tenant)
        return await self._around("list_threads", lambda: self._inner.list_threads(of, limit=limit, cursor=cursor))

    async def update_thread(self, key: ThreadKey, **changes: Unpack[ThreadChanges]) -> Thread:
        inner_key = self._key(key)
        return await self._around("update_thread", lambda: self._inner.update_thread(inner_key, **changes))

    async def delete_thread(self, key: ThreadKey, *, expected_seq: int | None = None) -> bool:
        inner_key = self._key(key)
        return await self._around(
            "delete_thread", lambda: self._inner.delete_thread(inner_key, expected_seq=expected_seq)
        )

    async def delete_tenant(self, tenant: str) -> int:
        of = self._tenant(tenant)
        return await self._around("delete_tenant", lambda: self._inner.delete_tenant(of))

    # Documents

    async def get_document(self, key: ThreadKey, name: str) -> Document | None:
        inner_key = self._key(key)
        return await self._around("get_document", lambda: self._inner.get_document(inner_key, name))

    async def put_document(
        self, key: ThreadKey, name: str, value: bytes, *, expected_revision: int | None = None
    ) -> Document:
        inner_key = self._key(key)
        return await self._around(
            "put_document",
            lambda: self._inner.put_document(inner_key, name, value, expected_revision=expected_revision),
        )

    async def delete_document(self, key: ThreadKey, name: str) -> bool:
        inner_key = self._key(key)
        return await self._around("delete_document", lambda: self._inner.delete_document(inner_key, name))

    async def list_documents(self, key: ThreadKey) -> tuple[str, ...]:
        inner_key = self._key(key)
        return await self._around("list_documents", lambda: self._inner.list_documents(inner_key))

    # Abilities

    async def search(self, tenant: str, text: str, *, limit: int = 20, cursor: str | None = None) -> Page[SearchHit]:
        """As `SupportsSearch` says, where it is carried."""
        inner, of = self._inner_that(SupportsSearch), self._tenant(tenant)
        return await self._around("search", lambda: inner.search(of, text, limit=limit, cursor=cursor))

    async def prepare_search(self, *, advance: Callable[[int, int], None] = lambda done, total: None) -> None:
        """As `SupportsSearch` says, where it is carried."""
        inner = self._inner_that(SupportsSearch)
        await self._around("prepare_search", lambda: inner.prepare_search(advance=advance))

    async def rewrite(self, key: ThreadKey, changes: Sequence[Rewrite]) -> int:
        """As `SupportsRewrite` says, where it is carried."""
        inner, inner_key = self._inner_that(SupportsRewrite), self._key(key)
        return await self._around("rewrite", lambda: inner.rewrite(inner_key, changes))

    async def restore_times(self, key: ThreadKey, *, created_at: datetime, updated_at: datetime) -> Thread:
        """As `SupportsImport` says, where it is carried."""
        inner, inner_key = self._inner_that(SupportsImport), self._key(key)
        return await self._around(
            "restore_times", lambda: inner.restore_times(inner_key, created_at=created_at, updated_at=updated_at)
        )

    async def diagnose(self) -> tuple[Fact, ...]:
        """As `SupportsDiagnosis` says, where it is carried."""
        return await self._around("diagnose", self._inner_that(SupportsDiagnosis).diagnose)

    async def probe(self) -> tuple[Fact, ...]:
        """As `SupportsDiagnosis` says, where it is carried."""
        return await self._around("probe", self._inner_that(SupportsDiagnosis).probe)

    async def reconcile(self, tenant: str = "", *, mend: bool = False) -> tuple[Drift, ...]:
        """As `SupportsReconciling` says, where it is carried."""
        inner, of = self._inner_that(SupportsReconciling), self._tenant(tenant)
        return await self._around("reconcile", lambda: inner.reconcile(of, mend=mend))

    async def compact(self, key: ThreadKey) -> None:
        """As `SupportsCompaction` says, where it is carried."""
        inner, inner_key = self._inner_that(SupportsCompaction), self._key(key)
        await self._around("compact", lambda: inner.compact(inner_key))

    async def shred_tenant(self, tenant: str) -> int:
        """As `SupportsShredding` says, where it is carried."""
        inner, of = self._inner_that(SupportsShredding), self._tenant(tenant)
        return await self._around("shred_tenant", lambda: inner.shred_tenant(of))

    async def seal(self, key: ThreadKey, payload: bytes) -> bytes:
        """As `SupportsSealing` says, where it is carried."""
        inner, inner_key = self._inner_that(SupportsSealing), self._key(key)
        return await self._around("seal", lambda: inner.seal(inner_key, payload))

    async def unseal(self, key: ThreadKey, payload: bytes) -> bytes:
        """As `SupportsSealing` says, where it is carried."""
        inner, inner_key = self._inner_that(SupportsSealing), self._key(key)
        return await self._around("unseal", lambda: inner.unseal(inner_key, payload))

    def _wraps(self, kind: type[Store]) -> bool:
        """Whether such a store is somewhere inside."""
        inner = self._inner
        return isinstance(inner, kind) or (isinstance(inner, ForwardingStore) and inner._wraps(kind))

    def _inner_that(self, ability: type[T]) -> T:
        """The inner store, as one that has the ability.

        Raises:
            UnsupportedError: This store does not have it.
        """
        if isinstance(self, ability) and isinstance(self._inner, ability):
            return self._inner
        raise UnsupportedError(f"{self!r} has not the ability {ability.__name__}: ask with isinstance first.")


S = TypeVar("S", bound=ForwardingStore)


@cache
def _able(wrapper: type[S], abilities: frozenset[type]) -> type[S]:
    """The wrapper's class with abilities for further bases; their methods are those that it has already."""
    lacking = sorted((each for each in abilities if not issubclass(wrapper, each)), key=lambda each: each.__name__)
    if not lacking:
        return wrapper
    named = {"__module__": wrapper.__module__, "__qualname__": wrapper.__qualname__, "__doc__": wrapper.__doc__}
    return type(wrapper)(wrapper.__name__, (wrapper, *lacking), named)


if TYPE_CHECKING:

    class _All(  # pyright: ignore[reportUnusedClass] - it is there so that the signatures are compared
        ForwardingStore,
        SupportsCompaction,
        SupportsDiagnosis,
        SupportsImport,
        SupportsReconciling,
        SupportsRewrite,
        SupportsSealing,
        SupportsSearch,
        SupportsShredding,
    ): ...

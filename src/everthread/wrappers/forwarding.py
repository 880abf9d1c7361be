"""Stores around stores: the base class of wrappers, and the views of single tenants."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import wraps
from inspect import signature
from typing import Any, ClassVar, Concatenate, Literal, ParamSpec, TypedDict, TypeVar, cast

from everthread._validation import check_not_reserved
from everthread.capabilities import (
    SupportsCompaction,
    SupportsDiagnosis,
    SupportsImport,
    SupportsReconciling,
    SupportsRewrite,
    SupportsSealing,
    SupportsSearch,
    SupportsTenantList,
    capability,
)
from everthread.contract import Store
from everthread.errors import InvalidIdentifierError, UnsupportedError
from everthread.model import NewMessage, Retention, ThreadKey, check_identifier

T = TypeVar("T")
P = ParamSpec("P")
M = TypeVar("M", bound=Callable[..., Coroutine[Any, Any, Any]])

ABILITIES: frozenset[type] = frozenset(
    {
        SupportsTenantList,
        SupportsCompaction,
        SupportsDiagnosis,
        SupportsImport,
        SupportsReconciling,
        SupportsRewrite,
        SupportsSealing,
        SupportsSearch,
    }
)
"""The abilities that a wrapper can pass on."""

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
        "restore_position",
        "restore_times",
        "shred_tenant",
    }
)
"""The calls that change data."""


class AppendOptions(TypedDict, total=False):
    """The options of `Store.append`, for wrappers."""

    append_id: str | None
    expected_seq: int | None
    retention: Retention | None
    default_title: str | None
    skip_to: int | None


class ThreadChanges(TypedDict, total=False):
    """The options of `Store.update_thread`, for wrappers."""

    title: str | None
    metadata: Mapping[str, object] | None
    retention: Retention | Literal["inherit"] | None
    expected_revision: int | None


def _passed_on(method: M, ability: type | None = None) -> M:
    """Return a method that passes its call to the inner store, with the inner name of its thread or tenant."""
    name = method.__name__
    named = next((each for each in signature(method).parameters.values() if each.name in {"key", "tenant"}), None)

    async def call(self: Any, *args: Any, **options: Any) -> Any:
        inner = self._inner if ability is None else self._inner_that(ability)
        # A call that lacks a required name is passed on like this, and the inner store refuses it.
        if named is not None and (args or named.name in options or named.default is not named.empty):
            first, *rest = args or [options.pop(named.name, named.default)]
            args = (self._key(first) if named.name == "key" else self._tenant(first), *rest)
        return await self._around(name, lambda: getattr(inner, name)(*args, **options))

    call.__qualname__ = f"ForwardingStore.{name}"
    # Not the method's attributes: one says that it is abstract.
    return cast(M, wraps(method, assigned=("__name__", "__doc__"), updated=())(call))


def _ability(
    ability: type, method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]
) -> Callable[Concatenate[ForwardingStore, P], Coroutine[Any, Any, T]]:
    return _passed_on(method, ability)


class ForwardingStore(Store):
    """A store that passes every call to another one. Subclass it to write a wrapper.

    It owns the inner store: opening and closing this one opens and closes that one.

    A subclass overrides `_around` to add the same to every call, `_key` and `_tenant` to map names to those of the
    inner store, or a single method.

    A wrapper has the abilities of `everthread.capabilities` that its class names in `carries`, if the inner store has
    them too; `capability` accounts for both. It passes their calls on like any other. An ability that the class does
    not name is withheld and raises `UnsupportedError`, so that a future ability cannot bypass a wrapper that hides
    something. A subclass that adds an ability has it as a base class, like an engine.
    """

    carries: ClassVar[frozenset[type]] = frozenset()
    """The abilities that the wrapper has if its inner store has them."""

    def __init__(self, inner: Store) -> None:
        self._wrapped = inner

    @property
    def _inner(self) -> Store:
        return self._wrapped

    @property
    def location(self) -> str:
        return self._wrapped.location

    def __repr__(self) -> str:
        return f"<{type(self).__name__} around {self._wrapped!r}>"

    async def _around(self, call: str, proceed: Callable[[], Awaitable[T]]) -> T:
        """Make a call of the inner store. Every call passes here except opening and closing.

        Args:
            call: The method's name.
            proceed: Makes the call on the inner store.
        """
        return await proceed()

    def _key(self, key: ThreadKey) -> ThreadKey:
        """Return the thread of the inner store; raise if there can be none."""
        return key

    def _tenant(self, tenant: str) -> str:
        """Return the tenant of the inner store; raise if there can be none."""
        return tenant

    def supports(self, ability: type) -> bool:
        return super().supports(ability) or (ability in self.carries and self._wrapped.supports(ability))

    def tenant(self, tenant: str) -> TenantStore:
        return TenantStore(self, tenant)

    async def open(self) -> None:
        await self._inner.open()

    async def aclose(self) -> None:
        await self._inner.aclose()

    def abandon(self) -> None:
        self._inner.abandon()

    append = _passed_on(Store.append)
    read = _passed_on(Store.read)
    read_last = _passed_on(Store.read_last)
    truncate = _passed_on(Store.truncate)
    get_thread = _passed_on(Store.get_thread)
    list_threads = _passed_on(Store.list_threads)
    update_thread = _passed_on(Store.update_thread)
    delete_thread = _passed_on(Store.delete_thread)
    delete_tenant = _passed_on(Store.delete_tenant)
    erase_remains = _passed_on(Store.erase_remains)
    get_document = _passed_on(Store.get_document)
    put_document = _passed_on(Store.put_document)
    delete_document = _passed_on(Store.delete_document)
    list_documents = _passed_on(Store.list_documents)

    async def check_append(self, key: ThreadKey, messages: Sequence[NewMessage]) -> None:
        # Not through `_around`: this call does not reach the storage.
        await self._inner.check_append(self._key(key), messages)

    search = _ability(SupportsSearch, SupportsSearch.search)
    prepare_search = _ability(SupportsSearch, SupportsSearch.prepare_search)
    rewrite = _ability(SupportsRewrite, SupportsRewrite.rewrite)
    restore_position = _ability(SupportsImport, SupportsImport.restore_position)
    restore_times = _ability(SupportsImport, SupportsImport.restore_times)
    diagnose = _ability(SupportsDiagnosis, SupportsDiagnosis.diagnose)
    probe = _ability(SupportsDiagnosis, SupportsDiagnosis.probe)
    reconcile = _ability(SupportsReconciling, SupportsReconciling.reconcile)
    list_tenants = _ability(SupportsTenantList, SupportsTenantList.list_tenants)
    compact = _ability(SupportsCompaction, SupportsCompaction.compact)
    shred_tenant = _ability(SupportsSealing, SupportsSealing.shred_tenant)
    seal = _ability(SupportsSealing, SupportsSealing.seal)
    unseal = _ability(SupportsSealing, SupportsSealing.unseal)

    def _wraps(self, kind: type[Store]) -> bool:
        """Return whether this store wraps such a store, directly or not."""
        inner = self._inner
        return isinstance(inner, kind) or (isinstance(inner, ForwardingStore) and inner._wraps(kind))

    def _inner_that(self, ability: type[T]) -> T:
        """Return the inner store as one that has the ability.

        Raises:
            UnsupportedError: This store lacks it.
        """
        inner = capability(self._inner, ability) if self.supports(ability) else None
        if inner is None:
            raise UnsupportedError(f"{self!r} lacks {ability.__name__}: ask with capability() first.")
        return inner


class TenantStore(ForwardingStore):
    """A view of a store that contains one tenant only; made by `Store.tenant`.

    In it the default tenant ``""`` means the view's own, so code that knows nothing of tenants works within one. A key
    of any other tenant raises `InvalidIdentifierError`. Results carry the tenant's real name.

    The view shares the store's connection and never closes it: close the store after its last view was used. A view
    passes search, import and sealing on. Abilities for operators (diagnosis, reconciling, rewriting) belong to the
    store itself.

    Args:
        inner: The store to show a part of.
        tenant: The only tenant of the view.
    """

    carries = frozenset({SupportsImport, SupportsRewrite, SupportsSealing, SupportsSearch})

    def __init__(self, inner: Store, tenant: str) -> None:
        super().__init__(inner)
        self._name = check_identifier(tenant, "tenant", may_be_empty=True)
        check_not_reserved(tenant)

    @property
    def location(self) -> str:
        return f"{self._inner.location} (tenant {self._name!r})"

    def __repr__(self) -> str:
        return f"<TenantStore {self._name!r} of {self._inner!r}>"

    def tenant(self, tenant: str) -> TenantStore:
        self._tenant(tenant)
        return self

    def abandon(self) -> None:
        """Do nothing: another owns the store."""

    async def aclose(self) -> None:
        """Do nothing: the store may have other views."""

    def _key(self, key: ThreadKey) -> ThreadKey:
        if not isinstance(key, ThreadKey):
            raise InvalidIdentifierError(f"A thread is named by a ThreadKey, not by {type(key).__name__}.")
        return key if key.tenant == self._name else ThreadKey(key.thread_id, self._tenant(key.tenant))

    def _tenant(self, tenant: str) -> str:
        if check_identifier(tenant, "tenant", may_be_empty=True) not in {"", self._name}:
            raise InvalidIdentifierError(f"Only tenant {self._name!r} can be reached through this view.")
        return self._name

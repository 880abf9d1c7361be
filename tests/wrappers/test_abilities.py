"""A wrapper has the abilities that its class names and its inner store has, and `capability` finds them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from everthread import InvalidIdentifierError, NewMessage, ThreadKey, UnsupportedError, new_message
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
    required_capability,
)
from everthread.contract import Store
from everthread.engines.memory import MemoryStore
from everthread.engines.sqlite import SqliteStore
from everthread.model import HealthCheck, Inconsistency, Page, Rewrite
from everthread.testing import Fault, FaultyStore
from everthread.wrappers import ABILITIES, AppendOptions, ForwardingStore, ThreadChanges
from everthread.wrappers.encryption.encrypted import Encrypted
from everthread.wrappers.forwarding import TenantStore
from everthread.wrappers.redacted import Redacted
from everthread.wrappers.traced import Traced
from tests.wrappers.sealed_places import KEYRING

KEY = ThreadKey("a", "acme")
OLD, NEW = new_message({"role": "user", "content": "old words"}), new_message({"role": "user", "content": "new words"})
THEN = datetime(2020, 1, 1, tzinfo=UTC)

WRAPPERS: dict[str, Callable[[Store], Store]] = {
    "forwarding": ForwardingStore,
    "traced": Traced,
    "redacted": lambda store: Redacted(store, lambda text: text),
    "faulty": lambda store: FaultyStore(store, []),
    "encrypted": lambda store: Encrypted(store, KEYRING),
    "tenant": lambda store: TenantStore(store, "acme"),
}

OPERATORS = {SupportsCompaction, SupportsDiagnosis, SupportsReconciling, SupportsTenantList}
WITHHELD: dict[str, set[type]] = {
    "forwarding": set(ABILITIES),
    "traced": set(),
    "redacted": set(),
    "faulty": set(),
    "encrypted": {SupportsSearch},
    "tenant": OPERATORS,
}
ADDED: dict[str, set[type]] = {"encrypted": {SupportsDiagnosis, SupportsSealing}}


class CanAll(MemoryStore, SupportsCompaction, SupportsReconciling, SupportsSealing, SupportsSearch):
    """Remembers which abilities were asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Any] = []

    async def search(self, tenant, text, *, limit=20, cursor=None):
        self.asked.append(("search", tenant, text, limit, cursor))
        return Page(())

    async def reconcile(self, tenant="", *, repair=False):
        self.asked.append(("reconcile", tenant, repair))
        return (Inconsistency("counts", 1, repair),)

    async def seal(self, key, payload):
        self.asked.append(("seal", key, payload))
        return b"sealed"

    async def unseal(self, key, payload):
        self.asked.append(("unseal", key, payload))
        return b"unsealed"

    async def probe(self):
        self.asked.append(("probe",))
        return (HealthCheck("probe", "tried"),)

    async def compact(self, key):
        self.asked.append(("compact", key))

    async def list_tenants(self, *, after="", limit=1000):
        self.asked.append(("list_tenants", after, limit))
        return ("acme",)

    async def shred_tenant(self, tenant):
        self.asked.append(("shred_tenant", tenant))
        return 7


class CanNothing(ForwardingStore):
    """A store with the contract and no more."""


def abilities_of(store: Store) -> set[type]:
    return {ability for ability in ABILITIES if capability(store, ability) is not None}


def test_every_ability_of_the_contract_is_thought_of() -> None:
    from everthread import capabilities

    named = {each for name, each in vars(capabilities).items() if name.startswith("Supports")}
    assert named == set(ABILITIES)


@pytest.mark.parametrize("ability", sorted(ABILITIES, key=lambda ability: ability.__name__), ids=lambda a: a.__name__)
def test_every_call_of_an_ability_is_passed_on(ability: type) -> None:
    # One with a default would otherwise be answered by the wrapper itself.
    calls = [name for name, call in vars(ability).items() if inspect.isfunction(call) and not name.startswith("_")]
    assert {getattr(ForwardingStore, name).__qualname__.split(".")[0] for name in calls} == {"ForwardingStore"}


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapper_has_the_abilities_of_its_store_that_it_carries(name: str) -> None:
    assert abilities_of(WRAPPERS[name](CanAll())) == (set(ABILITIES) - WITHHELD[name]) | ADDED.get(name, set())
    assert abilities_of(WRAPPERS[name](CanNothing(CanAll()))) == ADDED.get(name, set())


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrapping_twice_withholds_what_either_withholds(name: str) -> None:
    twice = abilities_of(Traced(WRAPPERS[name](CanAll())))
    assert twice == abilities_of(WRAPPERS[name](CanAll()))


CALLS: dict[type, Callable[[Any], Any]] = {
    SupportsCompaction: lambda store: store.compact(KEY),
    SupportsDiagnosis: lambda store: store.diagnose(),
    SupportsImport: lambda store: store.restore_times(KEY, created_at=THEN, updated_at=THEN),
    SupportsReconciling: lambda store: store.reconcile("acme", repair=True),
    SupportsRewrite: lambda store: store.rewrite(KEY, [Rewrite(0, OLD.payload, NEW.payload)]),
    SupportsSealing: lambda store: store.seal(KEY, b"1"),
    SupportsSearch: lambda store: store.search("acme", "words", limit=3, cursor="c"),
    SupportsTenantList: lambda store: store.list_tenants(after="a", limit=3),
}


@pytest.mark.parametrize("name", WRAPPERS)
@pytest.mark.parametrize("ability", CALLS, ids=lambda ability: ability.__name__)
async def test_what_is_not_carried_cannot_be_called(name: str, ability: type) -> None:
    inner = CanAll()
    await inner.append(KEY, [OLD])
    store = WRAPPERS[name](inner)
    if capability(store, ability) is None:
        with pytest.raises(UnsupportedError):
            await CALLS[ability](store)
        assert inner.asked == []
        assert (await inner.read(KEY))[0].payload == OLD.payload


@pytest.mark.parametrize("name", ["traced", "redacted", "faulty"])
async def test_what_is_carried_reaches_the_inner_store(name: str) -> None:
    inner = CanAll()
    store = WRAPPERS[name](inner)
    await store.append(KEY, [OLD])
    answers = {ability: await CALLS[ability](store) for ability in CALLS}
    assert inner.asked == [
        ("compact", KEY),
        ("reconcile", "acme", True),
        ("seal", KEY, b"1"),
        ("search", "acme", "words", 3, "c"),
        ("list_tenants", "a", 3),
    ]
    assert answers[SupportsReconciling] == (Inconsistency("counts", 1, repaired=True),)
    assert (answers[SupportsRewrite], answers[SupportsSealing], answers[SupportsSearch]) == (1, b"sealed", Page(()))
    assert (await store.read(KEY))[0].payload == NEW.payload
    assert answers[SupportsImport] == await inner.get_thread(KEY)
    assert answers[SupportsDiagnosis] == await inner.diagnose()
    sealing = required_capability(store, SupportsSealing)
    assert (await sealing.unseal(KEY, b"2"), await sealing.shred_tenant("acme")) == (b"unsealed", 7)
    assert await required_capability(store, SupportsDiagnosis).probe() == (HealthCheck("probe", "tried"),)


async def test_faults_happen_in_abilities_too() -> None:
    store = FaultyStore(CanAll(), [Fault.FAIL_BEFORE], calls=["shred_tenant"])
    with pytest.raises(Exception, match="as planned"):
        await store.shred_tenant("acme")
    assert await store.shred_tenant("acme") == 7
    assert store.made == ["shred_tenant"] * 2


# What a wrapper changes


async def test_a_view_searches_within_its_tenant_and_moves_only_its_threads(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "t.db") as inner:
        for tenant in ("acme", "other"):
            await inner.append(ThreadKey("a", tenant), [OLD])
        view = inner.tenant("acme")
        assert abilities_of(view) == {SupportsSearch, SupportsImport, SupportsRewrite}
        assert [hit.key for hit in await view.search("", "words")] == [KEY]
        with pytest.raises(InvalidIdentifierError):
            await view.search("other", "words")
        assert (await view.restore_times(ThreadKey("a"), created_at=THEN, updated_at=THEN)).created_at == THEN
        with pytest.raises(InvalidIdentifierError):
            await view.restore_times(ThreadKey("a", "other"), created_at=THEN, updated_at=THEN)


async def test_what_is_rewritten_goes_through_the_hook_first() -> None:
    inner = MemoryStore()
    store = Redacted(inner, lambda text: text.replace("new", "***"))
    await store.append(KEY, [OLD])
    assert await store.rewrite(KEY, [Rewrite(0, OLD.payload, NEW.payload)]) == 1
    assert b'"*** words"' in (await inner.read(KEY))[0].payload


async def test_what_is_rewritten_is_sealed_with_the_tenants_key() -> None:
    inner = MemoryStore()
    store = Encrypted(inner, KEYRING)
    await store.append(KEY, [OLD] * 3)
    assert await store.rewrite(KEY, [Rewrite(1, OLD.payload, NEW.payload), Rewrite(2, NEW.payload, NEW.payload)]) == 1
    assert [message.payload for message in await store.read(KEY)] == [OLD.payload, NEW.payload, OLD.payload]
    assert all(b"words" not in message.payload for message in await inner.read(KEY))


async def test_a_message_that_is_sealed_anew_meanwhile_is_rewritten_all_the_same() -> None:
    class Rotates(ForwardingStore):
        carries = ABILITIES
        is_done = False

        async def rewrite(self, key, changes):
            if not self.is_done:
                self.is_done = True
                other = Encrypted(inner, KEYRING)
                await other.keys.rotate(key.tenant)
                await other.rewrap_thread(key)
            return await super().rewrite(key, changes)

    inner = MemoryStore()
    store = Encrypted(Rotates(inner), KEYRING)
    await store.append(KEY, [OLD] * 3)
    changes = [Rewrite(seq, OLD.payload, NEW.payload) for seq in (0, 2)] + [Rewrite(1, OLD.payload, OLD.payload)]
    assert await store.rewrite(KEY, changes) == 3
    assert [message.payload for message in await store.read(KEY)] == [NEW.payload, OLD.payload, NEW.payload]


async def test_an_ability_is_refused_on_the_tenant_of_keys() -> None:
    store = Encrypted(CanAll(), KEYRING)
    for call in (store.rewrite(ThreadKey("x", "everthread:keys"), []), store.reconcile("everthread:keys")):
        with pytest.raises(InvalidIdentifierError):
            await call


# Wrappers of one's own


class Shouting(ForwardingStore):
    """Finds what is asked for in capitals; knows nothing of the other abilities."""

    carries = frozenset({SupportsSearch})

    async def search(self, tenant, text, **options):
        return await super().search(tenant, text.upper(), **options)


async def test_a_wrapper_withholds_abilities_that_it_does_not_name() -> None:
    inner = CanAll()
    store = Shouting(inner)
    assert abilities_of(store) == {SupportsSearch}
    await store.search("acme", "words")
    assert inner.asked == [("search", "acme", "WORDS", 20, None)]


@pytest.mark.parametrize(("options", "method"), [(AppendOptions, "append"), (ThreadChanges, "update_thread")])
def test_the_options_of_a_wrapper_are_those_of_the_contract(options: type, method: str) -> None:
    parameters = inspect.signature(getattr(Store, method)).parameters.values()
    assert set(options.__annotations__) == {each.name for each in parameters if each.kind is each.KEYWORD_ONLY}


async def test_an_option_that_no_store_has_is_refused() -> None:
    with pytest.raises(TypeError):
        await ForwardingStore(MemoryStore()).append(KEY, [NewMessage(b"1")], unknown=1)  # pyright: ignore


@pytest.mark.parametrize("wrapper", WRAPPERS)
async def test_a_call_without_a_required_name_deletes_nothing(wrapper: str) -> None:
    async with MemoryStore() as inner:
        await inner.append(ThreadKey("a"), [OLD])
        await inner.append(KEY, [OLD])
        store: Any = WRAPPERS[wrapper](inner)
        for call in (store.delete_tenant, store.delete_thread, store.read):
            with pytest.raises(TypeError, match="required positional argument"):
                await call()
        assert len(await inner.list_threads()) == len(await inner.list_threads("acme")) == 1

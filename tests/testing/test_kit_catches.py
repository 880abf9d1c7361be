"""The conformance kit can fail: each of these stores breaks one guarantee, and the kit's test for it says so."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import pkgutil
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, ClassVar, Self

import msgspec
import pytest
from hypothesis import Phase, settings

from everthread.contract import Store
from everthread.engines.memory import MemoryStore, Threads
from everthread.errors import ConflictError, StoreUnavailableError
from everthread.model import Page, Retention, ThreadKey
from everthread.testing import (
    Clock,
    CostSuite,
    Harness,
    MeteredHarness,
    ProcessHarness,
    ProcessSuite,
    SecretHarness,
    SecretSuite,
    StoreContractSuite,
    guarantees,
)
from everthread.testing.guarantees._base import GuaranteeTests
from everthread.wrappers.forwarding import ForwardingStore
from tests.testing.mutants import LosesAnAppend


class DropsRepeats(ForwardingStore):
    """Takes a message that equals the one before it for a retry."""

    async def append(self, key, messages, **options):
        last = await self._inner.read_last(key, 2)
        known = {m.payload for m in last}
        fresh = [m for m in messages if m.payload not in known]
        return await self._inner.append(key, fresh, **options) if fresh else None


class WritesOneByOne(ForwardingStore):
    """Writes a turn message by message."""

    async def append(self, key, messages, *, append_id=None, expected_seq=None, **options):
        first = None
        for at, message in enumerate(messages):
            part_id = None if append_id is None else f"{append_id}-{at}"
            done = await self._inner.append(key, [message], append_id=part_id, expected_seq=expected_seq, **options)
            expected_seq, first = None, done.first_seq if first is None else first
            await asyncio.sleep(0)
        return msgspec.structs.replace(done, first_seq=first)


class TrimsAfterwards(ForwardingStore):
    """Trims in a second step."""

    async def append(self, key, messages, *, retention=None, **options):
        done = await self._inner.append(key, messages, **options)
        await asyncio.sleep(0)
        thread = await self._inner.get_thread(key)
        if retention and retention.max_messages is not None and thread.count > retention.max_messages:
            await self._inner.truncate(key, start=thread.next_seq - retention.max_messages)
        return done


class ReusesPositions(MemoryStore):
    """Gives the positions of a dropped tail again."""

    async def _truncate(self, key, start, stop, expected_seq=None):
        done = await super()._truncate(key, start, stop, expected_seq)
        log = self._threads[key]
        log.next_seq = log.messages[-1].seq + 1 if log.messages else 0
        return msgspec.structs.replace(done, next_seq=log.next_seq)


class LosesAppendIds(ForwardingStore):
    """Takes every append for a new one."""

    async def append(self, key, messages, *, append_id=None, **options):
        return await self._inner.append(key, messages, **options)


class ForgetsIdsSoon(MemoryStore):
    """Remembers the newest hundred ids."""

    async def _append(self, request):
        done = await super()._append(request)
        appends = self._threads[request.key].appends
        while len(appends) > 100:
            del appends[next(iter(appends))]
        return done


class ForgetsTrimmedIds(MemoryStore):
    """Remembers only the ids of messages that are kept."""

    async def _append(self, request):
        done = await super()._append(request)
        log = self._threads[request.key]
        log.appends = {i: a for i, a in log.appends.items() if a.next_seq > log.head_seq}
        return done


class TrimsBlindly(MemoryStore):
    """Keeps exactly so many messages, whatever they are."""

    async def _append(self, request):
        if (log := self._threads.get(request.key)) is not None:
            log.spans.clear()
            log.open_calls.clear()
        return await super()._append(msgspec.structs.replace(request, links=type(request.links)()))


class KeepsAllForZero(ForwardingStore):
    """Takes ``max_messages=0`` for no limit."""

    async def append(self, key, messages, *, retention=None, **options):
        return await self._inner.append(key, messages, retention=retention if _limit(retention) else None, **options)


class IgnoresExpectedSeq(ForwardingStore):
    """Appends wherever the thread ends."""

    async def append(self, key, messages, *, expected_seq=None, **options):
        return await self._inner.append(key, messages, **options)


class WritesBeforeTheConflict(ForwardingStore):
    """Notices the conflict when it has written."""

    async def append(self, key, messages, *, expected_seq=None, **options):
        done = await self._inner.append(key, messages, **options)
        if expected_seq is not None and done.first_seq != expected_seq:
            raise ConflictError("too late", done.first_seq)
        return done


class EncodesAgain(ForwardingStore):
    """Stores what the payload means and not what it is."""

    async def append(self, key, messages, **options):
        turn = [msgspec.structs.replace(m, payload=json.dumps(json.loads(m.payload)).encode()) for m in messages]
        return await self._inner.append(key, turn, **options)


class JoinsNames(ForwardingStore):
    """Makes one name of tenant and thread with a colon between them."""


def _with_joined_names(name: str) -> Callable[..., Awaitable[Any]]:
    async def method(self: JoinsNames, key: ThreadKey, *arguments: Any, **options: Any) -> Any:
        joined = ThreadKey(f"{key.tenant}:{key.thread_id}")
        return await getattr(super(JoinsNames, self), name)(joined, *arguments, **options)

    return method


_with_keys = "append read read_last truncate get_thread update_thread delete_thread"
for _name in (*_with_keys.split(), "get_document", "put_document", "delete_document", "list_documents"):
    setattr(JoinsNames, _name, _with_joined_names(_name))


class DeletesByPrefix(MemoryStore):
    """Deletes every tenant whose name begins so."""

    async def _delete_tenant(self, tenant):
        return sum([await self._delete_thread(k) for k in list(self._threads) if k.tenant.startswith(tenant)])


class ShowsContent(ForwardingStore):
    """Quotes the message in its errors."""

    async def append(self, key, messages, **options):
        try:
            return await self._inner.append(key, messages, **options)
        except ConflictError as error:
            raise ConflictError(f"could not store {messages[0].payload!r}", error.actual) from None


class RemembersWhatItSaw(ForwardingStore):
    """Answers from what it read the last time."""

    def __init__(self, inner):
        super().__init__(inner)
        self._seen = {}

    async def get_thread(self, key):
        if key not in self._seen:
            self._seen[key] = await self._inner.get_thread(key)
        return self._seen[key]


class LetsDriverErrorsOut(ForwardingStore):
    """Does not check what it is given."""

    async def read(self, key, *, start=0, stop=None, limit=None):
        return await self._inner.read(key, start=max(start, 0), stop=stop, limit=limit)


class GoesOnWhenClosed(ForwardingStore):
    """Does not know that it was closed."""

    async def aclose(self): ...


class ReadsOffByOne(ForwardingStore):
    """Leaves the message at ``before`` in."""

    async def read_last(self, key, count, *, before=None):
        return await self._inner.read_last(key, count, before=before and min(before + 1, 2**53 - 1))


class PagesByTimeAlone(ForwardingStore):
    """Goes on after the time of the last thread and so passes over those of the same moment."""

    async def list_threads(self, tenant="", *, limit=50, cursor=None):
        threads = (await self._inner.list_threads(tenant, limit=1000)).items
        left = [t for t in threads if cursor is None or t.updated_ms < int(cursor)][:limit]
        return Page(tuple(left), str(left[-1].updated_ms) if len(left) == limit else None)


class NeverExpires(ForwardingStore):
    """Takes no notice of ``expire_after``."""

    async def append(self, key, messages, *, retention=None, **options):
        kept = None if retention is None else Retention(retention.max_messages)
        return await self._inner.append(key, messages, retention=kept, **options)


class ExpiresForGood(MemoryStore):
    """Does not lift the expiry with a later append."""

    async def _append(self, request):
        log = self._threads.get(request.key)
        before = None if log is None else log.expires_ms
        done = await super()._append(request)
        log = self._threads[request.key]
        log.expires_ms = before or log.expires_ms
        return done


class ForgetsDocumentsWithMessages(ForwardingStore):
    """Keeps documents of a deleted thread, and so gives them to the next of that name."""

    async def delete_thread(self, key):
        kept = [await self._inner.get_document(key, name) for name in await self._inner.list_documents(key)]
        existed = await self._inner.delete_thread(key)
        for document in kept:
            await self._inner.put_document(key, document.name, document.value)
        return existed


class CountsWrong(MemoryStore):
    """Forgets to take trimmed messages off the size."""

    async def _get_thread(self, key):
        thread = await super()._get_thread(key)
        return thread and msgspec.structs.replace(thread, size=thread.size + thread.head_seq)


class SharesOneAnswer(ForwardingStore):
    """Leaves its lock taken when a call is cancelled."""

    def __init__(self, inner):
        super().__init__(inner)
        self._busy = False

    async def _around(self, call: str, proceed: Callable[[], Awaitable[Any]]) -> Any:
        if self._busy:
            raise StoreUnavailableError("still busy")
        self._busy = True
        await asyncio.sleep(0)
        answer = await proceed()
        self._busy = False
        return answer


class BrokenHarness(ProcessHarness):
    def __init__(self, broken: type[Store]) -> None:
        self.broken = broken
        self.threads: Threads = {}

    def open(self, **options: Any) -> Store:
        if issubclass(self.broken, MemoryStore):
            return self.broken(self.threads, **options)
        return self.broken(MemoryStore(self.threads, **options))

    def another(self) -> Self:
        return type(self)(self.broken)

    def opener(self) -> Callable[[], Store]:
        return self.open


class ForgetsAtTheEnd(BrokenHarness):
    """Each store has threads of its own."""

    def open(self, **options: Any) -> Store:
        return MemoryStore({}, **options)


BROKEN: list[tuple[type[Store], str, dict[str, Any]]] = [
    (DropsRepeats, "test_a_genuine_repeat_is_kept_twice", {}),
    (WritesOneByOne, "test_a_reader_never_sees_half_a_turn", {}),
    (WritesOneByOne, "test_concurrent_tasks_do_not_interleave", {"writers": 2}),
    (WritesOneByOne, "test_two_stores_do_not_interleave", {}),
    (WritesOneByOne, "test_a_cancelled_append_is_whole_or_absent", {"retention": None}),
    (WritesOneByOne, "test_an_append_cancelled_at_any_time_is_whole_or_absent", {}),
    (WritesOneByOne, "test_a_failed_append_leaves_those_sent_with_it_whole", {}),
    (TrimsAfterwards, "test_a_reader_never_sees_more_than_retention_keeps", {}),
    (LosesAnAppend, "test_two_stores_do_not_interleave", {}),
    (ReusesPositions, "test_positions_of_a_dropped_tail_are_not_given_again", {}),
    (ReusesPositions, "test_positions_go_on_after_everything_was_dropped", {}),
    (LosesAppendIds, "test_a_repeated_append_takes_effect_once", {}),
    (LosesAppendIds, "test_the_same_id_at_the_same_time_takes_effect_once", {}),
    (LosesAppendIds, "test_a_repeat_is_no_activity", {}),
    (ForgetsIdsSoon, "test_the_newest_thousand_ids_are_known", {}),
    (ForgetsTrimmedIds, "test_an_id_is_known_after_its_messages_were_trimmed", {}),
    (ForgetsTrimmedIds, "test_an_id_is_known_where_nothing_is_kept", {}),
    (TrimsBlindly, "test_a_result_is_not_cut_from_its_call", {"keep": 2, "left": [3]}),
    (TrimsBlindly, "test_trimming_keeps_a_call_with_its_result", {"case": "a result in a later turn"}),
    (TrimsBlindly, "test_trimming_keeps_a_call_with_its_result", {"case": "parallel calls, dropped"}),
    (TrimsBlindly, "test_trimming_keeps_a_call_with_its_result", {"case": "a result without a call"}),
    (TrimsBlindly, "test_truncating_the_head_moves_up", {}),
    (TrimsBlindly, "test_truncating_the_tail_moves_down", {}),
    (TrimsBlindly, "test_no_trimming_separates_a_result_from_its_call", {}),
    (KeepsAllForZero, "test_plain_messages_are_kept_exactly", {"keep": 0}),
    (IgnoresExpectedSeq, "test_another_position_is_refused_and_nothing_is_written", {}),
    (IgnoresExpectedSeq, "test_of_many_that_expect_one_position_one_wins", {}),
    (WritesBeforeTheConflict, "test_another_position_is_refused_and_nothing_is_written", {}),
    (EncodesAgain, "test_payloads_come_back_byte_for_byte", {}),
    (JoinsNames, "test_look_alikes_are_apart", {"mine": ThreadKey("b:c", "a"), "theirs": ThreadKey("c", "a:b")}),
    (DeletesByPrefix, "test_no_key_reaches_the_data_of_another", {}),
    (DeletesByPrefix, "test_look_alikes_are_apart", {"mine": ThreadKey("a", ""), "theirs": ThreadKey("a", "a")}),
    (DeletesByPrefix, "test_deleting_a_tenant_forgets_its_threads_alone", {}),
    (ShowsContent, "test_no_error_shows_content", {}),
    (RemembersWhatItSaw, "test_a_thread_tells_its_count_and_size", {}),
    (RemembersWhatItSaw, "test_it_matches_the_memory_engine", {}),
    (LetsDriverErrorsOut, "test_a_count_that_is_none_is_refused", {"call": "read start"}),
    (GoesOnWhenClosed, "test_a_closed_store_refuses_every_call", {"call": "read"}),
    (ReadsOffByOne, "test_reading_the_last_takes_a_count_and_an_end", {}),
    (ReadsOffByOne, "test_it_matches_the_memory_engine", {}),
    (PagesByTimeAlone, "test_pages_show_each_thread_once", {"limit": 2}),
    (NeverExpires, "test_a_thread_tells_when_it_expires", {}),
    (ExpiresForGood, "test_an_append_without_expiry_lifts_it", {}),
    (ForgetsDocumentsWithMessages, "test_deleting_forgets_everything_and_may_be_repeated", {}),
    (CountsWrong, "test_a_thread_tells_its_count_and_size", {}),
    (CountsWrong, "test_it_matches_the_memory_engine", {}),
    (SharesOneAnswer, "test_a_cancelled_append_harms_none_that_is_sent_with_it", {}),
    (SharesOneAnswer, "test_a_cancelled_call_takes_effect_or_does_not", {"call": "read"}),
]


def run_kit_test(suite: type, name: str, harness: Harness, arguments: dict[str, Any]) -> None:
    """Runs one test of the kit as pytest would."""
    test = getattr(suite(), name)
    wanted = inspect.signature(test).parameters
    clock = Clock()
    stores = {"store": harness.open(), "other_store": harness.open(), "timed": harness.open(clock=clock)}
    given = {"harness": harness, "clock": clock, **stores, **arguments}
    running = test(**{parameter: given[parameter] for parameter in wanted})
    if running is not None:
        asyncio.run(running)


@pytest.fixture
def no_shrinking() -> Iterator[None]:
    """That a test fails is what is wanted here, not how little makes it fail."""
    settings.register_profile("no shrinking", phases=[Phase.explicit, Phase.generate])
    settings.load_profile("no shrinking")
    yield
    settings.load_profile("default")


@pytest.mark.usefixtures("no_shrinking")
@pytest.mark.parametrize(("broken", "name", "arguments"), BROKEN, ids=lambda value: getattr(value, "__name__", None))
def test_a_broken_store_is_caught(broken: type[Store], name: str, arguments: dict[str, Any]) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception, ExceptionGroup, StoreUnavailableError)):
        run_kit_test(StoreContractSuite, name, BrokenHarness(broken), arguments)


def test_threads_that_end_with_their_store_are_caught() -> None:
    with pytest.raises(AssertionError):
        run_kit_test(ProcessSuite, "test_a_thread_outlives_its_store", ForgetsAtTheEnd(MemoryStore), {})


class GrowsWithUndos(ForwardingStore):
    """Sends the holes of a thread with each append."""

    holes: ClassVar[Counter[ThreadKey]] = Counter()
    sent = 0

    async def append(self, key, messages, **options):
        GrowsWithUndos.sent += 100 + 4 * self.holes[key]
        return await self._inner.append(key, messages, **options)

    async def truncate(self, key, **options):
        self.holes[key] += 1
        return await self._inner.truncate(key, **options)


class GrowingHarness(BrokenHarness, MeteredHarness):
    async def traffic(self) -> int:
        return GrowsWithUndos.sent


def test_a_cost_that_grows_with_undos_is_caught() -> None:
    with pytest.raises(AssertionError):
        run_kit_test(CostSuite, "test_undos_do_not_grow_the_cost_of_an_append", GrowingHarness(GrowsWithUndos), {})


class Talkative(ForwardingStore):
    """Names its password where it says where it is."""

    @property
    def location(self) -> str:
        return "mine://user:s3cret@host"


class TalkativeHarness(BrokenHarness, SecretHarness):
    secret = "s3cret"

    def open_unreachable(self) -> Store:
        return self.open()


def test_a_password_that_shows_is_caught() -> None:
    with pytest.raises(AssertionError):
        run_kit_test(SecretSuite, "test_no_repr_and_no_location_shows_the_secret", TalkativeHarness(Talkative), {})


def test_no_two_guarantees_name_a_test_alike() -> None:
    # In a class that joins their suites the one would silently take the other's place.
    owners: dict[str, set[str]] = {}
    for module in pkgutil.iter_modules(guarantees.__path__, f"{guarantees.__name__}."):
        for kind in vars(importlib.import_module(module.name)).values():
            if inspect.isclass(kind) and issubclass(kind, GuaranteeTests):
                for name in vars(kind):
                    owners.setdefault(name, set()).add(kind.__qualname__)
    doubled = {name: who for name, who in owners.items() if name.startswith("test_") and len(who) > 1}
    assert len(owners) > 200
    assert doubled == {}


def _limit(retention: Retention | None) -> int | None:
    return None if retention is None else retention.max_messages

"""Summaries: what they cover, what is handed to a model, and that nothing is lost by them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everthread import ConfigurationError, NewMessage, Store, ThreadKey, ThreadNotFoundError
from everthread.engines.memory import MemoryStore
from everthread.errors import CorruptRecordError, SummaryError
from everthread.messages.codec import view
from everthread.messages.token_counts import guess_tokens, tiktoken_counter
from everthread.operations.summarize import (
    SUMMARY_DOCUMENT,
    Summary,
    SummaryPolicy,
    get_summary,
    plan_summary,
    read_window,
    summarize,
)
from everthread.testing.faults import Fault, FaultyStore
from everthread.wrappers.forwarding import WRITES
from tests.meanwhile import Meanwhile
from tests.operations.threads import KEY, answering, calling, everything, positions, said

ONE_TURN = SummaryPolicy(keep_turns=1)


class Echo:
    """A model whose summary is what it was told before and the texts that it is told now."""

    def __init__(self) -> None:
        self.requests: list[str] = []

    async def __call__(self, request: str) -> str:
        self.requests.append(request)
        before = re.search(r"<summary of what came before>\n(.*)\n</summary", request, re.DOTALL)
        told = re.search(r"<conversation>\n(.*)\n</conversation>", request, re.DOTALL)
        assert told is not None
        return " ".join([*([before[1]] if before else []), *re.findall(r"user: (\w+)", told[1])]) or "."


async def talk(store: Store, *words: str) -> None:
    for word in words:
        await store.append(KEY, [said(word), said("yes", "assistant")])


def texts(messages: Sequence[Any]) -> list[str]:
    return [view(message).text for message in messages]


async def test_all_but_the_newest_turns_are_covered_and_stay_readable(store: Store) -> None:
    await talk(store, "a", "b", "c", "d")
    before = await positions(store)
    summary = await summarize(store, KEY, Echo(), SummaryPolicy(keep_turns=2))
    assert summary is not None
    assert (summary.start, summary.stop, summary.messages, summary.text) == (0, 4, 4, "a b")
    window = await read_window(store, KEY)
    assert window.summary == summary == await get_summary(store, KEY)
    assert texts(window.page.messages) == ["c", "yes", "d", "yes"]
    assert await positions(store) == before


async def test_a_summary_grows_out_of_the_one_before(store: Store) -> None:
    await talk(store, "a", "b", "c")
    await summarize(store, KEY, Echo(), SummaryPolicy(keep_turns=1))
    await talk(store, "d", "e")
    model = Echo()
    summary = await summarize(store, KEY, model, SummaryPolicy(keep_turns=1))
    assert summary is not None
    assert (summary.start, summary.stop, summary.messages, summary.text) == (0, 8, 8, "a b c d")
    assert "user: a" not in model.requests[0]


@pytest.mark.parametrize(
    ("policy", "is_due"),
    [
        (SummaryPolicy(max_messages=8, keep_turns=1), False),
        (SummaryPolicy(max_messages=7, keep_turns=1), True),
        (SummaryPolicy(max_tokens=1000, keep_turns=1), False),
        (SummaryPolicy(max_tokens=10, keep_turns=1), True),
        (SummaryPolicy(max_messages=1, keep_turns=4), False),
        (SummaryPolicy(max_messages=1, keep_turns=0), True),
    ],
)
async def test_the_policy_says_when(store: Store, policy: SummaryPolicy, is_due: bool) -> None:
    await talk(store, "a", "b", "c", "d")
    plan = await plan_summary(store, KEY, policy)
    assert (await summarize(store, KEY, Echo(), policy) is not None) == is_due == (plan is not None)


async def test_a_plan_predicts_the_run(store: Store) -> None:
    await talk(store, "a", "b", "c", "d")
    plan = await plan_summary(store, KEY, SummaryPolicy(keep_turns=1), count_tokens=lambda _: 5)
    assert plan is not None
    assert (plan.start, plan.stop, plan.messages, plan.tokens) == (0, 6, 6, 30)
    assert await get_summary(store, KEY) is None


async def test_a_thread_without_a_summary_is_handed_over_whole(store: Store) -> None:
    await talk(store, "a", "b")
    window = await read_window(store, KEY)
    assert (window.summary, texts(window.page.messages)) == (None, ["a", "yes", "b", "yes"])
    assert (await read_window(store, ThreadKey("unknown"))).page.messages == ()


async def test_a_long_thread_is_summarised_piece_by_piece(store: Store) -> None:
    words = [f"w{number}" for number in range(30)]
    await talk(store, *words)
    model, kept = Echo(), list[Summary]()
    summary = await summarize(
        store, KEY, model, SummaryPolicy(keep_turns=1), piece_tokens=10, count_tokens=lambda _: 1, on_piece=kept.append
    )
    assert summary is not None
    assert summary.text == " ".join(words[:-1])
    assert [piece.stop for piece in kept] == [10, 20, 30, 40, 50, 58]
    assert all(piece.goal == 58 for piece in kept)
    assert len(model.requests) == 6


# Never an orphaned tool result


async def test_a_call_is_not_cut_from_its_result(store: Store) -> None:
    await talk(store, "a")
    await store.append(KEY, [said("b"), calling("c1")])
    await store.append(KEY, [answering("c1"), said("done", "assistant")])
    summary = await summarize(store, KEY, Echo(), SummaryPolicy(keep_turns=1))
    assert summary is not None
    assert summary.stop == 3


async def test_a_result_of_a_covered_call_is_left_out(store: Store) -> None:
    await store.append(KEY, [said("a"), calling("late")])
    await talk(store, "b", "c")
    await summarize(store, KEY, Echo(), SummaryPolicy(keep_turns=1))
    await store.append(KEY, [answering("late"), said("d")])
    assert texts((await read_window(store, KEY)).page.messages) == ["c", "yes", "d"]


_ids = st.sampled_from(["c1", "c2"])
_messages = st.one_of(
    st.sampled_from(["a", "b"]).map(said),
    st.lists(_ids, min_size=1, max_size=2, unique=True).map(lambda ids: calling(*ids)),
    _ids.map(answering),
)
_threads = st.lists(st.lists(_messages, min_size=1, max_size=4), min_size=1, max_size=8)


@given(_threads, _threads, st.integers(0, 4), st.integers(1, 8))
async def test_a_window_has_no_result_without_its_call(
    first: list[list[NewMessage]], then: list[list[NewMessage]], keep: int, piece: int
) -> None:
    store = MemoryStore()
    for turn in first:
        await store.append(KEY, turn)
    await summarize(store, KEY, Echo(), SummaryPolicy(keep_turns=keep), piece_tokens=piece, count_tokens=lambda _: 1)
    for turn in then:
        await store.append(KEY, turn)
    window = await read_window(store, KEY)
    if window.summary is not None:
        called: set[str] = set()
        for message in window.page:
            seen = view(message)
            called.update(call.id for call in seen.calls)
            assert called.issuperset(result.id for result in seen.results)
    told = "" if window.summary is None else re.sub("[ .]", "", window.summary.text)
    whole = "".join(text for text in texts(list(await store.read(KEY))) if text)
    assert told + "".join(texts(window.page.messages)) == whole


# What was undone, dropped, deleted


async def test_a_summary_of_undone_messages_is_ignored_and_replaced(store: Store) -> None:
    await talk(store, "a", "b", "c")
    await summarize(store, KEY, Echo(), SummaryPolicy(keep_turns=1))
    await store.truncate(KEY, stop=2)
    await talk(store, "x", "y")
    assert texts((await read_window(store, KEY)).page.messages) == ["a", "yes", "x", "yes", "y", "yes"]
    summary = await summarize(store, KEY, Echo(), SummaryPolicy(keep_turns=1))
    assert summary is not None
    assert summary.text == "a x"


async def test_undo_of_uncovered_messages_leaves_the_summary(store: Store) -> None:
    await talk(store, "a", "b", "c")
    summary = await summarize(store, KEY, Echo(), SummaryPolicy(keep_turns=1))
    await store.truncate(KEY, stop=4)
    window = await read_window(store, KEY)
    assert (window.summary, window.page.messages) == (summary, ())


async def test_the_summary_outlives_trimmed_messages(store: Store) -> None:
    await talk(store, "a", "b", "c")
    summary = await summarize(store, KEY, Echo(), SummaryPolicy(keep_turns=1))
    await store.truncate(KEY, start=5)
    window = await read_window(store, KEY)
    assert (window.summary, texts(window.page.messages)) == (summary, ["yes"])


async def test_a_thread_that_was_emptied_has_no_summary(store: Store) -> None:
    await talk(store, "a", "b", "c")
    await summarize(store, KEY, Echo(), SummaryPolicy(keep_turns=1))
    await store.truncate(KEY, stop=0)
    assert await get_summary(store, KEY) is None


async def test_a_thread_deleted_during_the_request_stays_deleted(store: Store) -> None:
    async def deleting(request: str) -> str:
        await store.delete_thread(KEY)
        return "summary"

    await talk(store, "a", "b")
    with pytest.raises(ThreadNotFoundError):
        await summarize(store, KEY, deleting, SummaryPolicy(keep_turns=1))
    assert await store.get_thread(KEY) is None


async def test_a_thread_deleted_at_the_last_moment_stays_deleted(store: Store) -> None:
    await talk(store, "a", "b")
    with pytest.raises(ThreadNotFoundError):
        await summarize(Meanwhile(store, "put_document", lambda: store.delete_thread(KEY)), KEY, Echo(), ONE_TURN)
    assert await store.get_thread(KEY) is None
    assert list(await store.list_threads()) == []


async def test_a_thread_created_again_gets_no_old_summary(store: Store) -> None:
    async def begin_anew() -> None:
        await store.delete_thread(KEY)
        await store.put_document(KEY, "notes", b"{}")

    await talk(store, "a", "b")
    with pytest.raises(ThreadNotFoundError):
        await summarize(Meanwhile(store, "put_document", begin_anew), KEY, Echo(), ONE_TURN)
    assert await store.list_documents(KEY) == ("notes",)
    assert await get_summary(store, KEY) is None


# At the same time, and broken off


async def test_an_append_while_the_model_writes_is_kept(store: Store) -> None:
    async def interrupted(request: str) -> str:
        await talk(store, "meanwhile")
        return await Echo()(request)

    await talk(store, "a", "b")
    await summarize(store, KEY, interrupted, SummaryPolicy(keep_turns=1))
    assert texts((await read_window(store, KEY)).page.messages) == ["b", "yes", "meanwhile", "yes"]


async def test_of_two_concurrent_runs_the_first_wins(store: Store) -> None:
    both = asyncio.Barrier(2)

    async def together(request: str) -> str:
        await both.wait()
        return "summary"

    await talk(store, "a", "b")
    policy = SummaryPolicy(keep_turns=1)
    first, second = await asyncio.gather(*(summarize(store, KEY, together, policy) for _ in range(2)))
    assert first == second == await get_summary(store, KEY)
    document = await store.get_document(KEY, SUMMARY_DOCUMENT)
    assert document is not None
    assert document.revision == 1


@pytest.mark.parametrize("fault", [Fault.FAIL_BEFORE, Fault.FAIL_AFTER, Fault.CANCEL_BEFORE, Fault.CANCEL_AFTER])
@pytest.mark.parametrize("at", range(6))
async def test_a_run_interrupted_at_any_write_can_be_repeated(fault: Fault, at: int) -> None:
    policy = SummaryPolicy(max_messages=50, keep_turns=1)
    options: dict[str, Any] = {"piece_tokens": 10, "count_tokens": lambda _: 1}

    async def filled() -> MemoryStore:
        store = MemoryStore()
        await talk(store, *(f"w{number}" for number in range(30)))
        return store

    undisturbed, broken = await filled(), await filled()
    await summarize(undisturbed, KEY, Echo(), policy, **options)
    faulty = FaultyStore(broken, [*[None] * at, fault], calls=WRITES)
    with pytest.raises((Exception, asyncio.CancelledError)):
        await asyncio.ensure_future(summarize(faulty, KEY, Echo(), policy, **options))
    await summarize(broken, KEY, Echo(), policy, **options)
    assert await get_summary(broken, KEY) == await get_summary(undisturbed, KEY)
    assert await everything(broken) == await everything(undisturbed)


async def test_a_failing_model_changes_nothing(store: Store) -> None:
    async def failing(request: str) -> str:
        raise OSError("no model")

    async def silent(request: str) -> str:
        return " \n"

    await talk(store, "a", "b")
    with pytest.raises(OSError, match="no model"):
        await summarize(store, KEY, failing, SummaryPolicy(keep_turns=1))
    with pytest.raises(SummaryError):
        await summarize(store, KEY, silent, SummaryPolicy(keep_turns=1))
    assert await store.list_documents(KEY) == ()


# Bad input, discretion, tokens


async def test_a_document_that_is_no_summary_is_an_error(store: Store) -> None:
    await talk(store, "a")
    for value in (b"{}", b'{"start":3,"stop":1,"goal":1,"messages":1,"text":"secret","mark":""}', b"[]"):
        await store.put_document(KEY, SUMMARY_DOCUMENT, value)
        with pytest.raises(CorruptRecordError, match="no summary") as caught:
            await read_window(store, KEY)
        assert "secret" not in str(caught.value)


async def test_impossible_arguments_are_refused(store: Store) -> None:
    with pytest.raises(ThreadNotFoundError):
        await summarize(store, ThreadKey("unknown"), Echo())
    for wrong in ({"max_messages": -1}, {"max_tokens": "many"}, {"keep_turns": -1}):
        with pytest.raises(ConfigurationError):
            SummaryPolicy(**wrong)  # type: ignore[arg-type]


async def test_its_repr_holds_no_content(store: Store) -> None:
    await talk(store, "secret", "b")
    summary = await summarize(store, KEY, Echo(), SummaryPolicy(keep_turns=1))
    assert summary is not None
    assert "secret" in summary.text
    assert "secret" not in repr(summary) + repr(await read_window(store, KEY))


async def test_a_long_tool_result_is_shortened_for_the_model(store: Store) -> None:
    await store.append(KEY, [calling("c"), answering("c", "x" * 100_000)])
    await talk(store, "a")
    model = Echo()
    await summarize(store, KEY, model, SummaryPolicy(keep_turns=1))
    assert len(model.requests[0]) < 10_000


def test_tokens_are_guessed_or_counted() -> None:
    import tiktoken

    assert [guess_tokens("x" * length) for length in (0, 1, 4, 5)] == [0, 1, 1, 2]
    single_bytes = {bytes([value]): value for value in range(256)}
    encoding = tiktoken.Encoding(
        "bytes", pat_str=r"[\s\S]", mergeable_ranks=single_bytes, special_tokens={"<|endoftext|>": 256}
    )
    assert tiktoken_counter(encoding)("é<|endoftext|>") == 2 + len("<|endoftext|>")
    with pytest.raises(ConfigurationError, match="no encoding"):
        tiktoken_counter("of the moon")

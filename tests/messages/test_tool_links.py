"""Cuts are compared with the plain definition: no cut separates a result from its call."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from everthread.messages.tool_links import (
    MAX_OPEN_CALLS,
    NO_LINKS,
    Span,
    add_span,
    forget_oldest_calls,
    links_of,
    resolve,
    safe_start,
    safe_stop,
)

Turn = list[tuple[list[str], list[str]]]

_ids = st.lists(st.sampled_from(["a", "b", "c"]), max_size=2, unique=True)
_turns = st.lists(st.tuples(_ids, _ids), min_size=1, max_size=6)


def forbidden_by_definition(all_turns: list[Turn]) -> tuple[set[int], int]:
    """The cuts that separate a result from what it belongs to, and how many messages there are.

    A result belongs to the last call of its id in its own turn; else to the call of an earlier turn that no
    turn since has answered; else (its call is unknown) to whatever stands before it.
    """
    forbidden: set[int] = set()
    is_open: dict[str, int] = {}
    at = 0
    for turn in all_turns:
        called: dict[str, int] = {}
        unanswered: dict[str, int] = {}
        answered_earlier: set[str] = set()
        for calls, results in turn:
            alone = set(calls) & set(results)
            for call_id in (call_id for call_id in results if call_id not in alone):
                belongs_to = at - 1
                if call_id in called:
                    belongs_to = called[call_id]
                    unanswered.pop(call_id, None)
                elif call_id not in answered_earlier:
                    belongs_to = is_open.get(call_id, at - 1)
                    answered_earlier.add(call_id)
                forbidden.update(range(belongs_to + 1, at + 1))
            for call_id in (call_id for call_id in calls if call_id not in alone):
                called[call_id] = unanswered[call_id] = at
            at += 1
        is_open = {call_id: where for call_id, where in is_open.items() if call_id not in answered_earlier}
        is_open.update(unanswered)
    return forbidden, at


def spans_of(all_turns: list[Turn]) -> tuple[list[Span], int]:
    spans: list[Span] = []
    is_open: dict[str, int] = {}
    at = 0
    for turn in all_turns:
        links = links_of(turn)
        for span in resolve(links, at, is_open):
            add_span(spans, *span)
        for call_id, _ in links.early_results:
            is_open.pop(call_id, None)
        is_open.update({call_id: at + where for call_id, where in links.open_calls})
        at += len(turn)
    return spans, at


@given(st.lists(_turns, min_size=1, max_size=5))
def test_a_cut_is_moved_to_the_nearest_that_is_allowed(all_turns: list[Turn]) -> None:
    forbidden, length = forbidden_by_definition(all_turns)
    spans, end = spans_of(all_turns)
    assert end == length
    for cut in range(length + 2):
        assert safe_start(spans, cut) == next(c for c in range(cut, length + 2) if c not in forbidden)
        assert safe_stop(spans, cut) == next(c for c in range(cut, -2, -1) if c not in forbidden)


@given(st.lists(_turns, min_size=1, max_size=5))
def test_spans_are_in_order_and_apart(all_turns: list[Turn]) -> None:
    spans, _ = spans_of(all_turns)
    flat = [end for span in spans for end in span]
    assert flat == sorted(set(flat))


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)).map(sorted), max_size=8))
def test_merged_spans_forbid_what_each_did(pairs: list[list[int]]) -> None:
    spans: list[Span] = []
    for lo, hi in sorted(pairs, key=lambda pair: pair[1]):
        add_span(spans, lo, hi)
    forbidden = {cut for lo, hi in pairs for cut in range(lo + 1, hi + 1)}
    assert {cut for lo, hi in spans for cut in range(lo + 1, hi + 1)} == forbidden


def test_plain_messages_have_no_links() -> None:
    assert links_of([((), ())] * 5) is NO_LINKS
    assert safe_start([], 7) == safe_stop([], 7) == 7


def test_a_message_that_answers_its_own_call_has_no_links() -> None:
    assert links_of([(("a",), ("a",))]) is NO_LINKS


def test_parallel_calls_end_where_the_last_result_does() -> None:
    links = links_of([(("a", "b"), ()), ((), ("a",)), ((), ("b",)), ((), ())])
    assert links.spans == ((0, 2),)
    assert (links.open_calls, links.early_results) == ((), ())


def test_calls_without_results_stay_open_and_results_without_calls_are_early() -> None:
    links = links_of([((), ("x",)), (("a",), ()), (("a",), ()), (("b",), ("a",))])
    assert links.early_results == (("x", 0),)
    assert links.open_calls == (("b", 3),)
    assert links.spans == ((2, 3),)


def test_only_calls_that_engines_remember_are_open() -> None:
    many = [f"c{i}" for i in range(MAX_OPEN_CALLS + 5)]
    links = links_of([(many, []), (["c0"], [])])
    assert [call_id for call_id, _ in links.open_calls] == [*many[6:], "c0"]
    open_calls = dict.fromkeys(many, 0)
    forget_oldest_calls(open_calls)
    assert list(open_calls) == many[5:]

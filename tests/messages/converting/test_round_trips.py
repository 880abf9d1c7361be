"""A conversation that two formats express goes from one to the other and back unchanged."""

from __future__ import annotations

from hypothesis import given

from everthread.messages.converting.neutral import Entry
from everthread.messages.converting.support import ASPECTS
from everthread.messages.rules.examining import examine
from everthread.messages.rules.rows import row_of_value
from everthread.messages.rules.services import SERVICE_OF
from tests.messages.converting.conversations import PAIRS, conversations, converted, expressed, rows


@given(conversations())
def test_what_both_express_comes_back_equal_without_a_loss(entries: list[Entry]) -> None:
    for one, other in PAIRS:
        values = rows(expressed(entries, one, other), one)
        there = converted(values, one, other)
        back = converted([each.value for each in there.messages], other, one)
        assert (there.losses, back.losses) == ([], []), (one, other)
        assert [each.value for each in back.messages] == values, (one, other)


@given(conversations(broken=True))
def test_services_accept_what_was_converted(entries: list[Entry]) -> None:
    for one, other in PAIRS:
        done = converted(rows(entries, one), one, other, repaired=True)
        found = examine([row_of_value(each.value, other) for each in done.messages], SERVICE_OF.get(other))
        assert [fault for fault in found.faults if fault.refusal or fault.repair] == [], (one, other)
        assert {loss.aspect for loss in done.losses} <= set(ASPECTS)

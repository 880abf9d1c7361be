"""The problems of a thread, and the changes of its records that repair them. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from everthread.messages.codec import encode, view_of
from everthread.messages.rules.examining import Fault, Slot, examine
from everthread.messages.rules.links import Value, layout_of
from everthread.messages.rules.rows import Row, service_of, with_prevailing_format
from everthread.messages.rules.services import Kind as FaultKind
from everthread.operations._targets import Change, Target

Kind = Literal["count", "unfinished"] | FaultKind
ENDS = {"cancelled": "was cancelled", "failed": "failed"}
NOTE = "[A faulty message was removed here by a repair.]"


class Problem(msgspec.Struct, frozen=True):
    """An inconsistency in a thread. It has no message content.

    Attributes:
        kind: Its kind.
        seq: The position, row or index of its message, if it has one.
        repair: The change by a repair. Empty: none.
        text: A line that describes it.
        refusal: The model service and its error; empty if services accept it.
        call_id: The ID of the tool call, if it is about one.
    """

    kind: Kind
    seq: int | str | None
    repair: str = ""
    text: str = ""
    refusal: str = ""
    call_id: str = ""

    @property
    def is_harmless(self) -> bool:
        """Whether services accept it, and a repair leaves it."""
        return self.kind != "count" and not (self.repair or self.refusal)


def plan(target: Target) -> tuple[list[Problem], list[Change]]:
    """Return the problems of a thread, and the changes that repair it."""
    rows = with_prevailing_format(target.rows())
    found = examine(rows, service_of(rows), is_running=target.is_running, room=target.room)
    problems = [_problem(fault, target) for fault in found.faults] + _unfinished(rows, target)
    if all(slot.origin == at and not slot.is_changed for at, slot in enumerate(found.slots)) and len(
        found.slots
    ) == len(rows):
        return problems, []
    if target.is_in_place:
        return problems, _replacements(target, rows, found.slots)
    return problems, target.added(_changes(target, rows, found.slots))


def _unfinished(rows: Sequence[Row], target: Target) -> list[Problem]:
    """Return a remark if the run of the last turn ended early."""
    if not rows or rows[-1].value is None:
        return []
    how = view_of(rows[-1].value, rows[-1].format).ended
    position = target.position(len(rows) - 1)
    return [Problem("unfinished", position, text=f"the run of the last turn {ENDS[how]}")] if how in ENDS else []


def _problem(fault: Fault, target: Target) -> Problem:
    return Problem(fault.kind, target.position(fault.at), fault.repair, fault.text, fault.refusal, fault.call_id)


def _changes(target: Target, rows: Sequence[Row], slots: Sequence[Slot]) -> list[Change]:
    # A whole record that moves keeps its bytes.
    stored = {id(row): payload for row, payload in zip(rows, target.payloads, strict=True) if row.is_strict_object}
    changes: list[Change] = []
    payloads = target.payloads
    done = 0

    def removed(stop: int) -> list[Change]:
        return [Change(at, payloads[at], None) for at in range(done, stop)]

    for slot in slots:
        if slot.origin is None:
            # It precedes the next record that stays, so removed ones before that come after it.
            changes.append(Change(done, None, stored.get(id(slot.row)) or _encoded(slot.row)))
            continue
        changes += removed(slot.origin)
        done = slot.origin + 1
        if slot.is_changed:
            changes.append(Change(slot.origin, payloads[slot.origin], _encoded(slot.row)))
    return changes + removed(len(payloads))


def _replacements(target: Target, rows: Sequence[Row], slots: Sequence[Slot]) -> list[Change]:
    """Return the changes for a store that keeps all positions: a note replaces each message that is removed."""
    kept: list[Slot | None] = [None] * len(rows)
    for slot in slots:
        assert slot.origin is not None
        kept[slot.origin] = slot
    for at in range(len(kept) - 1, -1, -1):
        _move_down(kept, at)
    changes: list[Change] = []
    for at, slot in enumerate(kept):
        old = target.payloads[at]
        if slot is None:
            new = encode(_note(rows, at))
        elif slot.is_changed:
            new = _encoded(slot.row)
        else:
            assert slot.origin is not None
            new = target.payloads[slot.origin]
        if new != old:
            changes.append(Change(at, old, new))
    return changes


def _move_down(kept: list[Slot | None], at: int) -> None:
    """Move an empty place behind messages that must directly follow the one before it."""
    while kept[at] is None and at + 1 < len(kept):
        before, after = kept[at - 1] if at else None, kept[at + 1]
        if after is None or not (after.row.shape.answers or (before is not None and before.row.is_reasoning)):
            return
        kept[at], kept[at + 1] = after, None
        at += 1


def _note(rows: Sequence[Row], at: int) -> Value:
    near = [*rows[at::-1], *rows[at + 1 :]]
    for row in near:
        layout = layout_of(row.format)
        if layout is not None and row.value is not None:
            return layout.note(NOTE, row.value)
    return {"role": "assistant", "content": NOTE}


def _encoded(row: Row) -> bytes:
    assert row.value is not None
    return encode(row.value)

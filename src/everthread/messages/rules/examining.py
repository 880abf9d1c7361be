"""Find the faults of a list of messages, and the list without them. No I/O.

The repaired list holds all messages that have no fault, unchanged and in their order. A result without a call is taken
out; a call without a result gets one that says so; a result in another place is moved after its call. Where the caller
has no room for a further message, the call or the pair is taken out instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest

import msgspec

from everthread.messages.rules.links import Value, layout_of
from everthread.messages.rules.pairing import Pairs, Place, pair_up
from everthread.messages.rules.repeats import Repeats
from everthread.messages.rules.rows import Row, excess_of
from everthread.messages.rules.services import DESCRIPTIONS, Kind, Service, refusal

Room = Callable[[int | None, int | None], int]
"""Returns how many messages fit between two of the list, given their indexes. ``None`` is an end of the list."""

_PASSES = 8
_LONGEST_ID = 64


class Fault(msgspec.Struct, frozen=True):
    """A fault in a list of messages. It has no message content.

    Attributes:
        kind: Its kind.
        at: The index of the message in the list.
        text: A line that describes it.
        refusal: The model service and its error; empty if services accept it.
        repair: The change by a repair; empty: none.
        call_id: The ID of the tool call, if it is about one; shortened if it is long.
    """

    kind: Kind
    at: int
    text: str
    refusal: str = ""
    repair: str = ""
    call_id: str = ""

    @property
    def is_harmless(self) -> bool:
        """Whether services accept it, and a repair leaves it."""
        return not self.refusal and not self.repair


class Slot(msgspec.Struct):
    """A message of the repaired list.

    Attributes:
        row: The message.
        origin: Its index in the list; ``None`` for one that was added.
        is_changed: It differs from the one in the list.
    """

    row: Row
    origin: int | None
    is_changed: bool = False


class Examination(msgspec.Struct):
    """The faults of a list of messages, in order, and the repaired list."""

    faults: list[Fault]
    slots: list[Slot]


def unlimited(before: int | None, after: int | None) -> int:
    """Return the room of a list that takes messages everywhere."""
    return 1_000_000


def examine(
    rows: Sequence[Row],
    service: Service | None,
    *,
    is_running: bool = False,
    room: Room = unlimited,
) -> Examination:
    """Find faults, and repair them.

    Args:
        rows: The messages.
        service: The model service; ``None`` for any. What it accepts stays, repeats excepted.
        is_running: The calls of the last turn may still get their results.
        room: Where messages can be added.
    """
    return _Examiner(rows, service, is_running, room).run()


class _Examiner:
    def __init__(self, rows: Sequence[Row], service: Service | None, is_running: bool, room: Room) -> None:
        self._rows = rows
        self._service: Service | None = service
        self._room = room
        self._used: dict[tuple[int | None, int | None], int] = {}
        self._faults: list[Fault] = []
        self._is_first_pass = True
        last_input = max((at for at, row in enumerate(rows) if row.is_input), default=-1)
        self._waits_after = last_input if is_running else len(rows)
        self._slots: list[Slot] = []
        self._approvals = {call_id for row in rows for call_id in row.shape.waiting}

    def run(self) -> Examination:
        self._take_records()
        for _ in range(_PASSES):
            if not self._link():
                break
            self._is_first_pass = False
        self._find_half_turns()
        self._drop_hollow()
        self._faults.sort(key=lambda fault: fault.at)
        return Examination(self._faults, self._slots)

    # Records

    def _take_records(self) -> None:
        repeats = Repeats(self._rows)
        for at in repeats.same:
            self._report("duplicate", at, "an equal message has the same ID", repair="removed")
        for at in repeats.other:
            self._report("duplicate", at, "another message has the same ID")
        for at, length in repeats.blocks:
            self._report("duplicate", at, f"{length:,} messages repeat those before them", repair="removed")
        removed = repeats.removable
        for at, row in enumerate(self._rows):
            if row.value is None and not row.is_opaque:
                self._report("undecodable", at, f"{row.size:,} bytes", repair="removed")
                continue
            if not row.is_strict:
                self._report("unencodable", at, DESCRIPTIONS["unencodable"], repair="written as strict JSON")
            limit = excess_of(row, self._service)
            if limit:
                self._report("oversized", at, f"{row.size:,} bytes; the limit is {limit:,}")
            if at not in removed:
                self._slots.append(Slot(row, at, not row.is_strict))

    # Links

    def _link(self) -> bool:
        """Repair the links of calls and results; return whether anything changed."""
        pairs = self._pairs()
        early, orphans, unanswered = _match_early(pairs)
        answered = {call.call_id for call, _ in pairs.linked}
        edits = _Edits(self._slots)
        for result in orphans:
            is_second = result.call_id in answered
            self._fault("duplicate" if is_second else "orphaned-result", result, "removed")
            edits.drop(result)
        for kind, call, result in self._displaced(pairs, early):
            if kind == "separated-result" and not refusal(kind, self._service):
                self._fault(kind, result, "")
            else:
                self._move(kind, call, result, edits)
        for call in unanswered:
            if not self._is_waiting(call):
                self._answer(call, edits)
        self._slots, is_changed = edits.carried_out()
        return is_changed

    def _pairs(self) -> Pairs:
        return pair_up(
            (Place(at, number, part.call_id), part.is_call)
            for at, slot in enumerate(self._slots)
            for number, part in enumerate(slot.row.shape.parts)
        )

    def _displaced(self, pairs: Pairs, early: Sequence[tuple[Place, Place]]) -> list[tuple[Kind, Place, Place]]:
        """Return the pairs with a result in another place than directly after its call."""
        passed = self._passed()
        separated = [(call, result) for call, result in pairs.linked if passed[call.at] <= result.at]
        found: list[tuple[Kind, Place, Place]] = [("early-result", call, result) for call, result in early]
        return found + [("separated-result", call, result) for call, result in separated]

    def _passed(self) -> list[int]:
        """Return, for each message, the index of the next one that ends its results; the end if there is none."""
        passed: list[int] = []
        following = len(self._slots)
        for at in range(len(self._slots) - 1, -1, -1):
            passed.append(following)
            row = self._slots[at].row
            # The calls of one answer are items of their own in Responses.
            is_item = row.format == "openai-responses" and row.shape.role == "assistant"
            if not row.shape.answers and not is_item:
                following = at
        passed.reverse()
        return passed

    def _is_waiting(self, call: Place) -> bool:
        slot = self._slots[call.at]
        origin = slot.origin if slot.origin is not None else len(self._rows)
        # An approval may come at any time, and the other calls of its message wait with it.
        return origin > self._waits_after or bool(slot.row.shape.waiting) or call.call_id in self._approvals

    def _move(self, kind: Kind, call: Place, result: Place, edits: _Edits) -> None:
        row = self._slots[result.at].row
        others = [number for number in range(len(row.shape.parts)) if number != result.part]
        layout = layout_of(row.format)
        alone = None if layout is None or row.value is None else _alone(row, others)
        edits.drop(result)
        if alone is not None and self._add(call, alone, edits):
            self._fault(kind, result, "moved after its call")
        else:
            edits.drop(call)
            self._fault(kind, result, "removed with its call")

    def _answer(self, call: Place, edits: _Edits) -> None:
        row = self._slots[call.at].row
        layout = layout_of(row.format)
        assert layout is not None
        assert row.value is not None
        answer = layout.answer(call.call_id, row.value)
        if answer is not None and self._add(call, row.with_value(answer), edits):
            self._fault("unanswered-call", call, "answered: not recorded")
        else:
            edits.drop(call)
            self._fault("unanswered-call", call, "removed")

    def _add(self, call: Place, row: Row, edits: _Edits) -> bool:
        """Add a message of results after a call, or its results to the next message; return whether it was possible."""
        # Anthropic wants all results of a message in the next one. Elsewhere a message without a fault stays unchanged.
        if row.format == "anthropic" and edits.join(call.at + 1, row):
            return True
        end = self._end_of(call.at + 1, lambda other: other.shape.answers)
        if self._insert(end, row, edits):
            return True
        if row.format == "openai-responses":
            # The calls of one answer are items of their own, and their results may come after all of them.
            end = self._end_of(end, lambda other: other.format == row.format and bool(other.shape.parts))
            if self._insert(end, row, edits):
                return True
        return edits.join(call.at + 1, row)

    def _end_of(self, at: int, belongs: Callable[[Row], bool]) -> int:
        while at < len(self._slots) and belongs(self._slots[at].row):
            at += 1
        return at

    def _insert(self, at: int, row: Row, edits: _Edits) -> bool:
        before = self._origin(range(at - 1, -1, -1))
        after = self._origin(range(at, len(self._slots)))
        used = self._used.get((before, after), 0)
        if used >= self._room(before, after):
            return False
        self._used[before, after] = used + 1
        edits.insert(at, row)
        return True

    def _origin(self, indexes: range) -> int | None:
        return next((origin for at in indexes if (origin := self._slots[at].origin) is not None), None)

    # Messages without a part of an answer

    def _find_half_turns(self) -> None:
        for slot, following in zip_longest(self._slots, self._slots[1:]):
            is_open = slot.row.shape.answers and (following is None or following.row.is_input)
            if is_open and slot.origin is not None and slot.origin < self._waits_after:
                self._report("half-turn", slot.origin, DESCRIPTIONS["half-turn"])

    def _drop_hollow(self) -> None:
        """Drop empty messages, and reasoning that nothing follows."""
        kept: list[Slot] = []
        follows = False
        for slot in reversed(self._slots):
            row = slot.row
            kind: Kind | None = "empty-message" if row.is_empty else None
            if row.is_reasoning and not follows:
                kind = "dangling-reasoning"
            if not row.is_reasoning:
                follows = row.is_answer
            if kind is None or not self._is_settled(slot):
                kept.append(slot)
                continue
            is_refused = bool(refusal(kind, self._service))
            # Another repair may have left the message like this: then it is no fault of its own.
            if slot.origin is not None and self._is_own(kind, slot.origin):
                self._report(kind, slot.origin, DESCRIPTIONS[kind], repair="removed" if is_refused else "")
            if not is_refused:
                kept.append(slot)
        self._slots = kept[::-1]

    def _is_settled(self, slot: Slot) -> bool:
        return slot.origin is None or slot.origin < self._waits_after

    def _is_own(self, kind: Kind, origin: int) -> bool:
        rows = self._rows
        if kind == "empty-message":
            return rows[origin].is_empty
        following = next((rows[at] for at in range(origin + 1, len(rows)) if not rows[at].is_reasoning), None)
        return rows[origin].is_reasoning and (following is None or not following.is_answer)

    # Reports

    def _fault(self, kind: Kind, place: Place, repair: str) -> None:
        origin = self._slots[place.at].origin
        if not self._is_first_pass or origin is None:
            return
        shown = place.call_id if len(place.call_id) <= _LONGEST_ID else place.call_id[:_LONGEST_ID] + "…"
        if kind == "duplicate":
            # Services refuse it as they refuse one without a call.
            self._report(kind, origin, "a second result", shown, repair, refused_as="orphaned-result")
        else:
            self._report(kind, origin, DESCRIPTIONS[kind], shown, repair)

    def _report(
        self, kind: Kind, at: int, text: str, call_id: str = "", repair: str = "", *, refused_as: Kind | None = None
    ) -> None:
        line = f"{text} ({call_id})" if call_id else text
        error = refusal(refused_as or kind, self._service)
        self._faults.append(Fault(kind, at, line, error, repair, call_id))


class _Edits:
    """Changes of a list, gathered before they are carried out, so that indexes stay."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._slots = slots
        self._dropped: dict[int, set[int]] = {}
        self._joined: dict[int, list[Value]] = {}
        self._inserted: dict[int, list[Row]] = {}

    def drop(self, place: Place) -> None:
        self._dropped.setdefault(place.at, set()).add(place.part)

    def insert(self, before: int, row: Row) -> None:
        self._inserted.setdefault(before, []).append(row)

    def join(self, at: int, row: Row) -> bool:
        """Add a message's results to the one at an index; return whether that is possible."""
        if at >= len(self._slots) or row.value is None:
            return False
        target = self._slots[at].row
        layout = layout_of(target.format)
        if layout is None or target.value is None or target.format != row.format:
            return False
        if layout.joined(target.value, row.value) is None:
            return False
        self._joined.setdefault(at, []).append(row.value)
        return True

    def carried_out(self) -> tuple[list[Slot], bool]:
        if not (self._dropped or self._joined or self._inserted):
            return list(self._slots), False
        slots: list[Slot] = []
        for at, slot in enumerate(self._slots):
            slots += [Slot(row, None) for row in self._inserted.get(at, ())]
            changed = self._changed(at, slot)
            if changed is not None:
                slots.append(changed)
        slots += [Slot(row, None) for row in self._inserted.get(len(self._slots), ())]
        return slots, True

    def _changed(self, at: int, slot: Slot) -> Slot | None:
        dropped, joined = self._dropped.get(at), self._joined.get(at)
        if not dropped and not joined:
            return slot
        layout = layout_of(slot.row.format)
        value = slot.row.value
        assert layout is not None
        assert value is not None
        rest = layout.without(value, dropped) if dropped else value
        for added in joined or ():
            # Nothing else was in the message: the results that come are all of it.
            rest = added if rest is None else layout.joined(rest, added) or rest
        return None if rest is None else Slot(slot.row.with_value(rest), slot.origin, is_changed=True)


def _alone(row: Row, others: Sequence[int]) -> Row | None:
    """Return the row with one result only."""
    layout = layout_of(row.format)
    if not others and not row.shape.is_filled:
        return row
    if layout is None or row.value is None:
        return None
    rest = layout.without(row.value, others)
    return None if rest is None else row.with_value(rest)


def _match_early(pairs: Pairs) -> tuple[list[tuple[Place, Place]], list[Place], list[Place]]:
    """Return the results that stand before their calls, each after its call; other orphans; other unanswered calls."""
    waiting: dict[str, list[Place]] = {}
    for call in sorted(pairs.unanswered):
        waiting.setdefault(call.call_id, []).append(call)
    early: list[tuple[Place, Place]] = []
    orphans: list[Place] = []
    for result in pairs.orphans:
        later = next((call for call in waiting.get(result.call_id, ()) if call > result), None)
        if later is None:
            orphans.append(result)
        else:
            waiting[result.call_id].remove(later)
            early.append((later, result))
    found = {call for call, _ in early}
    return early, orphans, [call for call in pairs.unanswered if call not in found]

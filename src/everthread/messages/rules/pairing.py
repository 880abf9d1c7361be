"""Pair tool calls with their results: the rule that every other rule of linked messages follows. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Place(NamedTuple):
    """A tool call or a result in a list of messages.

    Attributes:
        at: The index of the message.
        part: The index within the message.
    """

    at: int
    part: int
    call_id: str


class Pairs(NamedTuple):
    """Calls and results in order.

    Attributes:
        linked: Each call with its result.
        orphans: Results without an earlier open call. A second result for one call is such a result.
        unanswered: Calls without a result.
    """

    linked: list[tuple[Place, Place]]
    orphans: list[Place]
    unanswered: list[Place]


def pair_up(places: Iterable[tuple[Place, bool]]) -> Pairs:
    """Pair calls and results.

    A result answers the nearest earlier call of its ID that has no result yet, since some models use an ID again.

    Args:
        places: The places in order, each with whether it is a call.
    """
    open_calls: dict[str, Place] = {}
    pairs = Pairs([], [], [])
    for place, is_call in places:
        earlier = open_calls.pop(place.call_id, None)
        if is_call:
            open_calls[place.call_id] = place
            if earlier is not None:
                pairs.unanswered.append(earlier)
        elif earlier is None:
            pairs.orphans.append(place)
        else:
            pairs.linked.append((earlier, place))
    pairs.unanswered.extend(open_calls.values())
    return pairs

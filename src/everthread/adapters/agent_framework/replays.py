"""Find the part of a run's input that repeats stored messages.

Some callers (AG-UI clients, workflows) send the whole conversation with each run. Its stored part must not be stored
again, and a user's second "yes" must be stored. The rules:

- A run's answer is always new.
- An input message with a stored ``message_id`` and the same content is a replay, and so are the messages before it. The
  messages after it are compared by content, turn by turn: a client may give messages other ids, or none, may hide tool
  calls and may join an answer's texts. The model gets the stored messages before the first repeated one; the messages
  before it are compared in the same way.
- The last message of the user is never a replay by content alone. By its id it is one only in the newest stored turn:
  then the run is repeated. In other turns, a client numbers its messages anew or returns to an earlier turn.
- An input without known ids is a replay only if it holds an answer (a message of the assistant) and its leading part
  repeats the *end* of the history, at least two messages of it: a client that keeps the transcript also has the newest
  answer. So the same question and answer of another agent, sent twice, are stored twice.
- AG-UI's endpoint drops equal messages that have no ids, also the user's newest one. So an input in which all messages
  differ is compared with the end of the history without its repeats, too.
- Results of tools alone are a replay if the newest turn holds equal results.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from agent_framework import Content, Message

from everthread.adapters.contents import CALLS, call_id_of


class Replay(NamedTuple):
    """The part of an input that is stored already.

    Attributes:
        messages: The leading input messages that are stored already.
        history_before: The number of stored messages before the first one that is repeated. They reach the model in
            front of the input.
    """

    messages: Sequence[Message]
    history_before: int


class _Sight(NamedTuple):
    """The compared part of one message, or of neighboring ones."""

    first: int
    last: int
    content: tuple[object, ...]


def is_transcript(inputs: Sequence[Message]) -> bool:
    """Return whether an input can be a replay without any known id: it holds an answer."""
    return any(message.role == "assistant" for message in inputs)


def count_said(messages: Sequence[Message]) -> int:
    """Return the number of the user's messages with text or media."""
    return sum(map(_is_said, messages))


def newest_answer(history: Sequence[Message]) -> Sequence[Message]:
    """Return the stored messages behind the last message of the user."""
    said = max((at for at, message in enumerate(history) if _is_said(message)), default=-1)
    return history[said + 1 :]


def find_replay(inputs: Sequence[Message], history: Sequence[Message], *, complete: bool) -> Replay:
    """Find the part of an input that repeats a history.

    Args:
        inputs: The input of a run.
        history: The stored messages, oldest first; at least their newest part.
        complete: The history begins with the thread's first message.
    """
    nothing = Replay((), len(history))
    if not inputs or not history:
        return nothing
    found = _by_id(inputs, history) or _by_results(inputs, history)
    if found is None and is_transcript(inputs):
        ways = [_by_content(inputs, history, complete, view) for view in (_sights, _shown, _joined)]
        ways += [_without_repeats(inputs, history, view) for view in (_sights, _shown, _joined)]
        found = max((way for way in ways if way is not None), default=None)
    if found is None:
        return nothing
    count, history_before = found
    return Replay(inputs[:count], history_before)


def _by_id(inputs: Sequence[Message], history: Sequence[Message]) -> tuple[int, int] | None:
    if not any(message.message_id for message in inputs):
        return None
    stored = {message.message_id: index for index, message in enumerate(history) if message.message_id}
    known = [
        (stored[message.message_id], index)
        for index, message in enumerate(inputs)
        if message.message_id in stored and is_same(message, history[stored[message.message_id]])
    ]
    if known and known[-1][1] == len(inputs) - 1 and inputs[-1].role == "user":
        newest = max((at for at, message in enumerate(history) if _is_said(message)), default=-1)
        if known[-1][0] < newest:
            known.pop()
    if not known:
        return None
    # The newest stored one counts. Ids that a client uses again lead to older messages: they are no replays.
    at, given = max(known)
    return _walk(inputs, history, given, at), _first_repeated(
        inputs, history, {index: place for place, index in known}, given, at
    )


def _first_repeated(
    inputs: Sequence[Message], history: Sequence[Message], known: Mapping[int, int], given: int, at: int
) -> int:
    """Return the first stored message that the inputs up to ``inputs[given]``, which is ``history[at]``, repeat."""
    said = [place for place, message in enumerate(history) if _is_said(message)]
    turn, turn_start = _Turn(()), -1
    for index in range(given - 1, -1, -1):
        message = inputs[index]
        if index in known:
            at = min(at, known[index])
            continue
        before = bisect_left(said, at) - 1
        start = said[before] + 1 if before >= 0 else 0
        if _is_said(message):
            if before >= 0 and is_same(message, history[start - 1]):
                at = start - 1
            continue
        if start != turn_start:
            turn, turn_start = _Turn(history[start:at]), start
        if turn.holds(message):
            at = _place(message, history, start, at)
    return at


def _place(message: Message, history: Sequence[Message], start: int, stop: int) -> int:
    """Return the position of the first stored part of a message that a turn contains."""
    atoms = set(_atoms(message))
    one = (at for at in range(stop - 1, start - 1, -1) if not atoms.isdisjoint(_atoms(history[at])))
    first = next((at for at in range(start, stop) if history[at].role == message.role), stop)
    return next(one, first)


def _walk(inputs: Sequence[Message], history: Sequence[Message], given: int, at: int) -> int:
    """Return the number of leading inputs that are stored, where ``inputs[given]`` is ``history[at]``."""
    count = given + 1
    last_answer = max((index for index, message in enumerate(inputs) if message.role == "assistant"), default=-1)
    turn, following = _turn(history, at + 1)
    for index in range(given + 1, len(inputs)):
        message = inputs[index]
        if _is_said(message):
            is_answered = index < last_answer
            if index == len(inputs) - 1 or following is None or not _is_again(message, history[following], is_answered):
                break
            turn, following = _turn(history, following + 1)
            count = index + 1
        elif turn.holds(message):
            count = index + 1
    return count


class _Turn:
    """The messages between two of the user's: texts, calls and results that a client may send again."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._atoms = {atom for message in messages for atom in _atoms(message)}
        texts = [_bare(_text(message)) for message in messages if message.role == "assistant"]
        self._atoms.add(("assistant", "".join(texts)))

    def holds(self, message: Message) -> bool:
        atoms = set(_atoms(message))
        return bool(atoms) and atoms <= self._atoms


def _turn(history: Sequence[Message], start: int) -> tuple[_Turn, int | None]:
    """Return the rest of the turn from a place on, and the place of the user's next message."""
    stop = next((at for at in range(start, len(history)) if _is_said(history[at])), None)
    return _Turn(history[start:stop]), stop


def _atoms(message: Message) -> Iterator[tuple[str, object]]:
    if text := _bare(_text(message)):
        yield message.role, text
    for content in message.contents:
        if content.type in _MEDIA:
            yield "media", content.uri or content.file_id
        elif content.type == "function_result":
            yield "result", content.call_id
        elif call_id := _called(content):
            yield "call", call_id


def _by_results(inputs: Sequence[Message], history: Sequence[Message]) -> tuple[int, int] | None:
    results = [content for message in inputs for content in message.contents]
    if any(message.role != "tool" for message in inputs) or any(c.type != "function_result" for c in results):
        return None
    start = max((at for at, message in enumerate(history) if _is_said(message)), default=0)
    stored = {
        content.call_id: (at, content.result)
        for at, message in enumerate(history[start:], start)
        for content in message.contents
        if content.type == "function_result"
    }
    places = [stored.get(content.call_id, (-1, None)) for content in results]
    if not places or any(at < 0 or found != c.result for (at, found), c in zip(places, results, strict=True)):
        return None
    return len(inputs), min(at for at, _ in places)


def _by_content(
    inputs: Sequence[Message], history: Sequence[Message], complete: bool, view: _View
) -> tuple[int, int] | None:
    given, stored = view(inputs), view(history)
    if inputs[-1].role == "user" and given and given[-1].last == len(inputs) - 1:
        given.pop()
    best_length, best_end = 0, -1
    for end in range(len(given)):
        length = _overlap(given[: end + 1], stored)
        whole = length == len(stored)
        if not (whole or length == end + 1) or (length < 2 and not (whole and complete)):
            continue
        # Of equal overlaps the later repeats the newest messages, unless the whole thread is known to be no longer.
        if length > best_length or (length == best_length and not (whole and complete)):
            best_length, best_end = length, end
    if not best_length:
        return None
    return given[best_end].last + 1, stored[len(stored) - best_length].first


def _without_repeats(inputs: Sequence[Message], history: Sequence[Message], view: _View) -> tuple[int, int] | None:
    """Find an input in which all messages differ at the end of a history in which some are equal."""
    given, stored = view(inputs), view(history)
    contents = [sight.content for sight in given]
    if len(set(contents)) < len(contents):
        return None
    last_answer = max((at for at, content in enumerate(contents) if content[0] == "assistant"), default=0)
    newest = len(inputs) - (inputs[-1].role == "user")
    first_seen = OrderedDict[tuple[object, ...], None]()
    found: list[tuple[int, int]] = []
    for at in range(len(stored) - 1, -1, -1):
        first_seen[stored[at].content] = None
        first_seen.move_to_end(stored[at].content, last=False)
        count = len(first_seen)
        if count > len(contents):
            break
        is_shorter = 1 < count < len(stored) - at and count > last_answer
        if is_shorter and stored[at].content == contents[0] and list(first_seen) == contents[:count]:
            found.append((min(given[count - 1].last + 1, newest), stored[at].first))
    if not found:
        return None
    count, start = max(found)
    turn = _Turn(history[start:])
    # The text behind a tool's result was a repeat.
    while count < newest and not _is_said(inputs[count]) and turn.holds(inputs[count]):
        count += 1
    return count, start


def _overlap(given: Sequence[_Sight], stored: Sequence[_Sight]) -> int:
    """Return the number of messages that agree, compared backward from both ends."""
    length = 0
    for one, other in zip(reversed(given), reversed(stored), strict=False):
        if one.content != other.content:
            break
        length += 1
    return length


def is_same(one: Message, other: Message) -> bool:
    """Return whether two messages have the same role, text and media."""
    return _seen(one, with_tools=False) == _seen(other, with_tools=False)


def _is_again(message: Message, stored: Message, is_answered: bool) -> bool:
    """Return whether a message of the user repeats a stored one: with another id only if the input answers it."""
    ids = {message.message_id, stored.message_id} - {None, ""}
    return (is_answered or len(ids) < 2) and is_same(message, stored)


def _is_said(message: Message) -> bool:
    """Return whether a message is the user's and has text or media, not only approvals."""
    return message.role == "user" and any(_seen(message, with_tools=False)[1:])


# Views of messages


def _sights(messages: Sequence[Message]) -> list[_Sight]:
    """Return all comparable parts, with tool calls and results."""
    return _view(messages, with_tools=True)


def _shown(messages: Sequence[Message]) -> list[_Sight]:
    """Return the parts that a client shows which hides tool calls."""
    return _view(messages, with_tools=False)


def _joined(messages: Sequence[Message]) -> list[_Sight]:
    """Return the parts that a client shows which joins the texts of an answer."""
    joined: list[_Sight] = []
    for sight in _shown(messages):
        role, text, others = sight.content
        before = joined[-1] if joined else None
        if before is not None and role == before.content[0] == "assistant":
            joined[-1] = _Sight(before.first, sight.last, (role, f"{before.content[1]}{_bare(str(text))}", others))
        else:
            joined.append(_Sight(sight.first, sight.last, (role, _bare(str(text)), others)))
    return joined


_View = Callable[[Sequence[Message]], list[_Sight]]


def _view(messages: Sequence[Message], with_tools: bool) -> list[_Sight]:
    # Clients do not show the instructions of a conversation, or send others with each run.
    seen = ((index, _seen(each, with_tools)) for index, each in enumerate(messages) if each.role not in _INSTRUCTIONS)
    return [_Sight(index, index, content) for index, content in seen if any(content[1:])]


def _seen(message: Message, with_tools: bool) -> tuple[object, ...]:
    """Return role, text, media, tool calls and results: no reasoning, usage or data of the framework."""
    others: list[tuple[str, object]] = []
    for content in message.contents:
        if content.type in _MEDIA:
            others.append(("media", content.uri or content.file_id))
        elif with_tools and content.type == "function_result":
            others.append(("result", content.call_id))
        elif with_tools and (call_id := _called(content)) and ("call", call_id) not in others:
            others.append(("call", call_id))
    return message.role, _text(message).strip(), tuple(others)


def _called(content: Content) -> str | None:
    """Return the id of the call that a content makes or asks to approve."""
    return call_id_of(content) if content.type in CALLS else None


def _text(message: Message) -> str:
    return "".join(content.text or "" for content in message.contents if content.type == "text")


def _bare(text: str) -> str:
    return "".join(text.split())


_MEDIA = frozenset({"data", "uri", "hosted_file"})
_INSTRUCTIONS = frozenset({"system", "developer"})

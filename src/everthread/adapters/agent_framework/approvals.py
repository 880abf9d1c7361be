"""Restore the approvals that a session waits for from its stored messages.

The framework keeps its requests in the session object, and ignores an answer to any other request. In a process
that knows only the session's id that object is new, so the requests are restored before the run: the model's own call,
with its stored name and arguments. The answer only selects the call.

A call is restored only if it ended its run: no other message of the assistant follows it in its turn. Callers can store
calls of their own making as input; a model's answer follows those.

Source: ``_store_pending_approval_requests`` and its neighbors in ``agent_framework/_tools.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any, cast

from agent_framework import (
    AgentSession,
    Content,
    FunctionTool,
    Message,
    _tools,  # pyright: ignore[reportPrivateUsage]
)

from everthread.adapters.contents import APPROVALS, CALLS, call_id_of, call_ids, contents_of, with_contents
from everthread.errors import ConfigurationError

if TYPE_CHECKING:
    from agent_framework import SupportsAgentRun

Json = dict[str, Any]

_STATE = "tool_approval"
_PENDING = "pending_approval_requests"
_GROUPS = "already_approved_approval_request_groups"
_RESPONSES = "approval_responses"
_REQUEST_ID = "_approval_request_id"
_BATCH = "pending_mixed_pause_batch"
_RESPONSE = "function_approval_response"

BINDS = hasattr(_tools, "_load_pending_approval_requests")
"""Whether the installed release ignores answers to requests that are not in the session object."""


def restore_approvals(
    session: AgentSession,
    stored: Iterable[tuple[Message, int]],
    inputs: Sequence[Message],
    safe: Set[str] = frozenset(),
) -> None:
    """Restore the stored requests that these inputs answer in a session that does not have them.

    Args:
        session: The session of the run.
        stored: The stored messages, each with its turn.
        inputs: The input of the run.
        safe: The names of the tools that need no approval.
    """
    answered = {
        call_id: response
        for response in contents_of(inputs, _RESPONSE)
        if (call_id := call_id_of(response)) is not None
    }
    found = session.state.get(_STATE, {})
    if not BINDS or not answered or not isinstance(found, dict) or _BATCH in found:
        return
    session.state[_STATE] = state = cast(Json, found)
    waiting = cast(list[Json], state.get(_PENDING, []))
    held = {request.get("id") for request in waiting}
    turns = list(stored)
    history = [message for message, _ in turns]
    for at in _ends_of_runs(turns):
        if call_ids([history[at]], *CALLS).isdisjoint(answered):
            continue
        requests, hidden, calls = _batch(history, at, answered, safe)
        if not requests or any(request.id in held for request in requests):
            continue
        held.update(request.id for request in requests)
        state[_PENDING] = waiting = [*waiting, *(request.to_dict() for request in requests)]
        group = _group(requests, hidden, calls, contents_of(history[at + 1 :], _RESPONSE))
        state[_GROUPS] = [*cast(list[Json], state.get(_GROUPS, [])), group]


def _tools_without_approval(agent: SupportsAgentRun) -> set[str]:
    """Return the names of the agent's tools that the framework carries out without an approval."""
    options: object = getattr(agent, "default_options", None)
    given: object = cast(Json, options).get("tools") if isinstance(options, dict) else None
    tools = cast(list[object], given) if isinstance(given, list) else []
    for server in cast(list[object], getattr(agent, "mcp_tools", None) or []):
        tools = [*tools, *cast(list[object], getattr(server, "functions", ()))]
    return {
        tool.name
        for tool in tools
        if isinstance(tool, FunctionTool) and tool.approval_mode != "always_require" and not tool.declaration_only
    }


def resumed(
    session_id: str,
    stored: Iterable[tuple[Message, int]],
    inputs: Sequence[Message],
    agent: SupportsAgentRun | None,
) -> AgentSession:
    """Return a session that waits for the approvals which these inputs answer.

    Raises:
        ConfigurationError: The model made other calls, and without the agent it is unknown which need an approval.
    """
    session = AgentSession(session_id=session_id)
    safe = set[str]() if agent is None else _tools_without_approval(agent)
    restore_approvals(session, stored, inputs, safe)
    given = call_ids(inputs, _RESPONSE)
    calls = [request.function_call for request in _pending(session) if request.function_call is not None]
    others = [call.name or "" for call in calls if call.call_id not in given]
    if others and agent is None:
        raise ConfigurationError(f"The model also called {', '.join(others)}: pass agent=, or answer these calls too.")
    return session


def answerable(session: AgentSession, inputs: Sequence[Message]) -> set[str]:
    """Return the ids of the calls that wait in the session and that these inputs approve or refuse."""
    given = call_ids(inputs, _RESPONSE)
    return given & {call_id_of(request) for request in _pending(session)} if BINDS and given else given


def without_ignored_approvals(history: Sequence[Message]) -> Sequence[Message]:
    """Return a history without the approvals and refusals that the framework has ignored, as those with other ids.

    The request that such a response names still waits, and the framework would take it as answered.
    """
    requests: dict[str | None, Content] = {}
    kept: list[Message] = []
    for message in history:
        contents = list(message.contents)
        for content in contents_of([message], *APPROVALS):
            if content.type == APPROVALS[0]:
                requests[call_id_of(content)] = requests[content.id] = content
                continue
            asked = requests.get(call_id_of(content)) or requests.get(content.id)
            if asked is not None and not _is_answer(content, asked):
                contents = [each for each in contents if each is not content]
        kept.append(message if len(contents) == len(message.contents) else with_contents(message, contents))
    return kept


def _pending(session: AgentSession) -> list[Content]:
    state: object = session.state.get(_STATE)
    requests = cast(list[Json], cast(Json, state).get(_PENDING, [])) if isinstance(state, dict) else []
    return [Content.from_dict(request) for request in requests]


def _batch(
    history: Sequence[Message], at: int, answered: Mapping[str, Content], safe: Set[str]
) -> tuple[list[Content], list[Content], list[Content]]:
    """Return a message's requests, the requests that the framework grants itself, and its calls, if one waits."""
    asked: dict[str | None, Content] = {
        call_id_of(request): request for request in contents_of([history[at]], "function_approval_request")
    }
    calls: list[Content] = list(contents_of([history[at]], "function_call"))
    # A service that executes a call itself requests the approval without making the call.
    made = call_ids(history, "function_call")
    calls += [each.function_call for call_id, each in asked.items() if call_id not in made and each.function_call]
    settled, decided = call_ids(history[at + 1 :], "function_result"), call_ids(history[at + 1 :], _RESPONSE)
    waiting = [call for call in calls if call.call_id not in (decided if getattr(call, "hosted", False) else settled)]
    if not any(call.call_id in answered for call in waiting):
        return [], [], []
    requests = [asked[call.call_id] for call in waiting if call.call_id in asked]
    hidden = [_request(call, call.id) for call in waiting if call.call_id not in asked]
    if requests:
        return requests, hidden, calls
    # With a save for each call to the model, the framework asks after the save: no request is stored.
    named = [(call, answered.get(call.call_id or "")) for call in waiting]
    asked_for = [
        _request(call, given.id if given else call.id) for call, given in named if given or call.name not in safe
    ]
    return asked_for, [_request(call, call.id) for call, given in named if not given and call.name in safe], calls


def _request(call: Content, occurrence: str | None) -> Content:
    asked = Content.from_dict(call.to_dict())
    asked.id = occurrence or call.call_id
    return Content.from_function_approval_request(cast(str, asked.id), asked)


def _group(
    requests: Sequence[Content], hidden: Sequence[Content], calls: Sequence[Content], responses: Iterable[Content]
) -> Json:
    """Return the framework's record of a batch: the run continues when each of its requests is answered."""
    asked = {call_id_of(request): request for request in (*requests, *hidden)}
    ids = {call_id: request.id for call_id, request in asked.items()}
    group: Json = {
        "approval_request_ids": [request.id for request in requests],
        "approval_requests": [request.to_dict() for request in hidden],
        "function_call_order": [{"id": ids.get(call.call_id, call.id), "call_id": call.call_id} for call in calls],
    }
    given: list[Json] = []
    for response in responses:
        request = asked.get(call_id_of(response))
        if request is not None and _is_answer(response, request):
            properties = {**response.additional_properties, _REQUEST_ID: request.id}
            # The model's own call: a caller can send other arguments or another name with the approval.
            call = cast(Content, request.function_call).to_dict()
            given.append({**response.to_dict(), "function_call": call, "additional_properties": properties})
    if given:
        group[_RESPONSES] = given
    return group


def _is_answer(response: Content, request: Content) -> bool:
    """Return whether the framework accepted a response to a request: it ignores a response with other ids."""
    made, sent = cast(Content, request.function_call), response.function_call
    if sent is None or sent.call_id != made.call_id:
        return False
    return response.id in {request.id, made.id or request.id} and made.id in {None, sent.id}


def _ends_of_runs(stored: Sequence[tuple[Message, int]]) -> Iterator[int]:
    """Give the place of each turn's last message of the assistant."""
    last = {turn: at for at, (message, turn) in enumerate(stored) if message.role == "assistant"}
    yield from last.values()

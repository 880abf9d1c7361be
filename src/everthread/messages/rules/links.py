"""Read the tool calls and results of a message as parts that can be taken out, in each format. No I/O.

A *part* is a tool call or a result that the caller of the model has to link. Calls that a service carries out itself,
approvals and everything else are content.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import msgspec

from everthread.messages.codec import as_list, as_object, as_text
from everthread.messages.formats import pydantic_ai
from everthread.messages.formats.agent_framework import BETA_TYPE, CURRENT_TYPE, role_of

NO_RESULT = "The result of this call was not recorded, so its outcome is unknown."
Value = Mapping[str, object]


class Part(NamedTuple):
    """A tool call, or a tool's result."""

    is_call: bool
    call_id: str


class Shape(msgspec.Struct, frozen=True):
    """The structure of a message, without its content.

    Attributes:
        role: ``"user"``, ``"assistant"``, ``"tool"`` (results only), or another.
        parts: Its calls and results, in order.
        is_filled: It has text, media or anything else that a model gets, besides parts and reasoning.
        thinks: It has reasoning.
        id: The identifier that the service gave it; empty without one.
        waiting: The calls in it that wait for an approval.
    """

    role: str = ""
    parts: tuple[Part, ...] = ()
    is_filled: bool = False
    thinks: bool = False
    id: str = ""
    waiting: tuple[str, ...] = ()

    @property
    def answers(self) -> bool:
        """Whether it has results."""
        return any(not part.is_call for part in self.parts)

    @property
    def calls(self) -> bool:
        """Whether it makes calls."""
        return any(part.is_call for part in self.parts)


class Layout(NamedTuple):
    """The functions of a format.

    Attributes:
        shape: Return the structure of a message.
        without: Return a message without some of its parts, by number; ``None`` if nothing else is in it.
        answer: Return a message with an unknown result for a call; ``None`` if there is no such result. The second
            argument is the message with the call.
        note: Return a message of the assistant with a text. The second argument is a message of the same thread.
        joined: Return a message of results with those of another added; ``None`` if the format has one a message.
    """

    shape: Callable[[Value], Shape]
    without: Callable[[Value, Collection[int]], Value | None]
    answer: Callable[[str, Value], Value | None]
    note: Callable[[str, Value], Value]
    joined: Callable[[Value, Value], Value | None]


def layout_of(format: str) -> Layout | None:
    """Return the functions of a format; ``None`` if its structure is not known."""
    return _LAYOUTS.get(format)


def shape_of(value: object, format: str) -> Shape:
    """Return the structure of a decoded message; one of an unknown format is content without a role."""
    layout, known = layout_of(format), as_object(value)
    if layout is None or not known:
        return Shape(is_filled=True)
    return layout.shape(known)


# Agent Framework


def _framework_parts(value: Value) -> list[tuple[int, Part]]:
    found: list[tuple[int, Part]] = []
    for at, content in enumerate(map(as_object, as_list(value.get("contents")))):
        kind, call_id = content.get("type"), as_text(content.get("call_id"))
        if call_id and kind == "function_result":
            found.append((at, Part(False, call_id)))
        elif call_id and kind == "function_call" and not _is_hosted(content):
            found.append((at, Part(True, call_id)))
    return found


def _is_hosted(content: Value) -> bool:
    more = as_object(content.get("additional_properties"))
    return any(of.get(name) for of in (content, more) for name in ("informational_only", "hosted"))


def _framework_shape(value: Value) -> Shape:
    parts = _framework_parts(value)
    linked = {at for at, _ in parts}
    is_filled = thinks = False
    waiting: list[str] = []
    for at, content in enumerate(as_list(value.get("contents"))):
        known = as_object(content)
        kind = as_text(known.get("type"))
        if at in linked or kind == "usage":
            continue
        if kind == "text_reasoning":
            thinks = True
        else:
            text = content if isinstance(content, str) else known.get("text")
            is_filled = is_filled or kind not in {"", "text"} or bool(text)
        if kind.startswith("function_approval_"):
            waiting.append(as_text(as_object(known.get("function_call")).get("call_id")))
    role = role_of(value)
    return Shape(
        role, tuple(part for _, part in parts), is_filled, thinks, as_text(value.get("message_id")), tuple(waiting)
    )


def _framework_without(value: Value, numbers: Collection[int]) -> Value | None:
    dropped = {at for number, (at, _) in enumerate(_framework_parts(value)) if number in numbers}
    kept = [content for at, content in enumerate(as_list(value.get("contents"))) if at not in dropped]
    has_more = any(as_object(content).get("type") != "usage" for content in kept)
    return {**value, "contents": kept} if has_more else None


def _framework_message(role: str, content: Value, like: Value) -> Value:
    is_beta = like.get("type") == BETA_TYPE
    named: object = {"type": "role", "value": role} if is_beta else role
    return {"type": BETA_TYPE if is_beta else CURRENT_TYPE, "role": named, "contents": [content]}


def _framework_answer(call_id: str, like: Value) -> Value:
    return _framework_message("tool", {"type": "function_result", "call_id": call_id, "result": NO_RESULT}, like)


def _framework_note(text: str, like: Value) -> Value:
    return _framework_message("assistant", {"type": "text", "text": text}, like)


def _framework_joined(value: Value, other: Value) -> Value | None:
    if role_of(value) != "tool" or value.get("type") != other.get("type"):
        return None
    return {**value, "contents": [*as_list(value.get("contents")), *as_list(other.get("contents"))]}


# OpenAI's chat completions


def _chat_shape(value: Value) -> Shape:
    role = as_text(value.get("role"))
    if role == "tool":
        return Shape(role, (Part(False, as_text(value.get("tool_call_id"))),))
    calls = [as_text(as_object(call).get("id")) for call in as_list(value.get("tool_calls"))]
    is_filled = any(value.get(name) for name in ("content", "refusal", "audio", "function_call"))
    thinks = any(value.get(name) for name in ("reasoning_content", "reasoning", "reasoning_details"))
    return Shape(role, tuple(Part(True, call_id) for call_id in calls), is_filled, thinks)


def _chat_without(value: Value, numbers: Collection[int]) -> Value | None:
    if value.get("role") == "tool":
        return None
    kept = [call for number, call in enumerate(as_list(value.get("tool_calls"))) if number not in numbers]
    if kept:
        return {**value, "tool_calls": kept}
    rest = {name: item for name, item in value.items() if name != "tool_calls"}
    return rest if _chat_shape(rest).is_filled else None


def _chat_answer(call_id: str, like: Value) -> Value:
    return {"role": "tool", "tool_call_id": call_id, "content": NO_RESULT}


def _chat_note(text: str, like: Value) -> Value:
    return {"role": "assistant", "content": text}


# OpenAI's Responses: an item is a message, a call, a result or reasoning


def _item_part(value: Value) -> Part | None:
    kind = as_text(value.get("type"))
    # The output of a local shell has the call's ID as its own.
    call_id = as_text(value.get("call_id")) or (as_text(value.get("id")) if kind == "local_shell_call_output" else "")
    if call_id and kind.endswith(("_call", "_call_output")):
        return Part(kind.endswith("_call"), call_id)
    return None


def _item_shape(value: Value) -> Shape:
    kind, item_id, part = as_text(value.get("type")), as_text(value.get("id")), _item_part(value)
    if part is not None:
        return Shape("assistant" if part.is_call else "tool", (part,), id=item_id)
    if kind == "reasoning":
        return Shape("assistant", thinks=True, id=item_id)
    role = as_text(value.get("role")) or "assistant"
    is_filled = kind not in {"", "message"} or bool(_item_text(value.get("content")))
    return Shape(role, is_filled=is_filled, id=item_id)


def _item_text(content: object) -> bool:
    parts = as_list(content)
    if not parts:
        return bool(content)
    # Parts without text are media.
    return any(as_object(part).get("text") or "text" not in as_object(part) for part in parts)


def _item_without(value: Value, numbers: Collection[int]) -> Value | None:
    return None


def _item_answer(call_id: str, like: Value) -> Value | None:
    kind = as_text(like.get("type"))
    # The outputs of other tools are not text.
    if kind not in {"function_call", "custom_tool_call"}:
        return None
    return {"type": f"{kind}_output", "call_id": call_id, "output": NO_RESULT}


# LangChain


def _langchain_shape(value: Value) -> Shape:
    data, kind = as_object(value.get("data")), as_text(value.get("type"))
    message_id = as_text(data.get("id"))
    if kind.startswith(("tool", "Tool")):
        return Shape("tool", (Part(False, as_text(data.get("tool_call_id"))),), id=message_id)
    calls = [as_text(as_object(call).get("id")) for call in as_list(data.get("tool_calls"))]
    content = data.get("content")
    blocks = [as_object(block).get("type") for block in as_list(content)]
    others = [block for block in blocks if block not in {"tool_use", "tool_call", "function_call", *_THOUGHTS}]
    is_filled = bool(content) if isinstance(content, str) else bool(others)
    role = {"human": "user", "ai": "assistant", "system": "system"}.get(kind.removesuffix("MessageChunk").lower())
    role = role or as_text(data.get("role"))
    thinks = any(block in _THOUGHTS for block in blocks)
    return Shape(role, tuple(Part(True, call_id) for call_id in calls), is_filled, thinks, message_id)


_THOUGHTS = frozenset({"thinking", "redacted_thinking", "reasoning"})


def _langchain_without(value: Value, numbers: Collection[int]) -> Value | None:
    data = as_object(value.get("data"))
    calls = as_list(data.get("tool_calls"))
    if not calls:
        return None
    gone = {as_text(as_object(call).get("id")) for number, call in enumerate(calls) if number in numbers}

    def kept(entries: object) -> list[object]:
        return [each for each in as_list(entries) if as_text(as_object(each).get("id")) not in gone]

    changed: dict[str, object] = {**data, "tool_calls": kept(calls)}
    if isinstance(data.get("content"), list):
        changed["content"] = kept(data["content"])
    more = as_object(data.get("additional_kwargs"))
    if "tool_calls" in more:
        left = kept(more["tool_calls"])
        rest = {name: item for name, item in more.items() if name != "tool_calls"}
        changed["additional_kwargs"] = {**rest, "tool_calls": left} if left else rest
    without = {**value, "data": changed}
    shape = _langchain_shape(without)
    return without if shape.parts or shape.is_filled or shape.thinks else None


def _langchain_answer(call_id: str, like: Value) -> Value:
    return {"type": "tool", "data": {"type": "tool", "content": NO_RESULT, "tool_call_id": call_id, "status": "error"}}


def _langchain_note(text: str, like: Value) -> Value:
    return {"type": "ai", "data": {"type": "ai", "content": text}}


# Anthropic


def _blocks(value: Value) -> list[Value]:
    content = value.get("content")
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(map(as_object, as_list(content)))


def _anthropic_parts(value: Value) -> list[tuple[int, Part]]:
    found: list[tuple[int, Part]] = []
    for at, block in enumerate(_blocks(value)):
        if block.get("type") == "tool_use":
            found.append((at, Part(True, as_text(block.get("id")))))
        elif block.get("type") == "tool_result":
            found.append((at, Part(False, as_text(block.get("tool_use_id")))))
    return found


def _anthropic_shape(value: Value) -> Shape:
    parts = tuple(part for _, part in _anthropic_parts(value))
    others = [block for block in _blocks(value) if block.get("type") not in {"tool_use", "tool_result"}]
    thoughts = [block for block in others if block.get("type") in _THOUGHTS]
    is_filled = any(
        block.get("type") not in _THOUGHTS and (block.get("type") != "text" or block.get("text")) for block in others
    )
    is_results = any(not part.is_call for part in parts) and not is_filled
    return Shape("tool" if is_results else as_text(value.get("role")), parts, is_filled, bool(thoughts))


def _anthropic_without(value: Value, numbers: Collection[int]) -> Value | None:
    dropped = {at for number, (at, _) in enumerate(_anthropic_parts(value)) if number in numbers}
    kept = [block for at, block in enumerate(as_list(value.get("content"))) if at not in dropped]
    return {**value, "content": kept} if kept else None


def _anthropic_answer(call_id: str, like: Value) -> Value:
    block = {"type": "tool_result", "tool_use_id": call_id, "content": NO_RESULT, "is_error": True}
    return {"role": "user", "content": [block]}


def _anthropic_joined(value: Value, other: Value) -> Value | None:
    if value.get("role") != "user":
        return None
    # All results of a message come first in the next one.
    return {**value, "content": [*as_list(other.get("content")), *_blocks(value)]}


# Pydantic AI


def _pydantic_parts(value: Value) -> list[tuple[int, Part]]:
    found: list[tuple[int, Part]] = []
    for at, part in enumerate(map(as_object, as_list(value.get("parts")))):
        call_id = as_text(part.get("tool_call_id"))
        if pydantic_ai.answers_a_call(part):
            found.append((at, Part(False, call_id)))
        elif call_id and part.get("part_kind") == "tool-call":
            found.append((at, Part(True, call_id)))
    return found


def _pydantic_shape(value: Value) -> Shape:
    if pydantic_ai.MARK in value:
        # Entries of a conversation store form a tree, and the framework repairs each history before a request.
        return Shape("assistant" if value.get("kind") == "response" else "user", is_filled=True)
    parts = _pydantic_parts(value)
    linked = {at for at, _ in parts}
    rest = [part for at, part in enumerate(map(as_object, as_list(value.get("parts")))) if at not in linked]
    others = [part for part in rest if part.get("part_kind") != "thinking"]
    is_filled = any(part.get("content", True) not in ("", None) for part in others)
    role = "assistant" if value.get("kind") == "response" else "user" if others else "tool"
    return Shape(
        role,
        tuple(part for _, part in parts),
        is_filled,
        len(others) < len(rest),
        as_text(value.get("provider_response_id")),
    )


def _pydantic_without(value: Value, numbers: Collection[int]) -> Value | None:
    dropped = {at for number, (at, _) in enumerate(_pydantic_parts(value)) if number in numbers}
    kept = [part for at, part in enumerate(as_list(value.get("parts"))) if at not in dropped]
    return {**value, "parts": kept} if kept else None


def _pydantic_answer(call_id: str, like: Value) -> Value:
    calls = [part for part in map(as_object, as_list(like.get("parts"))) if part.get("tool_call_id") == call_id]
    name = as_text(calls[0].get("tool_name")) if calls else ""
    part = {"part_kind": "tool-return", "tool_name": name, "tool_call_id": call_id, "content": NO_RESULT}
    return {"kind": "request", "parts": [part]}


def _pydantic_note(text: str, like: Value) -> Value:
    return {"kind": "response", "parts": [{"part_kind": "text", "content": text}]}


def _pydantic_joined(value: Value, other: Value) -> Value | None:
    if value.get("kind") != "request":
        return None
    # Results come before the other parts of a request.
    return {**value, "parts": [*as_list(other.get("parts")), *as_list(value.get("parts"))]}


def _never_joined(value: Value, other: Value) -> Value | None:
    return None


_LAYOUTS: dict[str, Layout] = {
    "agent-framework": Layout(
        _framework_shape, _framework_without, _framework_answer, _framework_note, _framework_joined
    ),
    "chat-completions": Layout(_chat_shape, _chat_without, _chat_answer, _chat_note, _never_joined),
    "openai-responses": Layout(_item_shape, _item_without, _item_answer, _chat_note, _never_joined),
    "langchain": Layout(_langchain_shape, _langchain_without, _langchain_answer, _langchain_note, _never_joined),
    "anthropic": Layout(_anthropic_shape, _anthropic_without, _anthropic_answer, _chat_note, _anthropic_joined),
    "pydantic-ai": Layout(_pydantic_shape, _pydantic_without, _pydantic_answer, _pydantic_note, _pydantic_joined),
}

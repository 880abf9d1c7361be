"""Payloads that are changed to mend a thread: results taken out, and results put in for calls that have none."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from everthread.codec import as_list, as_object
from everthread.formats.agent_framework import BETA_TYPE, CURRENT_TYPE

NO_RESULT = "The result of this call was not recorded."


def without_results(value: Mapping[str, object], format: str, ids: Collection[str]) -> Mapping[str, object] | None:
    """The payload without the results of these calls; ``None`` if nothing else is in it."""
    if format != "agent-framework":
        return None
    contents = as_list(value.get("contents"))
    kept = [content for content in contents if not _is_result(as_object(content), ids)]
    return {**value, "contents": kept} if kept else None


def result_of(call_id: str, format: str, *, beta: bool = False) -> Mapping[str, object] | None:
    """A message that answers a call, saying that its result is not known; ``None`` where the format has none."""
    if format == "chat-completions":
        return {"role": "tool", "tool_call_id": call_id, "content": NO_RESULT}
    if format != "agent-framework":
        return None
    content = {"type": "function_result", "call_id": call_id, "result": NO_RESULT}
    role: object = {"type": "role", "value": "tool"} if beta else "tool"
    return {"type": BETA_TYPE if beta else CURRENT_TYPE, "role": role, "contents": [content]}


def _is_result(content: Mapping[str, object], ids: Collection[str]) -> bool:
    return str(content.get("type", "")).endswith("_result") and str(content.get("call_id")) in ids

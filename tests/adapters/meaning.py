"""What a message of any release of Agent Framework says, as JSON values that can be compared between processes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any


def meaning(messages: Sequence[Any]) -> list[dict[str, Any]]:
    """Role, text, author, calls, results and media of each message."""
    return [_meaning(message) for message in messages]


def _meaning(message: Any) -> dict[str, Any]:
    contents = list(message.contents)
    calls = [content for content in contents if content.type == "function_call"]
    results = [content for content in contents if content.type == "function_result"]
    requests = [content for content in contents if content.type == "function_approval_request"]
    responses = [content for content in contents if content.type == "function_approval_response"]
    return {
        "role": getattr(message.role, "value", message.role),
        # Not ``message.text``: the first releases of 1.x cannot join a text that is None.
        "text": " ".join(content.text for content in contents if content.type == "text" and content.text),
        "author": message.author_name,
        "id": message.message_id,
        "calls": [[call.call_id or "", call.name or "", _json(call.arguments)] for call in calls],
        "results": [[result.call_id or "", _text(result)] for result in results],
        "media": [content.uri or "" for content in contents if content.type in {"data", "uri"}],
        "asked": [[request.id or "", _name(request)] for request in requests],
        "answered": [[response.id or "", response.approved is True, _name(response)] for response in responses],
        "reasoning": [content.text or "" for content in contents if content.type == "text_reasoning"],
        "errors": [[content.message, content.error_code] for content in contents if content.type == "error"],
        "hosted": [content.file_id or "" for content in contents if content.type == "hosted_file"],
        "cited": [_citations(content) for content in contents if content.type == "text" and content.annotations],
    }


def _name(approval: Any) -> str:
    return getattr(approval.function_call, "name", None) or ""


def _json(arguments: Any) -> Any:
    return arguments if arguments is None or isinstance(arguments, str) else json.dumps(arguments)


def _text(result: Any) -> str:
    """What the model is told; media in a result are seen by their addresses."""
    items = getattr(result, "items", None)
    if items and any(item.type != "text" for item in items):
        return "\n".join(item.text or item.uri or "" for item in items)
    value = result.result
    if isinstance(value, list) and value and all(isinstance(item, dict) and "type" in item for item in value):
        return "\n".join(item.get("text") or item.get("uri") or "" for item in value)
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


def _citations(content: Any) -> list[str]:
    return [each.get("title") if isinstance(each, dict) else each.title for each in content.annotations]

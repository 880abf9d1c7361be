"""A server with OpenAI's responses that follows a script, keeps conversations and refuses what OpenAI refuses.

Source of the rules: the error texts of https://api.openai.com/v1/responses for such requests.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.openai_server import Call, RefusedError, Reply, Script, serving

Json = dict[str, Any]


@dataclass
class Thought:
    """A piece of reasoning in a script; ``sealed`` is what a client gives back to a server that keeps nothing."""

    text: str = "hm"
    sealed: str | None = "sealed"


@dataclass
class ScriptedResponses:
    """A running server: its address, all requests, and each conversation by the id of its last response."""

    script: Script
    url: str = ""
    requests: list[Json] = field(default_factory=list)
    conversations: dict[str, list[Json]] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)

    def answer(self, body: Json) -> Json:
        """Return the response to a request.

        Raises:
            RefusedError: OpenAI refuses such a conversation.
        """
        before = self.conversations[body["previous_response_id"]] if body.get("previous_response_id") else []
        items = [*before, *body["input"]]
        refuse_invalid_items(items)
        number = len(self.requests)
        output = [_output_item(part, f"{number}_{at}") for at, part in enumerate(self.script.next())]
        response = {"id": f"resp_{number}", "object": "response", "created_at": 1, "model": "scripted"}
        self.conversations[response["id"]] = items + output
        usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
        usage |= {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
        return response | {
            "status": "completed",
            "output": output,
            "usage": usage,
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
        }


def refuse_invalid_items(items: Sequence[Json]) -> None:
    """Refuse reasoning that leads to nothing, a call without its output and an output without its call."""
    open_calls: set[str] = set()
    for item, following in zip(items, [*items[1:], {}], strict=True):
        kind = item.get("type", "message")
        if kind == "reasoning" and not (
            following.get("type") in {"function_call", "reasoning"} or following.get("role") == "assistant"
        ):
            raise RefusedError(
                f"Item '{item['id']}' of type 'reasoning' was provided without its required following item."
            )
        if kind == "function_call":
            open_calls.add(item["call_id"])
        elif kind == "function_call_output":
            if item["call_id"] not in open_calls:
                raise RefusedError(f"No tool call found for function call output with call_id {item['call_id']}.")
            open_calls.remove(item["call_id"])
    if open_calls:
        raise RefusedError(f"No tool output found for function call {min(open_calls)}.")


@contextmanager
def scripted_responses(*replies: Reply, then: str = "Done.") -> Iterator[ScriptedResponses]:
    """A server with OpenAI's responses, streaming and not."""
    state = ScriptedResponses(Script(*replies, then=then))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.requests.append(body)
            try:
                response = state.answer(body)
            except Exception as error:
                state.refused.append(str(error))
                refusal = {"error": {"message": str(error), "type": "invalid_request_error"}}
                self._send(400, "application/json", json.dumps(refusal).encode())
                return
            if body.get("stream"):
                lines = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in _events(response))
                self._send(200, "text/event-stream", lines.encode())
            else:
                self._send(200, "application/json", json.dumps(response).encode())

        def _send(self, status: int, kind: str, data: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with serving(Handler) as address:
        state.url = f"{address}/v1"
        yield state


def _output_item(part: Any, number: str) -> Json:
    if isinstance(part, str):
        text = {"type": "output_text", "text": part, "annotations": []}
        return {"type": "message", "id": f"msg_{number}", "role": "assistant", "status": "completed", "content": [text]}
    if isinstance(part, Thought):
        summary = [{"type": "summary_text", "text": part.text}]
        return {"type": "reasoning", "id": f"rs_{number}", "summary": summary, "encrypted_content": part.sealed}
    assert isinstance(part, Call)
    called = {"call_id": part.id, "name": part.name, "arguments": json.dumps(part.arguments)}
    return {"type": "function_call", "id": f"fc_{number}", "status": "completed"} | called


def _events(response: Json) -> Iterator[Json]:
    number = 0

    def event(kind: str, **values: Any) -> Json:
        nonlocal number
        number += 1
        return {"type": kind, "sequence_number": number} | values

    yield event("response.created", response=response | {"status": "in_progress", "output": []})
    for at, item in enumerate(response["output"]):
        place = {"output_index": at, "item_id": item["id"]}
        if item["type"] == "message":
            yield event("response.output_item.added", output_index=at, item=item | {"content": []})
            text = item["content"][0]["text"]
            for piece in (text[: len(text) // 2], text[len(text) // 2 :]):
                yield event("response.output_text.delta", **place, content_index=0, delta=piece, logprobs=[])
        elif item["type"] == "function_call":
            yield event("response.output_item.added", output_index=at, item=item | {"arguments": ""})
            yield event("response.function_call_arguments.delta", **place, delta=item["arguments"])
        else:
            yield event("response.output_item.added", output_index=at, item=item | {"summary": []})
            delta = item["summary"][0]["text"]
            yield event("response.reasoning_summary_text.delta", **place, summary_index=0, delta=delta)
        yield event("response.output_item.done", output_index=at, item=item)
    yield event("response.completed", response=response)

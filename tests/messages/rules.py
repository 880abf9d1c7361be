"""The same conversation in each format, for the tests of the rules."""

from __future__ import annotations

from typing import Any

Message = dict[str, Any]


class ChatCompletions:
    """A format: how it writes what a test needs."""

    name = "chat-completions"

    def said(self, text: str, role: str = "user") -> Message:
        return {"role": role, "content": text}

    def call(self, *ids: str, text: str | None = None) -> list[Message]:
        calls = [{"id": each, "type": "function", "function": {"name": "f", "arguments": "{}"}} for each in ids]
        return [{"role": "assistant", "content": text, "tool_calls": calls}]

    def result(self, call_id: str) -> Message:
        return {"role": "tool", "tool_call_id": call_id, "content": "42"}

    def empty(self) -> Message:
        return {"role": "assistant", "content": ""}

    def reasoning(self) -> Message | None:
        return None


class AgentFramework(ChatCompletions):
    name = "agent-framework"

    def message(self, role: str, *contents: Message) -> Message:
        return {"type": "message", "role": role, "contents": list(contents)}

    def said(self, text: str, role: str = "user") -> Message:
        return self.message(role, {"type": "text", "text": text})

    def call(self, *ids: str, text: str | None = None) -> list[Message]:
        texts = [{"type": "text", "text": text}] if text else []
        calls = [{"type": "function_call", "call_id": each, "name": "f", "arguments": "{}"} for each in ids]
        return [self.message("assistant", *texts, *calls)]

    def result(self, call_id: str) -> Message:
        return self.message("tool", {"type": "function_result", "call_id": call_id, "result": "42"})

    def empty(self) -> Message:
        return self.message("assistant")

    def reasoning(self) -> Message | None:
        return self.message("assistant", {"type": "text_reasoning", "text": "hm"})


class Responses(ChatCompletions):
    name = "openai-responses"

    def call(self, *ids: str, text: str | None = None) -> list[Message]:
        texts = [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}]
        calls = [{"type": "function_call", "call_id": each, "name": "f", "arguments": "{}"} for each in ids]
        return [*(texts if text else []), *calls]

    def result(self, call_id: str) -> Message:
        return {"type": "function_call_output", "call_id": call_id, "output": "42"}

    def empty(self) -> Message:
        return {"type": "message", "role": "assistant", "content": []}

    def reasoning(self) -> Message | None:
        return {"type": "reasoning", "id": "rs_1", "summary": []}


class LangChain(ChatCompletions):
    name = "langchain"

    def said(self, text: str, role: str = "user") -> Message:
        kind = {"user": "human", "assistant": "ai"}[role]
        return {"type": kind, "data": {"content": text, "type": kind}}

    def call(self, *ids: str, text: str | None = None) -> list[Message]:
        calls = [{"name": "f", "args": {}, "id": each, "type": "tool_call"} for each in ids]
        return [{"type": "ai", "data": {"content": text or "", "type": "ai", "tool_calls": calls}}]

    def result(self, call_id: str) -> Message:
        return {"type": "tool", "data": {"content": "42", "type": "tool", "tool_call_id": call_id}}

    def empty(self) -> Message:
        return self.said("", "assistant")

    def reasoning(self) -> Message | None:
        blocks = [{"type": "thinking", "thinking": "hm", "signature": "s"}]
        return {"type": "ai", "data": {"content": blocks, "type": "ai"}}


class Anthropic(ChatCompletions):
    name = "anthropic"

    def call(self, *ids: str, text: str | None = None) -> list[Message]:
        texts = [{"type": "text", "text": text}] if text else []
        calls = [{"type": "tool_use", "id": each, "name": "f", "input": {}} for each in ids]
        return [{"role": "assistant", "content": [*texts, *calls]}]

    def result(self, call_id: str) -> Message:
        return {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call_id, "content": "42"}]}

    def empty(self) -> Message:
        return {"role": "assistant", "content": []}

    def reasoning(self) -> Message | None:
        return {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "s"}]}


class PydanticAI(ChatCompletions):
    name = "pydantic-ai"

    def message(self, kind: str, *parts: Message) -> Message:
        return {"kind": kind, "parts": list(parts)}

    def said(self, text: str, role: str = "user") -> Message:
        if role == "assistant":
            return self.message("response", {"part_kind": "text", "content": text})
        return self.message("request", {"part_kind": "user-prompt", "content": text})

    def call(self, *ids: str, text: str | None = None) -> list[Message]:
        texts = [{"part_kind": "text", "content": text}] if text else []
        calls = [{"part_kind": "tool-call", "tool_call_id": each, "tool_name": "f", "args": {}} for each in ids]
        return [self.message("response", *texts, *calls)]

    def result(self, call_id: str) -> Message:
        part = {"part_kind": "tool-return", "tool_call_id": call_id, "tool_name": "f", "content": "42"}
        return self.message("request", part)

    def empty(self) -> Message:
        return self.message("response")

    def reasoning(self) -> Message | None:
        return self.message("response", {"part_kind": "thinking", "content": "hm"})


FORMATS = (ChatCompletions(), AgentFramework(), Responses(), LangChain(), Anthropic(), PydanticAI())

"""Messages of the formats of other programs, for tests of what an agent gets of them. Imports no framework."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

PNG = "data:image/png;base64,iVBORw0="
LINK = "https://example.com/a.png"
ARGUMENTS = '{"city":"Rome"}'

_TEXT = st.text(st.characters(), min_size=1, max_size=12)


def _function(call_id: str) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": "weather", "arguments": ARGUMENTS}}


CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "chat-completions": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Weather?"},
                {"type": "image_url", "image_url": {"url": PNG}},
                {"type": "image_url", "image_url": {"url": LINK}},
            ],
        },
        {"role": "assistant", "content": None, "tool_calls": [_function("c1"), _function("c2")]},
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "warm"}]},
        {"role": "assistant", "content": "It is sunny."},
    ],
    "anthropic": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Weather?"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG[22:]}},
                {"type": "image", "source": {"type": "url", "url": LINK}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Two places.", "signature": "x"},
                {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Rome"}},
                {"type": "tool_use", "id": "c2", "name": "weather", "input": {"city": "Rome"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": "sunny"},
                {"type": "tool_result", "tool_use_id": "c2", "content": [{"type": "text", "text": "warm"}]},
            ],
        },
        {"type": "message", "role": "assistant", "content": [{"type": "text", "text": "It is sunny."}], "id": "m"},
    ],
    "openai-responses": [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "Weather?"},
                {"type": "input_image", "image_url": PNG},
                {"type": "input_image", "image_url": LINK},
            ],
        },
        {"type": "reasoning", "id": "r", "summary": [], "encrypted_content": "x"},
        {"type": "function_call", "call_id": "c1", "id": "f1", "name": "weather", "arguments": ARGUMENTS},
        {"type": "function_call", "call_id": "c2", "id": "f2", "name": "weather", "arguments": ARGUMENTS},
        {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "warm"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "It is sunny."}]},
    ],
    "langchain": [
        {
            "type": "human",
            "data": {
                "content": [
                    "Weather?",
                    {"type": "image", "source_type": "base64", "data": PNG.partition(",")[2], "mime_type": "image/png"},
                    {"type": "image_url", "image_url": {"url": LINK}},
                ]
            },
        },
        {
            "type": "ai",
            "data": {
                "content": "",
                "tool_calls": [{"id": each, "name": "weather", "args": {"city": "Rome"}} for each in ("c1", "c2")],
            },
        },
        {"type": "tool", "data": {"content": "sunny", "tool_call_id": "c1"}},
        {"type": "tool", "data": {"content": "warm", "tool_call_id": "c2"}},
        {"type": "ai", "data": {"content": "It is sunny."}},
    ],
}
"""The same conversation in each format."""

ROLES = ["user", "assistant", "system", "developer", "tool", "function"]
SAID: dict[str, st.SearchStrategy[Any]] = {
    "chat-completions": st.builds(
        lambda role, content: {"role": role, "content": content},
        st.sampled_from(ROLES),
        _TEXT | st.lists(st.builds(lambda text: {"type": "text", "text": text}, _TEXT), min_size=1, max_size=2),
    ),
    "openai-responses": st.builds(
        lambda role, content: {"type": "message", "role": role, "content": content},
        st.sampled_from(ROLES),
        _TEXT | st.lists(st.builds(lambda text: {"type": "input_text", "text": text}, _TEXT), min_size=1, max_size=2),
    ),
    "anthropic": st.builds(
        lambda role, texts: {"role": role, "content": [{"type": "text", "text": text} for text in texts]},
        st.sampled_from(ROLES[:2]),
        st.lists(_TEXT, min_size=1, max_size=2),
    ),
    "langchain": st.builds(
        lambda kind, content: {"type": kind, "data": {"content": content, "role": "narrator"}},
        st.sampled_from(["human", "ai", "system", "tool", "chat", "AIMessageChunk"]),
        _TEXT | st.lists(_TEXT, min_size=1, max_size=2),
    ),
    "pydantic-ai": st.builds(
        lambda content: {"kind": "request", "parts": [{"part_kind": "user-prompt", "content": content}]},
        _TEXT | st.lists(_TEXT, min_size=1, max_size=2),
    ),
    "agent-framework": st.builds(
        lambda role, texts: {"type": "message", "role": role, "contents": [*texts, {"type": "text", "text": texts[0]}]},
        st.sampled_from(ROLES[:3]),
        st.lists(_TEXT, min_size=1, max_size=2),
    ),
}
"""Messages with text, by format. Texts may hold lone surrogates, as other programs store them."""

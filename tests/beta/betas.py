"""The betas' names, which changed three times, under one: messages, contents, agents and a scripted chat client."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import agent_framework as framework

from tests.openai_server import Call, Reply, Script, refuse_invalid

HAS_CLASSES = hasattr(framework, "TextContent")
HAS_ROLES = hasattr(framework, "ChatMessage")
Message: Any = framework.ChatMessage if HAS_ROLES else framework.Message
Agent: Any = framework.ChatAgent if hasattr(framework, "ChatAgent") else framework.Agent
tool: Any = framework.ai_function if hasattr(framework, "ai_function") else framework.tool


def message(role: str, *contents: Any, **options: Any) -> Any:
    """A message of text and contents."""
    parts = [text(part) if isinstance(part, str) else part for part in contents]
    return Message(role, contents=parts, **options)


def text(value: str, **extras: Any) -> Any:
    return framework.TextContent(value, **extras) if HAS_CLASSES else _content("from_text", value, **extras)


def call(call_id: str, name: str = "weather", arguments: Any = "{}", **extras: Any) -> Any:
    if HAS_CLASSES:
        return framework.FunctionCallContent(call_id=call_id, name=name, arguments=arguments, **extras)
    return _content("from_function_call", call_id, name, arguments=arguments, **extras)


def result(call_id: str, value: Any = "sunny", exception: Any = None, **extras: Any) -> Any:
    if HAS_CLASSES:
        return framework.FunctionResultContent(call_id=call_id, result=value, exception=exception, **extras)
    return _content("from_function_result", call_id, result=value, exception=exception and str(exception), **extras)


def reasoning(value: str) -> Any:
    return framework.TextReasoningContent(value) if HAS_CLASSES else _content("from_text_reasoning", text=value)


def image(data: bytes = b"\x89PNG", **extras: Any) -> Any:
    if HAS_CLASSES:
        return framework.DataContent(data=data, media_type="image/png", **extras)
    return _content("from_data", data=data, media_type="image/png", **extras)


def link(uri: str = "https://example.com/a.png", media_type: str = "image/png") -> Any:
    return framework.UriContent(uri, media_type) if HAS_CLASSES else _content("from_uri", uri, media_type=media_type)


def error(said: str, code: str | None = None, details: str | None = None) -> Any:
    if HAS_CLASSES:
        return framework.ErrorContent(message=said, error_code=code, details=details)
    return _content("from_error", message=said, error_code=code, error_details=details)


def usage(**counts: int) -> Any:
    if HAS_CLASSES:
        return framework.UsageContent(framework.UsageDetails(**counts))
    return _content("from_usage", counts)


def hosted_file(file_id: str) -> Any:
    return framework.HostedFileContent(file_id) if HAS_CLASSES else _content("from_hosted_file", file_id)


def hosted_vector_store(store_id: str) -> Any:
    if HAS_CLASSES:
        return framework.HostedVectorStoreContent(store_id)
    return _content("from_hosted_vector_store", store_id)


def approval_request(request_id: str, of: Any) -> Any:
    if HAS_CLASSES:
        return framework.FunctionApprovalRequestContent(id=request_id, function_call=of)
    return _content("from_function_approval_request", request_id, of)


def approval_response(request_id: str, of: Any, *, approved: bool) -> Any:
    if HAS_CLASSES:
        return framework.FunctionApprovalResponseContent(approved, id=request_id, function_call=of)
    return _content("from_function_approval_response", approved, request_id, of)


def cited(value: str) -> Any:
    """Text with a citation in it."""
    region = {"type": "text_span", "start_index": 0, "end_index": 1}
    citation = {"type": "citation", "title": "T", "url": "https://example.com", "annotated_regions": [region]}
    return text(value, annotations=[citation])


def every_content() -> list[Any]:
    """A content of each type that all betas have."""
    asked = call("c9", "book", '{"city": "Rome"}')
    return [
        *(text("Grüße 🌍 \x00 end"), text(""), cited("As written"), reasoning("hm")),
        *(image(), link(), error("failed", "E1", "details"), usage(input_token_count=3, output_token_count=4)),
        *(
            call("c1", arguments={"city": "Rome", "n": 2**70}),
            call("c2"),
            result("c1"),
            result("c2", {"t": [1.5, None]}),
        ),
        *(hosted_file("f1"), hosted_vector_store("v1")),
        *(approval_request("a1", asked), approval_response("a1", asked, approved=True)),
    ]


def with_extras() -> list[Any]:
    """Contents with properties that the framework does not know."""
    if HAS_CLASSES:
        return [text("x", color="red", nested={"a": [1]}), call("c1", tag="t"), image(filename="a.png")]
    extras = {"color": "red", "nested": {"a": [1]}}
    return [text("x", additional_properties=extras), call("c1", additional_properties=extras)]


def role_of(told: Any) -> str:
    return getattr(told.role, "value", told.role)


def said(messages: Sequence[Any]) -> list[tuple[str, str]]:
    """Role and text of each message."""
    return [(role_of(each), each.text) for each in messages]


def _content(maker: str, *values: Any, **options: Any) -> Any:
    return getattr(framework.Content, maker)(*values, **options)


class _Scripted:
    """What the scripted clients of all betas do."""

    def setup(self, script: Script) -> None:
        self.script = script
        self.seen: list[list[Any]] = []

    def answer(self, messages: Sequence[Any]) -> Any:
        self.seen.append(list(messages))
        refuse_invalid(shape(messages))
        parts = [_part(part) for part in self.script.next()]
        return framework.ChatResponse(messages=[message("assistant", *parts)], response_id="r")

    def update(self, messages: Sequence[Any]) -> Any:
        told = self.answer(messages).messages[0]
        return framework.ChatResponseUpdate(role="assistant", contents=told.contents, message_id=f"m{len(self.seen)}")


if hasattr(framework, "use_function_invocation"):

    @framework.use_function_invocation
    class ScriptedClient(_Scripted, framework.BaseChatClient):
        """A chat client that follows a script, and refuses what OpenAI refuses."""

        async def _inner_get_response(self, *, messages: Any, **options: Any) -> Any:
            return self.answer(messages)

        async def _inner_get_streaming_response(self, *, messages: Any, **options: Any) -> AsyncIterator[Any]:
            yield self.update(messages)

else:
    from agent_framework import FunctionInvocationLayer

    class ScriptedClient(FunctionInvocationLayer, _Scripted, framework.BaseChatClient):
        """A chat client that follows a script, and refuses what OpenAI refuses."""

        def _inner_get_response(self, *, messages: Any, stream: bool, **options: Any) -> Any:
            async def whole() -> Any:
                return self.answer(messages)

            async def streamed() -> AsyncIterator[Any]:
                yield self.update(messages)

            return self._build_response_stream(streamed()) if stream else whole()


def scripted(*replies: Reply, then: str = "Done.") -> Any:
    client = ScriptedClient()
    client.setup(Script(*replies, then=then))
    return client


def agent(client: Any, factory: Callable[[], Any] | None, **options: Any) -> Any:
    """An agent as the lab makes one."""
    given = {"name": "TravelPlanner", "instructions": "Be concise.", "chat_message_store_factory": factory}
    options = {**given, **options}
    return Agent(chat_client=client, **options) if hasattr(framework, "ChatAgent") else Agent(client, **options)


async def run(who: Any, said: str, thread: Any, *, stream: bool = False) -> str:
    """One turn, streamed or not; returns the reply's text."""
    if not stream:
        return (await who.run(said, thread=thread)).text
    updates = (
        who.run_stream(said, thread=thread) if hasattr(who, "run_stream") else who.run(said, thread=thread, stream=True)
    )
    told = "".join([update.text async for update in updates])
    if not hasattr(who, "run_stream"):
        # As of b260210 the thread gets a streamed turn only when the whole response is asked for.
        await updates.get_final_response()
    return told


def _part(part: Any) -> Any:
    if isinstance(part, str):
        return text(part)
    return call(part.id, part.name, json.dumps(part.arguments)) if isinstance(part, Call) else part


def shape(messages: Sequence[Any]) -> list[tuple[str, Sequence[str], str | None]]:
    shaped: list[tuple[str, Sequence[str], str | None]] = []
    for each in messages:
        results = [content.call_id for content in each.contents if content.type == "function_result"]
        calls = [content.call_id for content in each.contents if content.type == "function_call"]
        shaped += [("tool", [], answered) for answered in results]
        if not results:
            shaped.append((role_of(each), calls, None))
    return shaped

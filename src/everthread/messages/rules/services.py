"""The rules of each model service, as one table: what it answers to each kind of fault, and the source.

Services do not publish these rules as a whole. The sources are the services' documentation where it states a rule, and
otherwise public reports that quote the answer. ``…`` stands for an identifier or a number.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

Service = Literal["openai-chat", "openai-responses", "azure-openai", "anthropic", "gemini"]

Kind = Literal[
    "orphaned-result",
    "unanswered-call",
    "early-result",
    "separated-result",
    "duplicate",
    "half-turn",
    "empty-message",
    "dangling-reasoning",
    "undecodable",
    "unencodable",
    "oversized",
]
"""The kinds of faults. `DESCRIPTIONS` describes each."""

DESCRIPTIONS: Mapping[Kind, str] = MappingProxyType(
    {
        "orphaned-result": "a tool result without its call",
        "unanswered-call": "a tool call without a result",
        "early-result": "a tool result before its call",
        "separated-result": "a tool result that does not directly follow its call",
        "duplicate": "the same message, result or transcript again",
        "half-turn": "tool results that the model never answered",
        "empty-message": "a message of the assistant without content",
        "dangling-reasoning": "reasoning that no answer follows",
        "undecodable": "a record that is not JSON",
        "unencodable": "a lone surrogate, NaN or an infinity, which strict JSON lacks",
        "oversized": "a message that is larger than the service accepts",
    }
)

MAX_TEXT: Mapping[Service, int] = MappingProxyType(
    {"openai-chat": 1_048_576, "azure-openai": 1_048_576, "openai-responses": 10_485_760}
)
"""The most characters of one text. Sources: gptscript-ai/clio#41, VectorlyApp/bluebox#31."""

MAX_REQUEST: Mapping[Service, int] = MappingProxyType({"anthropic": 32 * 1024 * 1024, "gemini": 20 * 1024 * 1024})
"""The most bytes of a request, which one message alone must not exceed.

Sources: https://docs.claude.com/en/api/errors (request size limits), https://ai.google.dev/gemini-api/docs/files.
"""


class Answer(NamedTuple):
    """The answer of a service to a fault.

    Attributes:
        text: The error; empty if the service accepts such a conversation, or no refusal is known.
        source: A document, or ``OWNER/REPOSITORY#NUMBER`` of a public report.
    """

    text: str = ""
    source: str = ""


_TOOL_ROLE = Answer(
    "400 messages with role 'tool' must be a response to a preceding message with 'tool_calls'",
    "microsoft/promptflow#3130",
)
_TOOL_CALLS = Answer(
    "400 An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'",
    "microsoft/promptflow#3130",
)
_NO_CALL = Answer("400 No tool call found for function call output with call_id …", "continuedev/continue#10092")
_NO_OUTPUT = Answer("400 No tool output found for function call …", "openai/codex#93")
_NO_TOOL_USE = Answer(
    "400 messages.…: unexpected `tool_use_id` found in `tool_result` blocks: …", "anthropics/claude-code#13460"
)
_NO_TOOL_RESULT = Answer(
    "400 messages.…: `tool_use` ids were found without `tool_result` blocks immediately after: …",
    "anthropics/claude-code#8210",
)
_NO_CALL_TURN = Answer(
    "400 Please ensure that function response turn comes immediately after a function call turn",
    "langchain-ai/langchain#27799",
)
_PARTS_DIFFER = Answer(
    "400 Please ensure that the number of function response parts is equal to the number of function call parts",
    "microsoft/vscode#299295",
)
_NULL_CONTENT = Answer("400 Invalid value for 'content': expected a string, got null", "docker/docker-agent#63")
_NOT_LOADED = Answer("not reached: the program cannot read its own history", "RFC 8259, section 9")
_NOT_SENT = Answer(
    "400 The request body is not valid JSON, or the client cannot encode it", "anthropics/claude-code#2155"
)
_TOO_LONG = Answer("400 string too long. Expected a string with maximum length …", "gptscript-ai/clio#41")
_ACCEPTED = Answer()

RULES: Mapping[Kind, Mapping[Service, Answer]] = MappingProxyType(
    {
        "orphaned-result": {
            "openai-chat": _TOOL_ROLE,
            "azure-openai": _TOOL_ROLE,
            "openai-responses": _NO_CALL,
            "anthropic": _NO_TOOL_USE,
            "gemini": _NO_CALL_TURN,
        },
        "unanswered-call": {
            "openai-chat": _TOOL_CALLS,
            "azure-openai": _TOOL_CALLS,
            "openai-responses": _NO_OUTPUT,
            "anthropic": _NO_TOOL_RESULT,
            "gemini": _PARTS_DIFFER,
        },
        "early-result": {
            "openai-chat": _TOOL_ROLE,
            "azure-openai": _TOOL_ROLE,
            "openai-responses": _NO_CALL,
            "anthropic": _NO_TOOL_USE,
            "gemini": _NO_CALL_TURN,
        },
        "separated-result": {
            "openai-chat": _TOOL_CALLS,
            "azure-openai": _TOOL_CALLS,
            # Its items are linked by call_id alone.
            "openai-responses": _ACCEPTED,
            "anthropic": _NO_TOOL_RESULT,
            "gemini": _NO_CALL_TURN,
        },
        "duplicate": {
            # The model reads the conversation twice, and the request costs more.
            "openai-chat": _ACCEPTED,
            "azure-openai": _ACCEPTED,
            "openai-responses": Answer("400 Duplicate item found with id …", "OpenRouterTeam/ai-sdk-provider#254"),
            "anthropic": _NO_TOOL_USE,
            "gemini": _PARTS_DIFFER,
        },
        "half-turn": dict.fromkeys(
            ("openai-chat", "azure-openai", "openai-responses", "anthropic", "gemini"), _ACCEPTED
        ),
        "empty-message": {
            "openai-chat": _NULL_CONTENT,
            "azure-openai": _NULL_CONTENT,
            "openai-responses": Answer("400 Invalid type for 'input[…].content'", "QuantumNous/new-api#4776"),
            "anthropic": Answer(
                "400 messages.…: all messages must have non-empty content except for the optional final assistant …",
                "anthropics/claude-code#6774",
            ),
            "gemini": Answer("400 contents[…].parts: contents.parts must not be empty", "vercel/ai#3775"),
        },
        "dangling-reasoning": {
            # Clients of these two do not send reasoning.
            "openai-chat": _ACCEPTED,
            "azure-openai": _ACCEPTED,
            "openai-responses": Answer(
                "400 Item '…' of type 'reasoning' was provided without its required following item",
                "openai/openai-agents-python#1611",
            ),
            "anthropic": Answer(
                "400 messages.…: The final block in an assistant message cannot be `thinking`",
                "tailcallhq/forgecode#2107",
            ),
            "gemini": _ACCEPTED,
        },
        "undecodable": dict.fromkeys(
            ("openai-chat", "azure-openai", "openai-responses", "anthropic", "gemini"), _NOT_LOADED
        ),
        "unencodable": dict.fromkeys(
            ("openai-chat", "azure-openai", "openai-responses", "anthropic", "gemini"), _NOT_SENT
        ),
        "oversized": {
            "openai-chat": _TOO_LONG,
            "azure-openai": _TOO_LONG,
            "openai-responses": Answer(_TOO_LONG.text, "VectorlyApp/bluebox#31"),
            "anthropic": Answer("413 request_too_large", "https://docs.claude.com/en/api/errors"),
            "gemini": Answer(
                "400 Request payload size exceeds the limit", "https://ai.google.dev/gemini-api/docs/files"
            ),
        },
    }
)
"""The answer of each service to each kind of fault."""

SERVICE_OF: Mapping[str, Service] = MappingProxyType(
    {"chat-completions": "openai-chat", "openai-responses": "openai-responses", "anthropic": "anthropic"}
)
"""The service that messages of a format go to. A framework's own format may go to any of them."""


def refusal(kind: Kind, service: Service | None) -> str:
    """Return the service and its error for a fault; an empty text if it accepts such a conversation.

    Args:
        kind: The kind of the fault.
        service: ``None`` for any service: the first that refuses it.
    """
    for name, answer in RULES[kind].items():
        if service in {None, name} and answer.text:
            return f"{name}: {answer.text}"
    return ""

"""The table of the documentation says what a conversion does."""

from __future__ import annotations

from typing import Any

import pytest

from everthread.messages.converting.neutral import Attachment, Call, Entry, Result, Seal, Text, Thought
from everthread.messages.converting.support import ASPECTS, FRAMEWORKS, SUPPORT
from tests.messages.converting.conversations import FORMATS, converted, rows
from tools.docs import conversion_table

PNG = Attachment("image/png", "data:image/png;base64,iVBORw0=")
SAID, CALL = Text("Hello"), Call("c1", "find", "{}")


def talk(*parts: Any, role: str = "user", **fields: Any) -> list[Entry]:
    return [Entry(role, parts, 0, **fields)]


def used(call: Any, result: Any) -> list[Entry]:
    return [*talk(SAID), *talk(call, role="assistant"), *talk(result, role="tool")]


def linked(kind: str) -> Attachment:
    return Attachment(kind, f"https://example.com/a.{kind.partition('/')[2]}")


SAMPLES: dict[str, list[Entry]] = {
    "system": talk(SAID, role="system"),
    "developer": talk(SAID, role="developer"),
    "author": talk(SAID, author="ana"),
    "message-id": talk(SAID, id="m1"),
    "metadata": talk(SAID, metadata={"tag": 1}),
    "image": talk(PNG),
    "image-link": talk(linked("image/png")),
    "audio": talk(Attachment("audio/wav", "data:audio/wav;base64,AAAA")),
    "audio-link": talk(linked("audio/mp3")),
    "file": talk(Attachment("application/pdf", "data:application/pdf;base64,AAAA", "a.pdf")),
    "file-link": talk(linked("application/pdf")),
    "file-name": talk(Attachment("application/pdf", "data:application/pdf;base64,AAAA", "menu.pdf")),
    "image-name": talk(Attachment("image/png", PNG.address, "rome.png")),
    "answer-media": talk(SAID, PNG, role="assistant"),
    "result-media": used(CALL, Result("c1", "found", (PNG,))),
    "result-error": used(CALL, Result("c1", "failed", is_error=True)),
    "custom-call": used(Call("c1", "find", "a", is_custom=True), Result("c1", "found")),
    "thought": talk(Thought(("hm",)), SAID, role="assistant"),
    "sealed-openai": talk(Thought(("hm",), Seal("openai", "x", "rs_1")), SAID, role="assistant"),
    "sealed-anthropic": talk(Thought(("hm",), Seal("anthropic", "x")), SAID, role="assistant"),
}
"""A conversation with each aspect that a format expresses."""

FRAMEWORK = {"type": "message", "role": "assistant"}
APPROVAL = {"type": "function_approval_request", "id": "a", "function_call": {"type": "function_call", "call_id": "c"}}
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "role": ("langchain", {"type": "chat", "data": {"role": "narrator", "content": "Hello"}}),
    "hosted-file": ("openai-responses", {"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}),
    "call-id": ("chat-completions", {"role": "tool", "tool_call_id": "c:1" * 30, "content": "found"}),
    "call-without-id": ("agent-framework", FRAMEWORK | {"contents": [{"type": "function_call", "name": "find"}]}),
    "service-tool": ("openai-responses", {"type": "web_search_call", "id": "w"}),
    "approval": ("agent-framework", FRAMEWORK | {"contents": [APPROVAL]}),
    "citation": (
        "openai-responses",
        {"role": "assistant", "content": [{"type": "output_text", "text": "Hello", "annotations": [{"type": "x"}]}]},
    ),
    "facts": ("agent-framework", FRAMEWORK | {"contents": [{"type": "usage", "usage_details": {}}]}),
    "error": ("agent-framework", FRAMEWORK | {"contents": [{"type": "error", "message": "x"}]}),
    "unknown": ("anthropic", {"role": "user", "content": [{"type": "hologram"}]}),
    "repaired": ("chat-completions", {"role": "tool", "tool_call_id": "c1", "content": "found"}),
}
"""A message with each aspect that no format expresses."""


def aspects(values: list[Any], source: str, target: str, *, repaired: bool = False) -> set[str]:
    return {loss.aspect for loss in converted(values, source, target, repaired=repaired).losses}


def test_every_aspect_has_a_sample() -> None:
    assert {*SAMPLES, *OTHERS} == set(ASPECTS)
    assert {aspect for support in SUPPORT.values() for aspect in support.aspects} == set(SAMPLES)
    assert set(FRAMEWORKS.values()) == set(SUPPORT)


@pytest.mark.parametrize("aspect", SAMPLES)
def test_an_aspect_is_lost_exactly_where_the_table_says_so(aspect: str) -> None:
    for source in FORMATS:
        values = rows(SAMPLES[aspect], source)
        for target in FORMATS:
            if source != target and aspect in SUPPORT[source].aspects:
                lost = aspects(values, source, target)
                is_dropped = aspect == "file-name" and not SUPPORT[target].expresses("file", "application/pdf")
                assert (aspect in lost) == (aspect not in SUPPORT[target].aspects) or is_dropped, (source, target)


@pytest.mark.parametrize("aspect", OTHERS)
def test_what_no_format_expresses_is_reported(aspect: str) -> None:
    source, value = OTHERS[aspect]
    for target in FORMATS:
        accepts = aspect == "call-id" and SUPPORT[target].call_ids.fullmatch(value["tool_call_id"])
        if target != source and not accepts:
            assert aspect in aspects([value], source, target, repaired=aspect == "repaired"), target


def test_the_page_is_what_the_code_says() -> None:
    written = conversion_table.PAGE.read_text(encoding="utf-8")
    assert written == conversion_table.page(written), "run: python -m tools.docs.conversion_table"

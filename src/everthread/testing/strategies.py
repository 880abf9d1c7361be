"""Hypothesis strategies for difficult data of people and frameworks."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from everthread.messages.codec import new_message
from everthread.model import MAX_IDENTIFIER_BYTES, NewMessage, ThreadKey

# Separators of keys, globs and paths, hash tags, escapes, what ends a C string or a line, and text in which
# equal looks differ in bytes (composed and combining é), goes right to left or is many code points.
_HOSTILE = (
    ":", "/", "|", "{", "}", "{}", "{a}", "}{", "*", "?", "[a]", "\\", "%", "%2F", "%00", "~", ".", "..", "#", "&", "=",
    "+", " ", "\0", "\n", "\r\n", "\t", "'", '"', "`", ";--", "$", "é", "e\u0301", "ß", "İ", "א", "\u202e", "\u200b",
    "\ufeff", "💾", "👩‍👩‍👧", "\U0010ffff", "\x7f", "\x80", "-", "_", "0", "None", "null",
)  # fmt: skip

_TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def identifiers(*, may_be_empty: bool = False) -> SearchStrategy[str]:
    """Return thread ids, tenants, append ids and document names: any valid text, often hostile."""
    pieces = st.sampled_from([*_HOSTILE, "a", "b", "c"])
    joined = st.lists(pieces, min_size=0 if may_be_empty else 1, max_size=5).map("".join)
    longest = st.sampled_from(
        ["x" * MAX_IDENTIFIER_BYTES, "é" * (MAX_IDENTIFIER_BYTES // 2), "%" * MAX_IDENTIFIER_BYTES]
    )
    some = _TEXT.filter(lambda text: (may_be_empty or text) and len(text.encode()) <= MAX_IDENTIFIER_BYTES)
    return st.one_of(joined, joined, some, longest)


def thread_keys() -> SearchStrategy[ThreadKey]:
    """Names of threads, in the default tenant and in others."""
    return st.builds(ThreadKey, identifiers(), identifiers(may_be_empty=True))


def look_alikes() -> SearchStrategy[tuple[ThreadKey, ThreadKey]]:
    """Return pairs of different keys that would have one name if their parts were simply joined."""

    def split(text: str, separator: str, first: int, second: int) -> tuple[ThreadKey, ThreadKey]:
        parts = text.split("#")
        return _joined(parts, separator, first), _joined(parts, separator, second)

    texts = st.lists(st.sampled_from(["a", "b", "", "*", "{a}", "%3A"]), min_size=3, max_size=4).map("#".join)
    pairs = st.builds(split, texts, st.sampled_from(_HOSTILE), st.integers(0, 2), st.integers(0, 2))
    return pairs.filter(lambda pair: pair[0] != pair[1])


def _joined(parts: list[str], separator: str, at: int) -> ThreadKey:
    return ThreadKey(separator.join(parts[at:]) or "x", separator.join(parts[:at]))


def json_values() -> SearchStrategy[Any]:
    """JSON of every kind: nested, with any text, and integers of any size."""
    numbers = st.one_of(st.integers(), st.integers(-(2**200), 2**200), st.floats(allow_nan=False, allow_infinity=False))
    leaves = st.one_of(st.none(), st.booleans(), numbers, _TEXT)
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4), max_leaves=12
    )


# What a store that decodes and encodes again would change.
_FRAGILE = (
    b"null", b"true", b"0", b"-0", b"-0.0", b"0.0", b"1.0", b"1.10", b"1e2", b"1E+2", b"1e400", b"-1e400", b"5e-324",
    b"123456789012345678901234567890", b"18446744073709551616", b"9007199254740993", b'""', b"[]", b"{}", b" 1 ",
    b'{"b":1,"a":2}', b'{"a":1,"a":2}', b'{ "a" : [ 1 , 2 ] }\n', b'\t[\n]\r\n', b'{"":""}', b'"\\u0000"', b'"\\u00e9"',
    '"é"'.encode(), b'"\\ud83d\\udcbe"', b'"\\/"', b'"\x7f"', b'{"__proto__":null}', b'{"type":"future","x":[[[[]]]]}',
    b"[" * 60 + b"]" * 60, b'"' + b"x" * 5000 + b'"',
)  # fmt: skip


def payloads() -> SearchStrategy[bytes]:
    """Return payloads as bytes of JSON, with spaces, escapes, duplicate names and odd numbers that must not change."""
    indents = st.sampled_from([None, 0, 2])
    return st.one_of(st.sampled_from(_FRAGILE), st.builds(_dump, json_values(), st.booleans(), indents))


def _dump(value: object, ensure_ascii: bool, indent: int | None) -> bytes:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent).encode()


def messages(*, payloads: SearchStrategy[bytes] | None = None) -> SearchStrategy[NewMessage]:
    """Messages, some of which make or answer tool calls, also ones that were never made.

    Args:
        payloads: The payloads; by default any that `payloads` gives.
    """
    held = payloads if payloads is not None else _payloads()
    ids = st.lists(st.sampled_from(["c1", "c2", "c3", "call:{x}\0"]), max_size=2, unique=True).map(tuple)
    formats = st.sampled_from(["json", "agent-framework", "some:future/format"])
    nothing: SearchStrategy[tuple[str, ...]] = st.just(())
    return st.one_of(
        *(st.builds(NewMessage, held, formats, *links) for links in ((), (ids,), (nothing, ids), (ids, ids)))
    )


def turns(*, max_size: int = 5, of: SearchStrategy[NewMessage] | None = None) -> SearchStrategy[list[NewMessage]]:
    """Return turns of messages, with calls and results inside them and across them."""
    return st.lists(of if of is not None else messages(), min_size=1, max_size=max_size)


_payloads = payloads


def agent_framework_messages() -> SearchStrategy[NewMessage]:
    """Return messages as Microsoft Agent Framework writes them, of 1.x and of the 1.0 betas."""
    call_ids = st.sampled_from(["call_1", "call_2", "call_3"])
    contents = st.one_of(
        st.fixed_dictionaries({"type": st.just("text"), "text": _TEXT}),
        st.fixed_dictionaries(
            {"type": st.just("function_call"), "call_id": call_ids, "name": st.just("f"), "arguments": st.just("{}")}
        ),
        st.fixed_dictionaries({"type": st.just("function_result"), "call_id": call_ids, "result": json_values()}),
        st.fixed_dictionaries({"type": st.just("data"), "uri": st.just("data:image/png;base64,iVBORw0KGgo=")}),
        st.fixed_dictionaries({"type": st.just("a_type_of_the_future"), "x": json_values()}),
    )
    roles = st.sampled_from(["user", "assistant", "tool", "system"])
    generations = st.sampled_from([("message", False), ("chat_message", True)])

    def message(generation: tuple[str, bool], role: str, parts: list[dict[str, object]]) -> NewMessage:
        kind, wrapped = generation
        shown = {"type": "role", "value": role} if wrapped else role
        return new_message({"type": kind, "role": shown, "contents": parts})

    return st.builds(message, generations, roles, st.lists(contents, max_size=4))

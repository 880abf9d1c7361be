"""Rows of Agent Framework's betas ↔ rows of its 1.x, as plain JSON values. Imports no framework.

Three forms have been written:

===========================  ==============  =============================  ==============================
releases                     message         role                           contents
===========================  ==============  =============================  ==============================
1.0.0b251001 … b260107       chat_message    ``{"type": "role", "value"…}``  a class each, extras at the root
1.0.0b260114 … b260130       chat_message    ``{"type": "role", "value"…}``  as in 1.x
1.0.0b260210 … 1.x           message         plain text                     extras in additional_properties
===========================  ==============  =============================  ==============================

Source: ``to_dict`` and ``from_dict`` in ``agent_framework/_types.py`` of the releases themselves.
"""

from __future__ import annotations

import json
import mimetypes
import re
from collections.abc import Callable, Mapping
from typing import cast

from everthread.messages.codec import as_list, as_object
from everthread.messages.formats.agent_framework import BETA_TYPE, CURRENT_TYPE, role_of

Json = dict[str, object]

KEPT = "everthread_original"
"""The key of ``raw_representation`` in which `to_beta` keeps a whole 1.x row that the betas cannot express.

The betas pass ``raw_representation`` on, and neither store it nor send it to a model.
"""

_MESSAGE_FIELDS = frozenset({"type", "role", "contents", "author_name", "message_id", "additional_properties"})
_COMMON_FIELDS = frozenset({"type", "annotations", "additional_properties"})
_BETA_FIELDS: dict[str, frozenset[str]] = {
    "text": frozenset({"text"}),
    "text_reasoning": frozenset({"text", "protected_data"}),
    "data": frozenset({"uri", "media_type"}),
    "uri": frozenset({"uri", "media_type"}),
    "error": frozenset({"message", "error_code", "details"}),
    "function_call": frozenset({"call_id", "name", "arguments", "exception"}),
    "function_result": frozenset({"call_id", "result", "exception"}),
    "usage": frozenset({"details"}),
    "hosted_file": frozenset({"file_id"}),
    "hosted_vector_store": frozenset({"vector_store_id"}),
    "function_approval_request": frozenset({"id", "function_call"}),
    "function_approval_response": frozenset({"id", "approved", "function_call"}),
}
_CURRENT_FIELDS = _COMMON_FIELDS | {
    *("text", "protected_data", "uri", "media_type", "message", "error_code", "error_details", "usage_details"),
    *("call_id", "name", "arguments", "exception", "informational_only", "result", "items", "file_id"),
    *("vector_store_id", "inputs", "outputs", "image_id", "commands", "timeout_ms", "max_output_length", "status"),
    *("actions", "screenshot", "pending_safety_checks", "acknowledged_safety_checks", "stdout", "stderr"),
    *("exit_code", "timed_out", "tool_name", "server_name", "output", "hosted", "function_call"),
    *("user_input_request", "approved", "id", "consent_link", "merge_mode"),
}
_ANNOTATION_FIELDS = frozenset(
    {"type", "title", "url", "file_id", "tool_name", "snippet", "annotated_regions", "additional_properties"}
)
# The betas' constructors cannot do without these; 1.x leaves out what is None.
_REQUIRED_TEXT = {
    "text": ("text",),
    "text_reasoning": ("text",),
    "function_call": ("call_id", "name"),
    "function_result": ("call_id",),
    "hosted_file": ("file_id",),
    "hosted_vector_store": ("vector_store_id",),
    "function_approval_request": ("id",),
    "function_approval_response": ("id",),
}
_DATA_URI = re.compile(r"data:(?P<media_type>[^;]+);base64,[A-Za-z0-9+/=]+\Z")
_BETA_MEDIA_TYPES = frozenset(
    {
        *(f"application/{kind}" for kind in ("json", "octet-stream", "pdf", "xml")),
        *(f"audio/{kind}" for kind in ("mpeg", "mp3", "ogg", "wav")),
        *(f"image/{kind}" for kind in ("apng", "avif", "bmp", "gif", "jpeg", "png", "svg+xml", "tiff", "webp")),
        *(f"text/{kind}" for kind in ("css", "csv", "html", "javascript", "plain", "plain;charset=UTF-8", "xml")),
    }
)


def to_current(value: Mapping[str, object]) -> Json:
    """Return a stored row as 1.x reads it; a row of 1.x unchanged.

    Role, text, calls, results and media mean the same. Fields that 1.x does not know go to
    ``additional_properties``, where the betas have them in memory. A tool's result that is not text becomes the text
    that the betas sent to the model, since 1.x sends a result unchanged; a list of contents becomes ``items``.
    """
    if value.get("type") != BETA_TYPE:
        return dict(value)
    original = as_object(value.get("raw_representation")).get(KEPT)
    if isinstance(original, dict):
        return to_current(cast(Json, original))
    current = {name: field for name, field in value.items() if name in _MESSAGE_FIELDS}
    current["type"] = CURRENT_TYPE
    current["role"] = role_of(value)
    current["contents"] = [_content_to_current(as_object(content)) for content in as_list(value.get("contents"))]
    return _with_extras(current, _others(value, _MESSAGE_FIELDS))


def to_beta(value: Mapping[str, object]) -> Json:
    """Return a stored row as the betas with a class for each content read it.

    Contents of a type that they lack are left out, as by the betas themselves, and the whole row is kept
    in ``raw_representation`` (see `KEPT`): ``to_current(to_beta(row)) == row`` for every row of 1.x.
    """
    beta: Json = {
        "type": BETA_TYPE,
        "role": {"type": "role", "value": role_of(value)},
        "contents": _contents_to_beta(value),
    }
    beta.update((name, value[name]) for name in ("author_name", "message_id", "additional_properties") if name in value)
    if value.get("type") == BETA_TYPE:
        beta.update(_others(value, _MESSAGE_FIELDS | {"raw_representation"}))
        is_whole = len(as_list(beta["contents"])) == len(as_list(value.get("contents")))
    else:
        is_whole = to_current(beta) == value
    if not is_whole:
        beta["raw_representation"] = {KEPT: dict(value)}
    return beta


def _content_to_current(content: Mapping[str, object]) -> Json:
    known = {name: field for name, field in content.items() if name in _CURRENT_FIELDS}
    extras = _others(content, _CURRENT_FIELDS)
    rename = _TO_CURRENT.get(str(content.get("type")))
    if rename is not None:
        rename(known, extras)
    if isinstance(known.get("annotations"), list):
        known["annotations"] = [_annotation_to_current(as_object(a)) for a in as_list(known["annotations"])]
    return _with_extras(known, extras)


def _usage_to_current(known: Json, extras: Json) -> None:
    if "details" in extras:
        known["usage_details"] = _others(as_object(extras.pop("details")), frozenset({"type"}))


def _error_to_current(known: Json, extras: Json) -> None:
    if "details" in extras:
        known["error_details"] = extras.pop("details")


def _approval_to_current(known: Json, extras: Json) -> None:
    if isinstance(known.get("function_call"), Mapping):
        known["function_call"] = _content_to_current(as_object(known["function_call"]))


def _uri_to_current(known: Json, extras: Json) -> None:
    # The betas refuse inline data of media types that they do not list, so `to_beta` calls it a URI.
    if str(known.get("uri", "")).startswith("data:"):
        known["type"] = "data"


def _result_to_current(known: Json, extras: Json) -> None:
    result = known.get("result")
    if result is None or isinstance(result, str):
        return
    items = [_content_to_current(as_object(item)) for item in as_list(result)]
    if items and all(_is_plain_content(item) for item in items):
        known["items"] = items
        known["result"] = "\n".join(str(item["text"]) for item in items if item.get("text"))
    else:
        # Written as the betas' prepare_function_call_results does, so that the model sees the same text.
        known["result"] = json.dumps(result)


def _is_plain_content(item: Mapping[str, object]) -> bool:
    kind = item.get("type")
    return isinstance(item.get("text" if kind == "text" else "uri"), str) and kind in {"text", "data", "uri"}


_TO_CURRENT: dict[str, Callable[[Json, Json], None]] = {
    "usage": _usage_to_current,
    "error": _error_to_current,
    "uri": _uri_to_current,
    "function_result": _result_to_current,
    "function_approval_request": _approval_to_current,
    "function_approval_response": _approval_to_current,
}


def _annotation_to_current(annotation: Mapping[str, object]) -> Json:
    known = {name: field for name, field in annotation.items() if name in _ANNOTATION_FIELDS}
    return _with_extras(known, _others(annotation, _ANNOTATION_FIELDS))


def _contents_to_beta(value: Mapping[str, object]) -> list[Json]:
    contents = [as_object(content) for content in as_list(value.get("contents"))]
    known = [content for content in contents if content.get("type") in _BETA_FIELDS]
    # Unknown fields of a beta are its additional properties; those of 1.x are of a later release.
    return [_content_to_beta(content, keep_unknown=value.get("type") == BETA_TYPE) for content in known]


def _content_to_beta(content: Mapping[str, object], *, keep_unknown: bool = False) -> Json:
    source = dict(content)
    kind = str(source.get("type"))
    if source.get("additional_properties"):
        # The betas' constructors add to the dict that they get, and the kept row must not change.
        source["additional_properties"] = dict(as_object(source["additional_properties"]))
    for name in _REQUIRED_TEXT.get(kind, ()):
        source[name] = source.get(name) or ""
    prepare = _TO_BETA.get(kind)
    if prepare is not None:
        prepare(source)
    if isinstance(source.get("annotations"), list):
        source["annotations"] = [{"type": "citation", **as_object(a)} for a in as_list(source["annotations"])]
    if keep_unknown:
        return source
    known = _BETA_FIELDS.get(str(source["type"]), frozenset()) | _COMMON_FIELDS
    return {name: field for name, field in source.items() if name in known}


def _usage_to_beta(source: Json) -> None:
    if "usage_details" in source or "details" not in source:
        counts = as_object(source.pop("usage_details", None))
        # Anything but an integer makes their UsageDetails raise.
        source["details"] = {"type": "usage_details", **{n: c for n, c in counts.items() if isinstance(c, int)}}


def _error_to_beta(source: Json) -> None:
    if "error_details" in source:
        source["details"] = source.pop("error_details")


def _media_to_beta(source: Json) -> None:
    uri = str(source.get("uri") or "")
    inline = _DATA_URI.match(uri)
    media_type = str(source.get("media_type") or (inline and inline["media_type"]) or "")
    acceptable = inline is not None and inline["media_type"] in _BETA_MEDIA_TYPES
    source["type"] = "data" if acceptable else "uri"
    source["uri"] = uri
    source["media_type"] = media_type or _guessed_type(uri)


def _guessed_type(uri: str) -> str:
    # Not the text of inline data: guess_type would parse megabytes.
    return mimetypes.guess_type(uri[:2000])[0] or "application/octet-stream"


def _approval_to_beta(source: Json) -> None:
    call = {**as_object(source.get("function_call")), "type": "function_call"}
    source["function_call"] = _content_to_beta(call, keep_unknown=True)
    if source.get("type") == "function_approval_response":
        source["approved"] = source.get("approved") is True


def _result_to_beta(source: Json) -> None:
    items = [as_object(item) for item in as_list(source.get("items"))]
    if any(item.get("type") != "text" for item in items):
        source["result"] = [_content_to_beta(item) for item in items]


_TO_BETA: dict[str, Callable[[Json], None]] = {
    "usage": _usage_to_beta,
    "error": _error_to_beta,
    "data": _media_to_beta,
    "uri": _media_to_beta,
    "function_result": _result_to_beta,
    "function_approval_request": _approval_to_beta,
    "function_approval_response": _approval_to_beta,
}


def _others(value: Mapping[str, object], names: frozenset[str]) -> Json:
    return {name: field for name, field in value.items() if name not in names}


def _with_extras(known: Json, extras: Json) -> Json:
    # raw_representation is an object of one process; a stored one could only mislead.
    extras.pop("raw_representation", None)
    if extras:
        known["additional_properties"] = {**as_object(known.get("additional_properties")), **extras}
    return known

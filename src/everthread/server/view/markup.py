"""Stored texts as HTML. They are not trusted: the result runs no script, loads nothing, and cannot leave its place."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any
from urllib.parse import urlsplit

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

from everthread.transfer.rendering import readable_text

LONGEST_TEXT = 16_000
"""The most characters of a text that a list of messages shows."""
_TAGS = {
    *("p", "br", "hr", "strong", "em", "s", "code", "pre", "blockquote", "ul", "ol", "li", "a", "span"),
    *("table", "thead", "tbody", "tr", "th", "td"),
}
_CLASSES = {"p": {"heading"}, "span": {"host", "image"}, "pre": {"code"}}
_SAFE_LINKS = ("https://", "http://")


class _Renderer(RendererHTML):
    """Renders headings as paragraphs, so that the page keeps its own outline, and images as links."""

    def heading_open(self, *_: object) -> str:
        return '<p class="heading">'

    def heading_close(self, *_: object) -> str:
        return "</p>\n"

    def link_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        href = str(tokens[idx].attrs.get("href", ""))
        env.setdefault("hosts", []).append(_host_of(href))
        return f'<a href="{escape(href)}">'

    def link_close(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        # The text of a link can name another address than the one it leads to.
        return f'</a><span class="host"> ({escape(env["hosts"].pop())})</span>'

    def image(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        href = str(tokens[idx].attrs.get("src", ""))
        shown = escape(tokens[idx].content or "without a description")
        return f'<span class="image">image, not loaded: {shown} ({escape(_host_of(href))})</span>'


def _host_of(href: str) -> str:
    try:
        return (urlsplit(href).hostname or "no address")[:200]
    except ValueError:
        return "no address"


_markdown = MarkdownIt("commonmark", {"html": False, "breaks": True}, renderer_cls=_Renderer)
_markdown.enable(["table", "strikethrough"])


def _attribute(tag: str, name: str, value: str) -> str | None:
    # The other attributes are those that the cleaner itself adds.
    return value if name != "href" or value.lower().startswith(_SAFE_LINKS) else None


_CLEAN: dict[str, Any] = {
    "tags": _TAGS,
    "clean_content_tags": {"script", "style"},
    "attributes": {"a": {"href"}},
    "allowed_classes": _CLASSES,
    "attribute_filter": _attribute,
    "set_tag_attribute_values": {"a": {"target": "_blank"}},
    "link_rel": "noopener noreferrer nofollow",
    "url_schemes": {"http", "https"},
    "strip_comments": True,
}


def as_html(text: str) -> str:
    """Return a text in Markdown as HTML. Raw HTML in it is shown as text."""
    readable = readable_text(text)
    try:
        rendered = _markdown.render(readable)
    except (RecursionError, ValueError, IndexError):
        rendered = f"<p>{escape(readable)}</p>"
    return nh3.clean(rendered, **_CLEAN)


def as_plain_html(text: str) -> str:
    """Return a text without markup as HTML."""
    return f"<pre>{escape(readable_text(text))}</pre>" if text else ""


def cut(text: str, longest: int = LONGEST_TEXT) -> tuple[str, bool]:
    """Return at most ``longest`` characters of a text, and whether that is a part of it."""
    return (text, False) if len(text) <= longest else (text[:longest], True)

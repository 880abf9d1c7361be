"""The blocks of code in the README and the pages of the documentation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from tests.readme import ROOT

PAGES = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
)
_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^>]*) -->\n)?^(?P<indent> *)```(?P<language>\w+)[^\n]*\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    mark: str
    language: str
    text: str
    output: str | None
    """The text block that follows at once, if there is one: the output of this block."""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(*languages: str) -> Iterator[Block]:
    """Yield the blocks in these languages, page by page."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        found = list(_BLOCK.finditer(text))
        for match, following in zip_longest(found, found[1:]):
            if match["language"] in languages:
                line = text.count("\n", 0, match.start("language")) + 1
                output = following["text"] if following and _is_output(text[match.end() : following.start()]) else None
                code = re.sub(f"^{match['indent']}", "", match["text"], flags=re.MULTILINE)
                yield Block(page, line, match["mark"] or "", match["language"], code, output)


def _is_output(between: str) -> bool:
    return between.strip() in {"It prints:", "prints"}

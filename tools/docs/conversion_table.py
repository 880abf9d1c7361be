"""Write the table in docs/how-to/continue-in-another-framework.md: what each format expresses.

    python -m tools.docs.conversion_table

The table comes from `everthread.messages.converting.support`. A test fails if the page is out of date, and others
compare the table with conversions.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from everthread.messages.converting.support import ASPECTS, SUPPORT, Support

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "continue-in-another-framework.md"
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"


def page(written: str) -> str:
    """Return the text of the page with the table of the code."""
    before, _, rest = written.partition(BEGIN)
    return "".join((before, BEGIN, "\n".join((*_lines(), "")), END, rest.partition(END)[2]))


def _lines() -> Iterator[str]:
    names = [support.name for support in SUPPORT.values()]
    yield f"| | {' | '.join(names)} | elsewhere |"
    yield "|---" * (len(names) + 2) + "|"
    yield f"| texts, tool calls with their results | {' | '.join('yes' for _ in names)} | |"
    expressed = {aspect for support in SUPPORT.values() for aspect in support.aspects}
    for aspect, described in ASPECTS.items():
        if aspect in expressed:
            cells = [_cell(support, aspect) for support in SUPPORT.values()]
            yield f"| {described.name} | {' | '.join(cells)} | {described.otherwise} |"
    yield "\nThese never survive:\n"
    yield "| | what becomes of them |"
    yield "|---|---|"
    for aspect, described in ASPECTS.items():
        if aspect not in expressed:
            yield f"| {described.name} | {described.otherwise} |"


def _cell(support: Support, aspect: str) -> str:
    types = support.aspects.get(aspect)
    if types is None:
        return "–"
    names = {kind.partition("/")[2].upper().removeprefix("X-") for kind in types} - {"MPEG"}
    return ", ".join(sorted(names)) or "yes"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

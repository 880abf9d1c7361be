"""Write docs/engines/README.md: how each engine keeps each guarantee, its abilities and the costs of its calls.

    python -m tools.docs.engine_table

The text comes from `tools.docs.profiles`, and the abilities from the classes of the engines. A test fails if
the page is out of date; others measure the costs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path

from everthread import capabilities
from everthread.opening import GROUP
from tools.docs.profiles import ABILITIES, CALLS, GUARANTEES, PROFILES, Profile

PAGE = Path(__file__).parents[2] / "docs" / "engines" / "README.md"

INTRODUCTION = """# Engines side by side

How each engine keeps each guarantee, its abilities beyond the contract, and the cost of its calls. Generated from the
code by `python -m tools.docs.engine_table`. [Concepts](../concepts.md#guarantees) explains the guarantees.
"""

CLOSING = """These are the costs of a store that has made calls on the thread before, at any length of the thread.
`tests/engines/test_costs.py` measures them (those of Cosmos DB as the costs of the log that it shares with object
storage). The first call of a process may cost more: see the page of the engine. A tenant view and `Traced` add nothing;
`Encrypted` adds nothing once it has the key of the tenant.

If an engine lacks an ability, `capability(store, SupportsSearch)` returns `None`. A feature that needs it then raises
`UnsupportedError`, or works differently and says so (`everthread search` scans)."""


def page() -> str:
    """Return the text of the page."""
    return "\n".join((INTRODUCTION, *_guarantees(), *_abilities(), *_costs(), CLOSING, ""))


def _guarantees() -> Iterator[str]:
    yield "## Guarantees\n"
    yield from _table(
        (f"**{name}**: {meaning}", lambda profile, name=name: profile.how[name]) for name, meaning in GUARANTEES.items()
    )


def _abilities() -> Iterator[str]:
    yield "## Abilities\n"
    yield from _table(
        (f"`{name}`: {meaning}", lambda profile, name=name: _ability(profile, name))
        for name, meaning in ABILITIES.items()
    )


def _ability(profile: Profile, name: str) -> str:
    way = profile.ways.get(name, "")
    if not can(profile, name):
        return f"no: {way}" if way else "no"
    return f"yes: {way}" if way else "yes"


def can(profile: Profile, ability: str) -> bool:
    """Return whether any class of the engine has the ability, if only with some settings."""
    (found,) = entry_points(group=GROUP, name=profile.scheme)
    engine, wanted = found.load(), getattr(capabilities, ability)
    return any(issubclass(kind, wanted) for kind in (engine, *_subclasses(engine)))


def _subclasses(kind: type) -> Iterator[type]:
    for each in kind.__subclasses__():
        # Those of other packages, tests among them, say nothing of this engine.
        if each.__module__.startswith("everthread.engines") and not inspect.isabstract(each):
            yield each
            yield from _subclasses(each)


def _costs() -> Iterator[str]:
    yield "## What calls cost\n"
    yield from _table(
        (
            ("counted are", lambda profile: profile.unit),
            *((call, lambda profile, name=name: str(profile.costs[name])) for name, call in CALLS.items()),
        )
    )


def _table(rows: Iterator[tuple[str, Callable[[Profile], str]]] | tuple[tuple[str, Callable[[Profile], str]], ...]):
    titles = (f"[{profile.title}]({profile.page})" if profile.page else profile.title for profile in PROFILES)
    yield "| | " + " | ".join(titles) + " |"
    yield "|---" * (len(PROFILES) + 1) + "|"
    for title, cell in rows:
        yield f"| {title} | " + " | ".join(cell(profile) for profile in PROFILES) + " |"
    yield ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

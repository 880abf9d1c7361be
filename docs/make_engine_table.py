"""Makes engines/README.md: which engine keeps which guarantee in what way, what it can do, and what its calls cost.

    python docs/make_engine_table.py

All of it comes from the code: `everthread.engines._profiles`, and the abilities from the engines' classes. A test
fails if the page is not what this makes; others measure the costs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path

from everthread import contract
from everthread.engines._profiles import ABILITIES, CALLS, GUARANTEES, PROFILES, Profile
from everthread.opening import GROUP

PAGE = Path(__file__).parent / "engines" / "README.md"

INTRODUCTION = """# Engines side by side

Which engine keeps which guarantee, and how; what it can do beyond the contract; what its calls cost. Made from the
code by `python docs/make_engine_table.py`. What the guarantees mean:
[`everthread.contract`](../../src/everthread/contract.py).
"""

CLOSING = """The costs are those of a store that has made calls on the thread before, at any length of the thread.
`tests/engines/test_costs.py` measures them (Cosmos DB's as those of the log that it shares with object storage). The
first call of a process may cost more: an engine's own page tells. A
tenant view and `Traced` add nothing; `Encrypted` adds nothing once it has the tenant's key.

Where an ability is missing, its type is missing: `isinstance(store, SupportsSearch)` is false, and what needs it says
so with `UnsupportedError` or takes another way (`everthread search` then scans, and tells so)."""


def page() -> str:
    """The page's text."""
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
    """Whether a class of the engine's has the ability; where it depends on a setting, one that has it counts."""
    (found,) = entry_points(group=GROUP, name=profile.scheme)
    engine, wanted = found.load(), getattr(contract, ability)
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

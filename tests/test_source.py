"""The source keeps the rules that no linter checks: no import cycles, small modules and functions, plain words."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src"
MODULES = sorted(SOURCE.rglob("*.py"))
MAX_MODULE_LINES = 450
MAX_FUNCTION_LINES = 60

# Each has a plainer word in technical English: delete, concurrent, resume, report, repair, at most.
STILTED = re.compile(
    r"\b(whose|meanwhile|beside|nobody|ought|thereby|for good|for ever|under way|by itself|by themselves|of its own"
    r"|go(?:es|ing)? on(?: with)?|went on|(?:is|are) told|tells? of|told of|cannot be told|mend(?:s|ed|ing)?"
    r"|drift(?:s|ed|ing)?|dear(?:er|est)?|(?:hangs?|hung|belongs?) together|takes? in|taken in"
    r"|puts? away|so many|so much|forg[eo]t(?:s|ten|ting)?|as it was|as they were|what is (?:wrong|left|there|old)"
    r"|what was said|who reads|stumbl\w+|at once|whatever|wherever|asks? for)\b",
    re.IGNORECASE,
)
MAX_STILTED_PER_1000_LINES = 4


def name_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path, names: set[str]) -> Iterator[str]:
    """Yield the modules that a module imports, also inside functions; what only the type checker reads is no import."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & names
            yield from submodules
            if node.module in names and len(submodules) < len(node.names):
                yield node.module


def test_no_import_cycles() -> None:
    names = {name_of(path) for path in MODULES}
    graph = {name_of(path): set(imports_of(path, names)) - {name_of(path)} for path in MODULES}
    assert sum(map(len, graph.values())) > len(names), "the imports were not found"
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_no_long_modules() -> None:
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in MODULES}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_MODULE_LINES} == {}


def test_no_long_functions() -> None:
    long = {}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    long[f"{name_of(path)}.{node.name}"] = lines
    assert long == {}


def test_plain_words() -> None:
    files = [path for path in SOURCE.rglob("*") if path.suffix in {".py", ".lua", ".sql"}]
    files += [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    found = []
    lines = 0
    for path in files:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            lines += 1
            found += [f"{path.relative_to(ROOT)}:{number}: {word}" for word in STILTED.findall(line)]
    allowed = MAX_STILTED_PER_1000_LINES * lines / 1000
    assert len(found) <= allowed, f"{1000 * len(found) / lines:.1f} for 1,000 lines\n" + "\n".join(found)

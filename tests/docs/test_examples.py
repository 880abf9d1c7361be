"""The Python code of the documentation.

A block below ``<!-- run -->`` is a whole program. It is run, and its output compared with the block after "It prints:".
A block below ``<!-- example: NAME -->`` has a test of its own. All others must compile, and their imports must exist.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import textwrap
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, Block, blocks
from tests.readme import ROOT, run_example

PYTHON = list(blocks("python"))
PROGRAMS = [block for block in PYTHON if block.mark == "run"]


@pytest.mark.parametrize("block", PROGRAMS, ids=str)
def test_each_program_prints_what_its_page_shows(block: Block, tmp_path: Path) -> None:
    printed = run_example(block.text, tmp_path)
    assert block.output is None or printed == block.output


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_each_example_compiles_and_finds_its_imports(block: Block) -> None:
    flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    tree = compile(textwrap.dedent(block.text), str(block), "exec", flags=flags)
    missing = [name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for name in _missing(node)]
    assert missing == []


def _missing(node: ast.ImportFrom) -> list[str]:
    # The betas of Agent Framework are tested in an environment of their own.
    if not (node.module or "").startswith("everthread") or "beta" in (node.module or ""):
        return []
    module = importlib.import_module(node.module or "")
    return [f"{node.module}.{each.name}" for each in node.names if not hasattr(module, each.name)]


NAMES = sorted(
    {
        (str(page.relative_to(ROOT)), name)
        for page in PAGES
        for name in re.findall(r"`(everthread(?:\.[A-Za-z_]\w*)+)(?:\([^`]*)?`", page.read_text(encoding="utf-8"))
    }
)
LOGGERS = {
    "everthread.agent_framework",
    "everthread.calls",
    "everthread.repair",
    "everthread.postgres",
    "everthread.cosmos",
}
METRICS = re.compile(r"everthread\.(messages|bytes|replayed|conflicts|retries|direction)(\.|$)")
GROUPS = {"everthread.engines"}


@pytest.mark.parametrize(("page", "name"), NAMES)
def test_each_dotted_name_of_a_page_exists(page: str, name: str) -> None:
    if name in LOGGERS | GROUPS or (METRICS.match(name) and "observability" in page):
        return
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError) as error:
        pytest.fail(f"{page} names {name}: {error}")

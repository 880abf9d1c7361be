"""The commands of the documentation exist and have the options that the pages show."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import click
import pytest

from everthread.cli.group import everthread
from tests.docs.pages import PAGES, blocks
from tests.readme import ROOT


def shown_commands() -> Iterator[tuple[str, str]]:
    """Yield the place and the words of each ``everthread`` command in a block of a page."""
    for block in blocks("sh", "console", "ini", "cron", "yaml", "text", "bash"):
        if block.page.name == "cli.md":
            continue
        for line in block.text.replace("\\\n", " ").splitlines():
            found = re.search(r"(?:^|\(|\$ |- run: |/bin/|&& |uvx )(everthread [a-z<-].*)$", line)
            if found:
                yield str(block), found[1]


@pytest.mark.parametrize(("place", "line"), sorted(set(shown_commands())))
def test_each_command_has_the_options_that_a_page_shows(place: str, line: str) -> None:
    lexer = shlex.shlex(line.rstrip(")"), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = "#"
    words = []
    for word in lexer:
        if word and set(word) <= set("|&;<>()"):
            break
        words.append(word)
    command: click.Command | None = everthread
    context = click.Context(everthread)
    for word in words[1:]:
        if not isinstance(command, click.Group):
            break
        if not word.startswith("-"):
            command = command.get_command(context, word)
            assert command is not None, f"{place}: there is no command {word}"
    assert command is not None
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    known |= {"--help", "-h", "--version"}
    given = {word.partition("=")[0] for word in words[1:] if re.match(r"--?[a-z]", word)}
    assert given <= known, f"{place}: {sorted(given - known)}"


def test_each_make_target_that_a_page_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = "\n".join(block.text for block in blocks("sh", "console"))
    named = set(re.findall(r"^(?:\$ )?make ([a-z-]+)", shown, re.MULTILINE))
    for page in PAGES:
        named |= set(re.findall(r"`make ([a-z-]+)", page.read_text(encoding="utf-8")))
    assert {"chat", "test"} <= named
    assert named <= targets

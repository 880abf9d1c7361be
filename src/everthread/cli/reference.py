"""The reference of all commands in Markdown, made from the commands themselves.

``python -m everthread.cli.reference`` prints it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import click

from everthread.cli.exit_statuses import EXIT_STATUSES, MEANINGS
from everthread.cli.group import SECTIONS, everthread
from everthread.cli.json_output import OBJECTS, schema


def reference() -> str:
    """Return a page with the help, options and JSON objects of every command, and the exit statuses."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    context = click.Context(everthread, info_name="everthread")
    yield "# Commands\n"
    for section, names in SECTIONS.items():
        yield f"## {section}\n"
        for name in names:
            command = everthread.get_command(context, name)
            assert command is not None, name
            yield from _command(command, click.Context(command, context, info_name=name))
    yield "## Exit statuses\n\n| status | meaning |\n|---|---|"
    yield from (f"| {status} | {meaning} |" for status, meaning in MEANINGS.items())
    yield ""


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    name = context.command_path.removeprefix("everthread ")
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            assert found is not None, child
            yield from _command(found, click.Context(found, context, info_name=child))
        return
    yield f"### `everthread {name}`\n"
    yield _paragraphs(command.help)
    yield f"```text\n{command.get_usage(context).removeprefix('Usage: ')}\n```\n"
    yield "| option | meaning |\n|---|---|"
    for option in command.get_params(context):
        record = option.get_help_record(context) if isinstance(option, click.Option) else None
        if record is not None:
            # Within code a table needs no backslash before a bar, and would show it.
            yield f"| `{' '.join(record[0].split())}` | {_cell(record[1])} |"
    yield ""
    yield f"```text\n{_paragraphs((command.epilog or '').replace(EXIT_STATUSES, '')).strip()}\n```\n"
    if name in OBJECTS:
        for title, shape in schema(name)["$defs"].items():
            yield from _object(title, shape)


def _object(name: str, shape: dict[str, Any]) -> Iterator[str]:
    yield f"JSON object `{name}`: {shape.get('description', '')}\n\n| field | type | meaning |\n|---|---|---|"
    required = shape.get("required", ())
    for field, value in shape["properties"].items():
        kind = _cell(_type(value)) + ("" if field in required else ", optional")
        yield f"| `{field}` | {kind} | {_cell(value.get('description', ''))} |"
    yield ""


def _type(value: dict[str, Any]) -> str:
    """Return the type of a JSON Schema in words."""
    if "anyOf" in value:
        return " or ".join(_type(each) for each in value["anyOf"])
    if "$ref" in value:
        return f"`{value['$ref'].rpartition('/')[2]}`"
    if "enum" in value:
        return ", ".join(f"`{each}`" for each in value["enum"])
    if value.get("type") == "array":
        return f"list of {_type(value.get('items', {}))}"
    return str(value.get("format") or value.get("type", "any JSON"))


def _paragraphs(text: str | None) -> str:
    return re.sub(r"^\x08\n", "", inspect.cleandoc(text or ""), flags=re.MULTILINE).rstrip() + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    click.echo(reference())

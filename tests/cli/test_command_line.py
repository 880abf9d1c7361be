"""The command line itself: help, version, imports, and missing extras."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from everthread import ConfigurationError, __version__
from everthread.cli.exit_statuses import EXIT_USAGE
from everthread.cli.group import COMMANDS, everthread
from everthread.cli.models import choose_model
from everthread.cli.places import default_store_url
from everthread.cli.runner import without_secrets
from everthread.opening import open_store
from tests.cli.driving import PROGRAM, environment, piped
from tests.cli.test_commands import run

INNER_COMMANDS = ("config add", "config show", "config remove", "config path", "recall follow", "recall status")
AZURE = {"AOAI_ENDPOINT": "https://x.example", "AOAI_DEPLOYMENT": "d"}
HEAVY = ("asyncio", "agent_framework", "openai", "rich", "prompt_toolkit", "redis", "azure", "platformdirs", "sqlite3")


def python(code: str, home: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, env=environment(home), check=False, timeout=60)


def as_command(*arguments: str, without: str = "") -> str:
    hidden = f"sys.modules[{without!r}] = None; " if without else ""
    return f"import sys; {hidden}sys.argv = {['everthread', *arguments]!r}; from everthread.cli import main; main()"


def test_help_has_examples_and_the_version_is_printed(tmp_path: Path) -> None:
    run = piped("", "--help", home=tmp_path, program=(PROGRAM,))
    assert run.returncode == 0
    assert "everthread chat --store redis://localhost:6379/0" in run.stdout
    assert "AOAI_ENDPOINT" in piped("", "--help", home=tmp_path).stdout
    assert __version__ in piped("", "--version", home=tmp_path, program=(PROGRAM,)).stdout


@pytest.mark.parametrize("arguments", [("--help",), ("chat", "--help")])
def test_help_loads_no_framework_driver_or_terminal_library(arguments: tuple[str, ...], tmp_path: Path) -> None:
    code = as_command(*arguments).replace("main()", "exec('try: main()\\nexcept SystemExit: pass')")
    run = python(f"{code}; import json; print(json.dumps(sorted(sys.modules)), file=sys.stderr)", tmp_path)
    loaded = {name.partition(".")[0] for name in json.loads(run.stderr)}
    assert not loaded & set(HEAVY)


@pytest.mark.parametrize(
    ("missing", "command", "extra"),
    [
        ("click", "--help", "cli"),
        ("rich", "chat", "chat"),
        ("prompt_toolkit", "chat", "chat"),
        ("agent_framework", "chat", "chat"),
        ("agent_framework_openai", "chat", "chat"),
    ],
)
def test_a_missing_extra_gives_the_install_command(missing: str, command: str, extra: str, tmp_path: Path) -> None:
    run = python(as_command(command, without=missing), tmp_path)
    assert run.returncode == 1
    assert f"pip install 'everthread[{extra}]'" in run.stderr
    assert "Traceback" not in run.stderr


def test_an_unknown_command_is_a_usage_error(tmp_path: Path) -> None:
    run = piped("", "talk", home=tmp_path, program=(PROGRAM,))
    assert run.returncode == 2
    assert "No such command" in run.stderr


@pytest.mark.parametrize(
    ("typed", "near"),
    [("thraeds", "threads"), ("delete-tenat", "delete-tenant"), ("config shwo", "show"), ("xyz", "")],
)
def test_a_mistyped_command_suggests_the_nearest_one(typed: str, near: str, tmp_path: Path) -> None:
    run = piped("", *typed.split(), home=tmp_path, program=(PROGRAM,))
    assert run.returncode == 2
    assert (f"Did you mean {near!r}?" in run.stderr) is bool(near)


@pytest.mark.parametrize(
    "name", [*COMMANDS, "config add", "config show", "config remove", "config path", "recall follow", "recall status"]
)
def test_help_has_an_imperative_line_examples_and_defaults(name: str) -> None:
    context = click.Context(everthread, info_name="everthread")
    command: click.Command = everthread
    for word in name.split():
        assert isinstance(command, click.Group)
        command = command.get_command(context, word) or everthread
    assert re.match(r"[A-Z][a-z]+ .*\.", command.help or "")
    assert f"everthread {name}" in (command.epilog or "")
    for option in command.params:
        if isinstance(option, click.Option):
            told = option.help or ""
            assert re.match(r"[A-Z]", told), option.name
            if isinstance(option.default, int | float | str) and option.default and not option.is_flag:
                assert "(default: " in told, option.name


@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_max_messages_must_be_positive(value: str, tmp_path: Path) -> None:
    assert piped("", "--max-messages", value, home=tmp_path).returncode == 2


def test_an_invalid_thread_id_ends_without_a_traceback(tmp_path: Path) -> None:
    run = piped("", "--thread", "x" * 600, home=tmp_path)
    assert run.returncode == 1
    assert "600 bytes" in run.stderr
    assert "Traceback" not in run.stderr


async def test_the_default_store_may_lie_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a b%20ü#?"
    monkeypatch.setenv("XDG_DATA_HOME", str(folder))
    async with open_store(default_store_url()):
        assert (folder / "everthread" / "threads.db").exists()


@pytest.mark.parametrize("url", ["redis://u:p%40ss@h:1/0", "redis://:p%40ss@h/0", "rediss://u:p%40ss@[::1]:6380"])
def test_a_password_in_an_error_is_masked(url: str) -> None:
    assert without_secrets("refused p@ss and p%40ss", url) == "refused *** and ***"


def test_an_invalid_url_does_not_break_the_message() -> None:
    assert without_secrets("text", "redis://[bad") == "text"


def test_half_of_the_azure_settings_names_the_other() -> None:
    with pytest.raises(ConfigurationError, match="AOAI_DEPLOYMENT is not set"):
        choose_model(None, {"AOAI_ENDPOINT": "https://x.openai.azure.com"})
    with pytest.raises(ConfigurationError, match="AOAI_ENDPOINT is not set"):
        choose_model(None, {"AOAI_DEPLOYMENT": "gpt"})


def test_a_model_name_alone_names_the_missing_setting() -> None:
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        choose_model("some-model", {})


@pytest.mark.parametrize(
    ("option", "environ", "part"),
    [
        (None, {}, "offline"),
        (None, {"OPENAI_API_KEY": "", "AOAI_ENDPOINT": ""}, "offline"),
        ("offline", {"OPENAI_API_KEY": "key-123456"}, "offline"),
        (None, {"OPENAI_API_KEY": "key-123456", "OPENAI_MODEL": "m1"}, "m1 (OpenAI)"),
        ("m2", {"OPENAI_BASE_URL": "http://localhost:1/v1"}, "m2 at http://localhost:1/v1"),
        (
            None,
            AZURE | {"AOAI_API_KEY": "key-123456"},
            "d (Azure",
        ),
        (None, AZURE | {"OPENAI_API_KEY": "k"}, "d (Azure OpenAI at https://x.example)"),
        ("m3", {"OPENAI_BASE_URL": "http://u:key-123456@localhost:1/v1"}, "m3 at http://u:***@localhost:1/v1"),
    ],
)
async def test_the_model_follows_the_options_and_the_environment(
    option: str | None, environ: dict[str, str], part: str
) -> None:
    model = choose_model(option, environ)
    try:
        assert part in model.description
        assert "key-123456" not in model.description
    finally:
        await model.close()


@pytest.mark.parametrize("environ", [{"OPENAI_API_KEY": "key-123456"}, AZURE | {"AOAI_API_KEY": "key-123456"}])
async def test_a_models_key_is_masked_in_its_errors(environ: dict[str, str]) -> None:
    model = choose_model("m", environ)
    assert model.without_secrets("bad key-123456") == "bad ***"
    await model.close()


def test_drivers_print_no_log(tmp_path: Path) -> None:
    code = """
import logging
from everthread.cli.places import Place
from everthread.cli.runner import run

async def work(store):
    logging.getLogger("azure.identity").warning("noise")
    logging.getLogger("everthread").warning("heard")

run(work, Place("memory:"))
"""
    assert python(code, tmp_path).stderr == "heard\n"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("usage --max-messages five", "'five' is not a valid whole number"),
        ("show trip --interval soon", "'soon' is not a valid number of seconds"),
    ],
)
def test_a_wrong_number_is_named(words: str, text: str) -> None:
    done = run(*words.split(), store="memory:")
    assert (done.exit_code, text in done.stderr) == (EXIT_USAGE, True)

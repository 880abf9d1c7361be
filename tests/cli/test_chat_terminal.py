"""The interactive client in a pseudo-terminal: line editing, streaming, Ctrl-C, colors, narrow windows."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from rich.cells import cell_len

from tests.cli.driving import PROGRAM, PROMPT, Tty, piped, said_to
from tests.openai_server import HOLD, ScriptedOpenAI, scripted_openai
from tests.servers import redis_server

CTRL_C = "\x03"
CTRL_D = "\x04"
UP = "\x1b[A"


def talking_to(model: ScriptedOpenAI) -> dict[str, str]:
    return {"OPENAI_BASE_URL": model.url, "OPENAI_API_KEY": "key-of-the-test"}


def test_a_thread_is_loaded_in_the_next_run(tmp_path: Path) -> None:
    with Tty(home=tmp_path) as first:
        first.enter("I am Ana")
        first.expect("TravelPlanner> Noted: “I am Ana")
        first.enter("0")
        first.expect("Goodbye")
        assert first.exit_status() == 0
    with Tty(home=tmp_path) as second:
        second.expect(r"\[3\] load a saved thread")
        second.enter("3")
        second.expect(r"  1  I am Ana  2 messages, ")
        second.enter("1")
        second.expect("Noted: “I am Ana")
        second.enter("what is my name?")
        second.expect("TravelPlanner> You told me: “I am Ana”")
        second.enter("4")
        second.enter("what is my name?")
        second.expect("TravelPlanner> You have not told me anything yet")
        second.expect(PROMPT)
        second.type(CTRL_D)
        second.expect("Goodbye")
        assert second.exit_status() == 0


def test_the_arrived_part_of_a_stopped_reply_is_stored(tmp_path: Path) -> None:
    with scripted_openai(["one two ", HOLD], "three") as model, Tty(home=tmp_path, **talking_to(model)) as tty:
        tty.enter("count for me")
        tty.expect("TravelPlanner> one two")
        tty.type(CTRL_C)
        tty.expect("stopped; the part that arrived is stored")
        assert model.hung_up.wait(30)
        tty.enter("go on")
        tty.expect("TravelPlanner> three")
        roles = [("user", "count for me"), ("assistant", "one two "), ("user", "go on")]
        assert said_to(model)[1:] == roles
        tty.expect(PROMPT)
        tty.type(CTRL_C)
        assert tty.exit_status() == 130


def test_a_reply_stopped_at_once_leaves_the_message_in_the_line(tmp_path: Path) -> None:
    with scripted_openai([HOLD], "hello") as model, Tty(home=tmp_path, **talking_to(model)) as tty:
        tty.enter("count for me")
        tty.expect("is thinking")
        assert model.holding.wait(60)
        tty.type(CTRL_C)
        tty.expect("stopped before the reply began")
        tty.expect("you>.*count for me")
        tty.type("\r")
        tty.expect("TravelPlanner> hello")
        assert said_to(model)[1:] == [("user", "count for me")]


@pytest.mark.slow
def test_a_second_ctrl_c_leaves_even_if_the_store_hangs(tmp_path: Path) -> None:
    with scripted_openai(["one two ", HOLD]) as model, redis_server("redis") as server:
        url = f"redis://127.0.0.1:{server.port}/0"
        with Tty("--store", url, home=tmp_path, **talking_to(model)) as tty:
            tty.enter("count for me")
            tty.expect("one two")
            assert server.process
            server.process.send_signal(signal.SIGSTOP)
            try:
                tty.type(CTRL_C)
                assert model.hung_up.wait(30)
                tty.type(CTRL_C)
                assert tty.exit_status() == 130
            finally:
                server.process.send_signal(signal.SIGCONT)
            assert "Traceback" not in tty.raw


def test_ctrl_c_clears_a_line_and_leaves_from_an_empty_one(tmp_path: Path) -> None:
    with Tty(home=tmp_path) as tty:
        tty.expect(PROMPT)
        tty.type("half a thought")
        tty.expect("half a thought")
        tty.type(CTRL_C)
        tty.expect(PROMPT)
        tty.type("\r" + CTRL_C)
        tty.expect("Goodbye")
        assert tty.exit_status() == 130
    assert "half a thought" not in piped("3\n", home=tmp_path).stdout


def test_ctrl_c_in_a_question_goes_back_to_the_menu(tmp_path: Path) -> None:
    with Tty(home=tmp_path) as tty:
        tty.enter("I am Ana")
        for choice, question in (("1", "message>"), ("3", "Enter to stay>")):
            tty.enter(choice)
            tty.expect(question)
            tty.type(CTRL_C)
            tty.expect(r"\[1\] send a message")
        tty.enter("what is my name?")
        tty.expect("You told me: “I am Ana")
        tty.enter("exit")
        assert tty.exit_status() == 0


def test_typed_lines_are_recalled_unless_turned_off(tmp_path: Path) -> None:
    for settings in ({}, {"EVERTHREAD_INPUT_HISTORY": "0"}):
        with Tty(home=tmp_path, **settings) as tty:
            tty.enter("I am Ana" if not settings else "I am Bob")
            tty.expect("Noted: “I am")
            tty.enter("0")
            assert tty.exit_status() == 0
    (kept,) = tmp_path.rglob("input-history.jsonl")
    assert kept.stat().st_mode & 0o077 == 0
    assert "Bob" not in kept.read_text()
    with Tty(home=tmp_path) as tty:
        tty.expect(PROMPT)
        tty.type(UP + UP)
        tty.expect("I am Ana")


def test_output_through_tee_has_prompts(tmp_path: Path) -> None:
    command = f"{PROGRAM} chat | tee {tmp_path}/log"
    with Tty("-c", command, home=tmp_path, program=("/bin/sh",)) as tty:
        tty.enter("I am Ana")
        tty.expect("TravelPlanner> Noted: “I am Ana")
        tty.enter("0")
        assert tty.exit_status() == 0
    assert "\x1b" not in (tmp_path / "log").read_text()


def test_the_command_to_continue_works_as_pasted(tmp_path: Path) -> None:
    with Tty(home=tmp_path, columns=50, PATH="/usr/bin:/bin") as tty:
        tty.enter("I am Ana")
        tty.enter("0")
        command = tty.expect(r"To continue this conversation:\n +(.*)\n")[1].strip()
        assert tty.exit_status() == 0
    again = piped("what is my name?\n", "-c", command, home=tmp_path, program=("/bin/sh",), PATH="/usr/bin:/bin")
    assert "You told me: “I am Ana”" in again.stdout


def test_a_message_survives_an_outage_of_the_store(tmp_path: Path) -> None:
    with redis_server("redis") as server, Tty("--store", f"redis://127.0.0.1:{server.port}/0", home=tmp_path) as tty:
        tty.enter("I am Ana")
        tty.expect("Noted: “I am Ana")
        tty.expect(PROMPT)
        server.kill()
        tty.type("I want to go to Lisbon\r")
        tty.expect(f"127.0.0.1:{server.port}")
        tty.expect("Your message was not stored")
        tty.expect("you>.*I want to go to Lisbon")
        server.start()
        tty.type("\r")
        tty.expect("TravelPlanner> Noted: “I want to go to Lisbon")
        tty.enter("2")
        tty.expect(r"(?s)I am Ana.*user.*I want to go to Lisbon.*assistant")
        assert "Traceback" not in tty.raw


def test_no_color_turns_colors_off(tmp_path: Path) -> None:
    for settings, colored in (({}, True), ({"NO_COLOR": "1"}, False)):
        with Tty(home=tmp_path, **settings) as tty:
            tty.enter("I am Ana")
            tty.expect("Noted: “I am")
            tty.enter("2")
            tty.expect("assistant")
            tty.enter("0")
            assert tty.exit_status() == 0
        assert ("\x1b[36m" in tty.raw or ";36m" in tty.raw) is colored
        assert ("\x1b[1;32m" in tty.raw) is colored


@pytest.mark.parametrize("columns", [40, 100])
def test_replies_and_history_break_at_words_within_the_window(columns: int, tmp_path: Path) -> None:
    with Tty(home=tmp_path, columns=columns) as tty:
        tty.enter("I love fado, seafood, long walks along the river, old trams and azulejos")
        said = tty.expect(r"(?s)TravelPlanner> .*?azulejos”\s").group()
        tty.enter("2")
        shown = tty.expect(r"(?s)assistant .*?azulejos”\s").group()
        tty.enter("0")
        tty.exit_status()
    for text in (said, shown):
        assert all(cell_len(line) < columns for line in text.split("\n"))
        assert "“I love fado, seafood, long walks along the river, old trams and azulejos”" in " ".join(text.split())

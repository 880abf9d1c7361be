"""The interactive client in a real (pseudo-)terminal: line editing, streaming, Ctrl-C, colours, narrow windows."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from rich.cells import cell_len

from tests.cli.driving import PROMPT, Tty, piped, said_to
from tests.openai_server import HOLD, ScriptedOpenAI, scripted_openai
from tests.servers import redis_server

CTRL_C = "\x03"
CTRL_D = "\x04"


def talking_to(model: ScriptedOpenAI) -> dict[str, str]:
    return {"OPENAI_BASE_URL": model.url, "OPENAI_API_KEY": "key-of-the-test"}


def test_talking_quitting_coming_back_and_loading(tmp_path: Path) -> None:
    with Tty(home=tmp_path) as first:
        first.enter("I am Ana")
        first.expect("TravelPlanner> Nice to meet you, Ana")
        first.enter("0")
        first.expect("Goodbye")
        assert first.exit_status() == 0
    with Tty(home=tmp_path) as second:
        second.expect(r"\[3\] load a saved thread and go on")
        second.enter("3")
        second.expect(r"  1  I am Ana  2 messages, ")
        second.enter("1")
        second.expect("Nice to meet you, Ana")
        second.enter("what is my name?")
        second.expect("TravelPlanner> Your name is Ana.")
        second.enter("4")
        second.expect("Start a fresh thread?")
        second.enter("y")
        second.enter("what is my name?")
        second.expect("TravelPlanner> You have not told me your name.")
        second.expect(PROMPT)
        second.type(CTRL_D)
        second.expect("Goodbye")
        assert second.exit_status() == 0


def test_a_stopped_reply_is_kept_as_far_as_it_came_and_the_next_turn_works(tmp_path: Path) -> None:
    with scripted_openai(["one two ", HOLD], "three") as model, Tty(home=tmp_path, **talking_to(model)) as tty:
        tty.enter("count for me")
        tty.expect("TravelPlanner> one two")
        tty.type(CTRL_C)
        tty.expect("stopped; what you read is kept")
        assert model.hung_up.wait(30)
        tty.enter("go on")
        tty.expect("TravelPlanner> three")
        roles = [("user", "count for me"), ("assistant", "one two "), ("user", "go on")]
        assert said_to(model)[1:] == roles
        tty.expect(PROMPT)
        tty.type(CTRL_C)
        assert tty.exit_status() == 130


def test_a_reply_stopped_before_it_began_leaves_nothing_and_the_message_in_the_line(tmp_path: Path) -> None:
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


def test_a_second_ctrl_c_leaves_though_the_store_hangs(tmp_path: Path) -> None:
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


def test_a_message_is_not_lost_when_the_store_goes_away_and_comes_back(tmp_path: Path) -> None:
    with redis_server("redis") as server, Tty("--store", f"redis://127.0.0.1:{server.port}/0", home=tmp_path) as tty:
        tty.enter("I am Ana")
        tty.expect("Nice to meet you, Ana")
        tty.expect(PROMPT)
        server.kill()
        tty.type("I want to go to Lisbon\r")
        tty.expect(f"127.0.0.1:{server.port}")
        tty.expect("Your message was not kept")
        tty.expect("you>.*I want to go to Lisbon")
        server.start()
        tty.type("\r")
        tty.expect("TravelPlanner> Noted, Ana: you want to go to Lisbon")
        tty.enter("2")
        tty.expect(r"(?s)I am Ana.*user.*I want to go to Lisbon.*assistant")
        assert "Traceback" not in tty.raw


def test_colours_only_without_no_color(tmp_path: Path) -> None:
    for settings, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        with Tty(home=tmp_path, **settings) as tty:
            tty.enter("I am Ana")
            tty.expect("Nice to meet you")
            tty.enter("2")
            tty.expect("assistant")
            tty.enter("0")
            assert tty.exit_status() == 0
        assert ("\x1b[36m" in tty.raw or ";36m" in tty.raw) is coloured
        assert ("\x1b[1;32m" in tty.raw) is coloured


@pytest.mark.parametrize("columns", [40, 100])
def test_replies_and_history_break_at_words_within_the_window(columns: int, tmp_path: Path) -> None:
    with Tty(home=tmp_path, columns=columns) as tty:
        tty.enter("I love fado, seafood, long walks along the river, old trams and azulejos")
        said = tty.expect(r"(?s)TravelPlanner> .*?azulejos\.\s").group()
        tty.enter("2")
        shown = tty.expect(r"(?s)assistant .*?azulejos\.\s").group()
        tty.enter("0")
        tty.exit_status()
    for text in (said, shown):
        assert all(cell_len(line) < columns for line in text.split("\n"))
        assert "you like fado, seafood, long walks along the river, old trams and azulejos." in " ".join(text.split())

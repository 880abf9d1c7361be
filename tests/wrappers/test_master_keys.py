"""Master keys are read from files and the environment, and what is wrong with them is told without the keys."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import cast

import pytest

from everthread import ConfigurationError
from everthread.wrappers.encryption.master_keys import (
    MasterKey,
    keys_from_environment,
    keys_from_file,
    new_master_key,
)

NEW, OLD = new_master_key("2027"), new_master_key("2026")


def test_the_first_key_of_a_file_seals_and_all_open(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"# changed every year\n\n{NEW.to_line()}  # now\n  {OLD.to_line()}\n")
    source = keys_from_file(path)
    assert (source(None), source("2027"), source("2026"), source("2025")) == (NEW, NEW, OLD, None)


def test_a_key_that_is_added_to_the_file_is_found_at_once(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(OLD.to_line())
    source = keys_from_file(path)
    assert source(None) == OLD
    path.write_text(f"{NEW.to_line()}\n{OLD.to_line()}")
    assert (source(None), source("2026")) == (NEW, OLD)


@pytest.mark.parametrize("between", [" ", ",", "\n", " , "])
def test_the_environment_holds_keys(monkeypatch: pytest.MonkeyPatch, between: str) -> None:
    monkeypatch.setenv("EVERTHREAD_KEYS", between.join([NEW.to_line(), OLD.to_line()]))
    source = keys_from_environment()
    assert (source(None), source("2026")) == (NEW, OLD)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "c2VjcmV0",
        "k:c2VjcmV0",
        f"k {OLD.to_line()}",
        f"bad id!:{OLD.to_line().partition(':')[2]}",
        f"k:{OLD.to_line().partition(':')[2][:-4]}!!!!",
        f"{OLD.to_line()}\n{OLD.to_line()}",
    ],
    # The keys are made anew by each process, and test runners side by side must agree on the names.
    ids=itertools.count(),
)
def test_what_is_no_key_is_told_without_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match="keys") as caught:
        keys_from_file(path)(None)
    assert OLD.to_line().partition(":")[2][:-4] not in str(caught.value)
    assert "c2VjcmV0" not in str(caught.value)


def test_a_file_or_variable_that_is_missing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: FileNotFoundError"):
        keys_from_file(tmp_path / "none")(None)
    monkeypatch.delenv("MY_KEYS", raising=False)
    with pytest.raises(ConfigurationError, match="MY_KEYS holds no keys"):
        keys_from_environment("MY_KEYS")(None)


@pytest.mark.parametrize(
    "arguments", [("", bytes(32)), ("a.b", bytes(32)), ("a", bytes(31)), ("a", "x" * 32), (1, bytes(32))]
)
def test_a_key_of_a_wrong_form_is_refused(arguments: tuple[object, object]) -> None:
    with pytest.raises(ConfigurationError):
        MasterKey(*cast(tuple[str, bytes], arguments))


def test_new_keys_differ_and_are_not_shown() -> None:
    assert new_master_key("a") != new_master_key("a")
    assert repr(NEW) == "MasterKey('2027')"

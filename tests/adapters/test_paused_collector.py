"""The garbage collector pauses for large pages only, and always runs again afterwards."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from everthread import Message, ThreadKey
from everthread.adapters.agent_framework.stored_rows import readable
from everthread.adapters.paused_collector import LARGE_PAGE, paused_collector

KEY = ThreadKey("t")


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    gc.enable()
    yield
    gc.enable()


def page(count: int) -> list[Message]:
    return [Message(seq, b"{}", "agent-framework", 0, seq) for seq in range(count)]


@pytest.mark.parametrize(("count", "is_on"), [(LARGE_PAGE - 1, True), (LARGE_PAGE, False)])
def test_the_collector_pauses_for_a_large_page(count: int, is_on: bool) -> None:
    seen = set(readable(page(count), KEY, lambda *_: gc.isenabled())[1])
    assert seen == {is_on}
    assert gc.isenabled()


def test_the_collector_runs_again_after_an_error() -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        readable(page(LARGE_PAGE), KEY, fail)
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    readable(page(LARGE_PAGE), KEY, lambda *_: None)
    assert not gc.isenabled()


def test_the_outer_of_two_pauses_ends_both() -> None:
    with paused_collector(LARGE_PAGE):
        readable(page(LARGE_PAGE), KEY, lambda *_: None)
        assert not gc.isenabled()
    assert gc.isenabled()

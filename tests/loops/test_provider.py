"""The provider of Agent Framework 1.x by URL: in every kind of event loop, and in many loops."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from everthread import ConfigurationError, open_store
from everthread.adapters.agent_framework import EverthreadHistoryProvider
from everthread.testing.guarantees.event_loops import LOOPS, LoopFactory, run
from tests.adapters.agents import agent_with
from tests.adapters.agents import run as say
from tests.adapters.scripted import ScriptedClient
from tests.places import empty_place

ENGINES = ["memory", "sqlite", "redis", "postgres", "objects"]


@pytest.fixture(params=ENGINES)
def provider(request: pytest.FixtureRequest) -> EverthreadHistoryProvider:
    return EverthreadHistoryProvider(empty_place(request, request.param))


async def said(provider: EverthreadHistoryProvider) -> list[str]:
    return [message.text for message in await provider.get_messages("trip")]


@pytest.mark.parametrize("kind", list(LOOPS))
def test_each_run_may_come_from_another_loop(provider: EverthreadHistoryProvider, kind: str) -> None:
    agent = agent_with(ScriptedClient(then="Fine."), provider)
    for number in range(3):
        run(say(agent, f"question {number}"), LOOPS[kind])
    expected = [text for number in range(3) for text in (f"question {number}", "Fine.")]
    assert run(said(provider), LOOPS[kind]) == expected
    assert [each.session_id for each in run(provider.list_sessions(), LOOPS[kind])] == ["trip"]


def test_loops_of_several_threads_run_at_once(provider: EverthreadHistoryProvider) -> None:
    agent, together = agent_with(ScriptedClient(then="Fine."), provider), threading.Barrier(3)

    def talk(make: LoopFactory) -> None:
        together.wait()
        run(say(agent, "hello"), make)

    threads = [threading.Thread(target=talk, args=(asyncio.new_event_loop,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert run(said(provider)) == ["hello", "Fine."] * 3


def test_a_loop_that_was_only_closed_loses_nothing(provider: EverthreadHistoryProvider) -> None:
    agent = agent_with(ScriptedClient(then="Fine."), provider)
    for number in range(2):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(say(agent, f"{number}"))
        loop.close()
    assert run(said(provider)) == ["0", "Fine.", "1", "Fine."]


def test_a_closed_provider_opens_again_in_the_next_loop(provider: EverthreadHistoryProvider) -> None:
    agent = agent_with(ScriptedClient(then="Fine."), provider)

    async def serve() -> None:
        async with provider:
            await say(agent, "hello")

    for _ in range(2):
        run(serve())
    assert len(run(said(provider))) == 4


def test_closing_from_another_loop_closes_in_the_loop_that_opened(tmp_path: Path) -> None:
    provider = EverthreadHistoryProvider(f"sqlite:///{tmp_path}/threads.db")
    log, opened, may_end = tmp_path / "threads.db-wal", threading.Event(), threading.Event()

    async def hold() -> None:
        await provider.list_sessions()
        opened.set()
        await asyncio.to_thread(may_end.wait)

    holder = threading.Thread(target=lambda: run(hold()))
    holder.start()
    opened.wait()
    assert log.exists()
    run(provider.aclose())
    assert not log.exists()
    may_end.set()
    holder.join()


def test_a_relative_path_stays_what_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    provider = EverthreadHistoryProvider("sqlite:///threads.db")
    agent = agent_with(ScriptedClient(then="Fine."), provider)
    run(say(agent, "hello"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run(said(provider)) == ["hello", "Fine."]
    assert list(Path.cwd().iterdir()) == []


def test_a_handed_store_says_that_it_belongs_to_its_loop(tmp_path: Path) -> None:
    provider = EverthreadHistoryProvider(open_store(f"sqlite:///{tmp_path}/threads.db"))
    with asyncio.Runner() as runner:
        runner.run(said(provider))
        thread_errors: list[BaseException] = []

        def elsewhere() -> None:
            try:
                run(said(provider))
            except ConfigurationError as error:
                thread_errors.append(error)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        runner.run(provider.store.aclose())
    assert "another event loop" in str(thread_errors[0])


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, pickle.dumps])
def test_copying_a_provider_is_refused_at_once(how: Callable[[object], object]) -> None:
    with pytest.raises(ConfigurationError, match="session"):
        how(EverthreadHistoryProvider("memory:"))

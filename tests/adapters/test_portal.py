"""The event loop in a background thread that synchronous methods of adapters use."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from pathlib import Path

import pytest

from everthread import ConfigurationError
from everthread.adapters.portal import Portal, shared_portal

who = ContextVar("who", default="nobody")


@pytest.fixture
def portal() -> Iterator[Portal]:
    portal = Portal()
    yield portal
    portal.close()


async def double(number: int) -> int:
    await asyncio.sleep(0)
    return number * 2


async def fail() -> None:
    raise LookupError("as planned")


async def asked() -> str:
    return who.get()


def test_a_call_returns_the_result_or_raises_the_error(portal: Portal) -> None:
    assert portal.call(double, 2) == 4
    assert portal.call(double, number=3) == 6
    with pytest.raises(LookupError, match="as planned"):
        portal.call(fail)


def test_even_an_exit_reaches_the_caller_only(portal: Portal) -> None:
    async def leave() -> None:
        sys.exit(3)

    with pytest.raises(SystemExit):
        portal.call(leave)
    assert portal.call(double, 2) == 4


def test_a_call_sees_the_context_of_its_caller(portal: Portal) -> None:
    token = who.set("ana")
    assert portal.call(asked) == "ana"
    who.reset(token)
    assert portal.call(asked) == "nobody"


async def test_a_running_loop_can_wait_for_a_call(portal: Portal) -> None:
    assert portal.call(double, 2) == 4


def test_threads_call_at_the_same_time(portal: Portal) -> None:
    together = asyncio.Barrier(8)

    async def meet(number: int) -> int:
        await together.wait()
        return number

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(lambda number: portal.call(meet, number), range(8))) == list(range(8))


def test_a_coroutine_of_the_portal_must_not_wait_for_it(portal: Portal) -> None:
    async def nested() -> int:
        return portal.call(double, 2)

    with pytest.raises(ConfigurationError, match="use the async method"):
        portal.call(nested)
    assert portal.call(double, 2) == 4


def test_an_async_iterator_is_closed_when_its_caller_stops(portal: Portal) -> None:
    closed = threading.Event()

    async def count() -> AsyncIterator[int]:
        try:
            for number in range(10):
                yield number
        finally:
            closed.set()

    assert list(portal.iterate(count)) == list(range(10))
    assert closed.is_set()
    closed.clear()
    items = portal.iterate(count)
    assert [next(items), next(items)] == [0, 1]
    items.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert closed.is_set()


def test_closing_ends_calls_in_progress_and_the_next_call_starts_again(portal: Portal) -> None:
    begun = threading.Event()

    async def hang() -> None:
        begun.set()
        await asyncio.Event().wait()

    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(portal.call, hang)
        assert begun.wait(60)
        portal.close()
        portal.close()
        with pytest.raises(ConfigurationError, match="closed during this call"):
            hanging.result(60)
    assert portal.call(double, 2) == 4


def test_all_adapters_share_one() -> None:
    assert shared_portal() is shared_portal()


def _run(program: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", program],
        capture_output=True, text=True, timeout=120, cwd=folder, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


_BEGIN = """
import asyncio, atexit, os, signal, threading
from everthread import EverthreadError, ThreadKey, new_message, open_store
from everthread.adapters.portal import shared_portal
from everthread.wrappers.per_loop import PerLoop
import sys
store = PerLoop(lambda: open_store(sys.argv[1] if len(sys.argv) > 1 else URL))
key = ThreadKey("trip")
def save():
    shared_portal().call(store.append, key, [new_message({"role": "user", "content": "Hello"})])
def count():
    return shared_portal().call(store.get_thread, key).count
"""


def program(url: str, rest: str) -> str:
    return f"URL = {url!r}\n{_BEGIN}{rest}"


@pytest.mark.parametrize("scheme", ["sqlite", "file"])
def test_a_program_ends_quietly_with_open_stores(tmp_path: Path, scheme: str) -> None:
    url = f"{scheme}://{'/' if scheme == 'sqlite' else ''}{tmp_path}/threads"
    rest = """
def late():
    try:
        save()
        print("saved")
    except EverthreadError as error:
        print(type(error).__name__)
atexit.register(late)  # runs after the portal has closed
save()
print(count())
"""
    assert _run(program(url, rest), tmp_path) == "1\nConfigurationError\n"


def test_a_thread_that_outlives_the_main_one_can_still_call(tmp_path: Path) -> None:
    rest = """
save()
def outlive():
    threading.main_thread().join()
    save()
    print(count())
threading.Thread(target=outlive).start()
"""
    assert _run(program(f"sqlite:///{tmp_path}/threads.db", rest), tmp_path) == "2\n"


def test_an_interrupt_cancels_the_call(tmp_path: Path) -> None:
    rest = """
cancelled = threading.Event()
async def hang():
    try:
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()
    finally:
        cancelled.set()
try:
    shared_portal().call(hang)
except KeyboardInterrupt:
    print("interrupted", cancelled.wait(60))
save()
print(count())
"""
    assert _run(program(f"sqlite:///{tmp_path}/threads.db", rest), tmp_path) == "interrupted True\n1\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_has_a_loop_of_its_own(tmp_path: Path) -> None:
    rest = """
save()
child = os.fork()
save()
if child:
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), count())
"""
    assert _run(program(f"sqlite:///{tmp_path}/threads.db", rest), tmp_path) == "0 3\n"

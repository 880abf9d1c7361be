"""One object that hands out every store of the framework, on one everthread store."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from agent_framework import AgentSession, WorkflowCheckpoint

from everthread import ConfigurationError, InvalidIdentifierError, ThreadKey, open_store
from everthread.adapters.agent_framework import Everthread
from tests.adapters.agent_framework.checkpoints import Order
from tests.adapters.agents import agent_with
from tests.adapters.scripted import ScriptedClient

session_store = pytest.importorskip("everthread.adapters.agent_framework.session_store", exc_type=ConfigurationError)


async def test_everything_of_a_session_is_one_thread(shared_url: str) -> None:
    async with Everthread(shared_url, tenant="acme") as stores:
        agent, session = agent_with(ScriptedClient(), stores.history(window=10)), AgentSession(session_id="trip")
        await agent.run("Hello", session=session)
        await stores.sessions().set("trip", session)
        checkpoints = stores.checkpoints("trip", allowed_types=[Order], max_checkpoints=1)
        for number in (1, 2):
            await checkpoints.save(WorkflowCheckpoint("orders", "h", state={"n": number}))
    async with open_store(shared_url) as store:
        key = ThreadKey("trip", "acme")
        assert [thread.key for thread in await store.list_threads("acme")] == [key]
        assert (await store.list_threads()).items == ()
        names = await store.list_documents(key)
        assert [name.split(":")[1] for name in names] == ["checkpoint", "checkpoints", "session"]
        assert await store.delete_thread(key)
    async with Everthread(shared_url, tenant="acme") as stores:
        assert await stores.sessions().get("trip") is None
        assert await stores.checkpoints("trip").get_latest(workflow_name="orders") is None


async def test_it_closes_what_it_opened_and_nothing_else(tmp_path: Path) -> None:
    log = tmp_path / "threads.db-wal"
    stores = Everthread(f"sqlite:///{tmp_path}/threads.db")
    history, sessions = stores.history(), stores.sessions()
    await sessions.set("trip", AgentSession(session_id="trip"))
    await history.aclose()
    await sessions.aclose()
    assert log.exists()
    await stores.aclose()
    assert not log.exists()
    async with open_store("memory:") as store:
        await Everthread(store).aclose()
        assert await store.get_thread(ThreadKey("trip")) is None


@pytest.mark.parametrize(("store", "tenant"), [(7, ""), ("nothing:", ""), ("memory:", "x" * 600)])
def test_wrong_settings_are_refused(store: Any, tenant: str) -> None:
    with pytest.raises((ConfigurationError, InvalidIdentifierError)):
        Everthread(store, tenant=tenant)


def test_its_name_has_no_secret() -> None:
    assert "hunter2" not in repr(Everthread("redis://user:hunter2@localhost/0"))


def test_importing_the_package_needs_no_framework() -> None:
    code = (
        "import sys, json\n"
        "sys.modules['agent_framework'] = sys.modules['agent_framework_ag_ui'] = None\n"
        "from everthread.adapters import agent_framework\n"
        "said = []\n"
        "for name in agent_framework.__all__:\n"
        "    try: getattr(agent_framework, name)\n"
        "    except Exception as error: said.append((name, type(error).__name__, 'pip install' in str(error)))\n"
        "print(json.dumps(said))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert {(kind, helps) for _, kind, helps in json.loads(done.stdout)} == {("ConfigurationError", True)}

"""Large values beside a thread fit the items of Cosmos DB."""

from __future__ import annotations

from agent_framework import WorkflowCheckpoint

from everthread import ThreadKey, open_store
from everthread.adapters.agent_framework import EverthreadCheckpointStorage
from everthread.operations.records import delete_record, get_record, put_record
from tests.object_servers import cosmos_url
from tests.servers import Server

KEY = ThreadKey("trip", "acme")
LARGE = b'"' + '\\"é\U0001f4be'.encode() * 300_000 + b'"'


async def test_records_and_checkpoints_come_back(cosmos_emulator: Server) -> None:
    async with open_store(cosmos_url(cosmos_emulator)) as store:
        for value in (LARGE, b"[1]", LARGE):
            await put_record(store, KEY, "r", value)
            assert await get_record(store, KEY, "r") == value
        assert await delete_record(store, KEY, "r")
        assert await store.list_documents(KEY) == ()
        checkpoints = EverthreadCheckpointStorage(store, "trip", tenant="acme", max_checkpoints=2)
        saved = [WorkflowCheckpoint("orders", "hash", state={"n": (number,)}) for number in range(3)]
        for each in saved:
            await checkpoints.save(each)
        assert await checkpoints.get_latest(workflow_name="orders") == saved[2]
        assert await checkpoints.list_checkpoints(workflow_name="orders") == saved[1:]

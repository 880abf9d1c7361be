"""Another process: goes on with a serialized thread, says something, and prints what there is then.

Arguments: how to restore, the serialized thread as JSON, the URL, what is said.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from everthread.adapters.agent_framework_beta import EverthreadChatMessageStore, RedisChatMessageStore, restore_thread
from tests.beta import betas


async def main(how: str, state: dict[str, Any], url: str, said: str) -> None:
    kind = RedisChatMessageStore if url.startswith("redis") else EverthreadChatMessageStore
    client = betas.scripted(then="Ana, of course.")
    factory = None if how == "without a factory" else lambda: kind(url)
    who = betas.agent(client, factory)
    thread = await (who.deserialize_thread(state) if how == "by the framework" else restore_thread(who, state))
    reply = await betas.run(who, said, thread)
    kept = await thread.message_store.list_messages()
    await thread.message_store.aclose()
    seen = [pair for pair in betas.said(client.seen[0]) if pair[0] != "system"]
    json.dump(
        {"reply": reply, "seen": seen, "kept": betas.said(kept), "id": thread.message_store.thread_id}, sys.stdout
    )


asyncio.run(main(sys.argv[1], json.loads(sys.argv[2]), sys.argv[3], sys.argv[4]))

"""Threads in Azure Cosmos DB (the NoSQL API): each entry of a thread's log is an item of its logical partition.

URL: ``cosmos://account/database?container=threads``. Needs ``pip install 'everthread[cosmos]'``. Cosmos DB itself
guarantees that a name is free only once: creating an item with an ID that its partition has returns 409.
"""

from everthread.engines.cosmos.storage import CosmosStorage
from everthread.engines.cosmos.store import CosmosStore

__all__ = ["CosmosStorage", "CosmosStore"]

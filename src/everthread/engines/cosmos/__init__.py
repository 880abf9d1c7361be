"""Threads in Azure Cosmos DB (the NoSQL API): each entry of a thread's log is an item of its logical partition.

URL: ``cosmos://account/database?container=threads``. Needs ``pip install 'everthread[cosmos]'``. That a name is free
once is Cosmos DB's own rule: creating an item whose id its partition has gives 409. No transactional batches.

`_store` is the engine and `_storage` what it keeps its objects in. Beside them: `_items` (an object as items),
`_account` (URL and credentials), `_requests` (repeating, counting, errors of ours) and `_diagnosis`.
"""

from everthread.engines.cosmos._storage import CosmosStorage
from everthread.engines.cosmos._store import CosmosStore

__all__ = ["CosmosStorage", "CosmosStore"]

"""``everthread tenants``: list the tenants of a store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import TYPE_CHECKING

from everthread.cli.json_output import ListedTenant
from everthread.cli.options import json_option, store_command
from everthread.cli.output import Output
from everthread.cli.runner import run

if TYPE_CHECKING:
    from everthread.cli.places import Place
    from everthread.contract import Store
    from everthread.model import Page, Thread

EXAMPLES = """\b
Examples:
  everthread tenants
  everthread tenants @prod --json | jq -r .tenant
  everthread usage @prod --tenant acme          how much a tenant stores

\b
The default tenant is the one without a name. Cosmos DB has no list of tenants.
In a pipe: tenant, last activity (ISO 8601), separated by a tab.
"""
COLUMNS = ("tenant", "last activity")
ROWS_AT_ONCE = 100
_NAMED_IN_A_NOTE = 5


@store_command(epilog=EXAMPLES, read_only=True)
@json_option
def tenants(*, place: Place, as_json: bool) -> None:
    """List the tenants that have threads, by name."""
    output = Output(as_json=as_json)
    run(lambda store: _list(store, output), place)


async def _list(store: Store, output: Output) -> None:
    from everthread._wording import ago

    rows: list[tuple[tuple[str, str], ListedTenant]] = []
    is_empty = True
    async for tenant in _tenants(store):
        newest: Page[Thread] = await store.list_threads(tenant, limit=1)
        for thread in newest:
            is_empty = False
            when = thread.updated_at
            shown = ago(when, datetime.now().astimezone()) if output.is_terminal else when.isoformat(timespec="seconds")
            name = tenant or ("(default)" if output.is_terminal else "")
            rows.append(((name, shown), ListedTenant(tenant=tenant, last_activity=when)))
        if len(rows) == ROWS_AT_ONCE:
            output.rows(COLUMNS, rows)
            rows.clear()
    output.rows(COLUMNS, rows)
    if is_empty and not output.as_json:
        output.note("No tenant has threads yet.")


async def _tenants(store: Store) -> AsyncIterator[str]:
    from everthread.capabilities import SupportsTenantList, required_capability

    able, last = required_capability(store, SupportsTenantList), ""
    yield last
    while some := await able.list_tenants(after=last):
        for last in some:
            yield last


async def note_other_tenants(store: Store, tenant: str, output: Output) -> None:
    """Name some tenants if this one has no threads."""
    from everthread.capabilities import SupportsTenantList, capability
    from everthread.errors import EverthreadError

    able = capability(store, SupportsTenantList)
    if able is None or len(await store.list_threads(tenant, limit=1)):
        return
    try:
        some = await able.list_tenants(limit=_NAMED_IN_A_NOTE + 1)
    except EverthreadError:
        return  # a user of the server that may read its own tenant only
    if some:
        names = ", ".join(map(repr, some[:_NAMED_IN_A_NOTE]))
        more = ", …" if len(some) > _NAMED_IN_A_NOTE else ""
        output.note(f"Other tenants have threads: {names}{more} (everthread tenants). Give --tenant NAME.")

"""Threads whose messages are there and that no listing shows: found by walking through the keys, and listed again.

So it is after an index was lost, and with lists that only other programs (the betas of Agent Framework, say) wrote.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from everthread.engines.redis._keys import Names, realm_of
from everthread.engines.redis._scripts import NOTE, Script
from everthread.errors import InvalidIdentifierError
from everthread.model import Drift, Thread, ThreadKey

UNLISTED = Script("unlisted")

_SPECIAL = re.compile(rb"([*?\[\]\\])")


async def relist(
    names: Names,
    tenant: str,
    run: Callable[[Script, bytes, list[bytes]], Awaitable[Any]],
    get_thread: Callable[[ThreadKey], Awaitable[Thread | None]],
    *,
    mend: bool,
) -> Drift:
    """How many threads of a tenant are not listed; lists them if asked to.

    Args:
        run: Runs a script on the server of a key.
        get_thread: What is known of a thread.
    """
    count = 0
    async for members in _unlisted(names, tenant, run):
        for member in members:
            thread = await _owned(member, tenant, get_thread)
            if thread is None:
                continue
            count += 1
            if mend:
                await run(NOTE, names.index(tenant), [b"%d" % thread.updated_ms, member])
    return Drift("threads that no listing shows", count, mended=mend)


async def _unlisted(
    names: Names, tenant: str, run: Callable[[Script, bytes, list[bytes]], Awaitable[Any]]
) -> AsyncIterator[Sequence[bytes]]:
    beginning = realm_of(names.prefix, tenant).encode() + b":"
    pattern, cursor = _SPECIAL.sub(rb"\\\1", beginning) + b"*", b"0"
    while True:
        cursor, *members = await run(UNLISTED, names.index(tenant), [cursor, beginning, pattern])
        yield members
        if cursor == b"0":
            return


async def _owned(
    member: bytes, tenant: str, get_thread: Callable[[ThreadKey], Awaitable[Thread | None]]
) -> Thread | None:
    try:
        return await get_thread(ThreadKey(member.decode(), tenant))
    except (UnicodeDecodeError, InvalidIdentifierError):
        # Another program's key, or a thread of another prefix that begins like this one.
        return None

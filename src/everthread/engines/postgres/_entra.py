"""Microsoft Entra ID: a token as the password, asked for anew for each new connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any

from everthread._extras import import_extra

SCOPE = "https://ossrdbms-aad.database.windows.net/.default"
"""What a token for Azure Database for PostgreSQL is asked for: https://learn.microsoft.com/azure/postgresql/security/security-entra-concepts"""


def entra_password(credential: Any = None) -> Callable[[], Awaitable[str]]:
    """A ``password`` for `PostgresStore` that is always a fresh token.

    Connections that are open when their token expires stay open; only new ones need another.

    Args:
        credential: One of ``azure.identity`` or ``azure.identity.aio``; its owner closes it. Without
            one, a ``DefaultAzureCredential``.

    Raises:
        ConfigurationError: There is no credential and ``azure-identity`` is not installed.
    """
    chosen = import_extra("azure.identity", "entra").DefaultAzureCredential() if credential is None else credential

    async def password() -> str:
        # A credential that is not async does I/O here, so it runs in a thread.
        token = await asyncio.to_thread(chosen.get_token, SCOPE)
        token = await token if isawaitable(token) else token
        return token.token

    return password

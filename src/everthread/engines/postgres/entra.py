"""Microsoft Entra ID: a fresh token is the password of each new connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any

from everthread._extras import import_extra

SCOPE = "https://ossrdbms-aad.database.windows.net/.default"
"""The scope of a token for Azure Database for PostgreSQL: https://learn.microsoft.com/azure/postgresql/security/security-entra-concepts"""


def entra_password(credential: Any = None) -> Callable[[], Awaitable[str]]:
    """Return a ``password`` for `PostgresStore` that gives a fresh token.

    Open connections outlive their token; only new ones need another.

    Args:
        credential: A credential of ``azure.identity`` or ``azure.identity.aio``, which its owner closes. The default is
            a ``DefaultAzureCredential``.

    Raises:
        ConfigurationError: There is no credential and ``azure-identity`` is not installed.
    """
    chosen = import_extra("azure.identity", "entra").DefaultAzureCredential() if credential is None else credential

    async def password() -> str:
        # A synchronous credential does I/O, so it runs in a thread.
        token = await asyncio.to_thread(chosen.get_token, SCOPE)
        token = await token if isawaitable(token) else token
        return token.token

    return password

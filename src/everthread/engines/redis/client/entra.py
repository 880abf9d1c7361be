"""Microsoft Entra ID: a user's object ID and a token instead of a password, renewed before the token expires."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable
from contextlib import suppress
from inspect import isawaitable
from typing import Any, Final, cast

import msgspec
from redis import exceptions
from redis.credentials import CredentialProvider, StreamingCredentialProvider

from everthread._extras import import_extra
from everthread.engines.redis.scripts import Command, request
from everthread.errors import ConfigurationError

SCOPE: Final = "https://redis.azure.com/.default"
"""https://learn.microsoft.com/azure/azure-cache-for-redis/cache-azure-active-directory-for-authentication"""

_MARGIN: Final = 240.0
"""Seconds before its expiry at which a token is renewed: azure-identity returns a new one 5 minutes before."""

_MIN_PAUSE: Final = 1.0

_TEMPORARY: Final = frozenset({"ServiceRequestError", "ServiceResponseError", "OSError"})
"""The connection errors of azure-core (https://learn.microsoft.com/python/api/azure-core/azure.core.exceptions)."""


class EntraCredentials(CredentialProvider):
    """A ``credential_provider`` that authenticates with tokens of Microsoft Entra ID.

    Args:
        credential: One of ``azure.identity`` or ``azure.identity.aio``; its owner closes it. Defaults to a
            ``DefaultAzureCredential``.

    Raises:
        ConfigurationError: ``azure-identity`` is needed and not installed.
    """

    def __init__(self, credential: Any = None) -> None:
        self._credential = credential or import_extra("azure.identity", "entra").DefaultAzureCredential()
        self._expires = 0.0

    async def get_credentials_async(self) -> tuple[str, str]:
        """Return the user's object ID, which is the user name, and a token.

        Raises:
            ConfigurationError: Entra ID issues no token, or one without an object ID.
            ConnectionError: Entra ID cannot be reached.
        """
        try:
            # In a thread, because a credential that is not async does I/O here.
            token = await asyncio.to_thread(self._credential.get_token, SCOPE)
            token = await token if isawaitable(token) else token
        except Exception as error:
            trouble = "OSError" if isinstance(error, OSError) else type(error).__name__
        else:
            self._expires = float(token.expires_on)
            return _object_id(token.token), cast(str, token.token)
        # Raised here, because the credential's error may name accounts.
        if trouble in _TEMPORARY:
            raise exceptions.ConnectionError(f"Entra ID cannot be reached: {trouble}")
        raise ConfigurationError(f"Entra ID gave no token for Redis ({trouble}).")

    async def renewed(self) -> tuple[str, str]:
        """Return new credentials shortly before the token expires that was requested last."""
        while True:
            left = self._expires - time.time()
            await asyncio.sleep(max(left - min(_MARGIN, left * 0.2), _MIN_PAUSE))
            if self._expires:
                # If it fails, the old token is still valid, so try again.
                with suppress(ConfigurationError, exceptions.ConnectionError):
                    return await self.get_credentials_async()


class _Claims(msgspec.Struct):
    oid: str


def _object_id(token: str) -> str:
    try:
        claims = token.split(".")[1]
        return msgspec.json.decode(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)), type=_Claims).oid
    except (IndexError, ValueError):
        raise ConfigurationError("Entra ID gave a token without an object ID (oid).") from None


async def keep_signed_in(provider: object, tell_all: Callable[[Command], None]) -> None:
    """Authenticate all connections again whenever there are new credentials, so that no server ends them.

    Args:
        provider: An `EntraCredentials`, or a streaming provider of redis-py. Others are used for new connections only.
        tell_all: Sends a command on every connection.
    """
    if isinstance(provider, StreamingCredentialProvider):
        loop = asyncio.get_running_loop()

        async def renewed(token: Any) -> None:
            # The provider may call this in another loop, and after this one was closed.
            if not loop.is_closed():
                loop.call_soon_threadsafe(tell_all, _auth(token.try_get("oid"), token.get_value()))

        provider.on_next(cast(Callable[[Any], None], renewed))
    while isinstance(provider, EntraCredentials):
        tell_all(_auth(*await provider.renewed()))


def _auth(user: str, password: str) -> Command:
    return Command(request([b"AUTH", user.encode(), password.encode()]))

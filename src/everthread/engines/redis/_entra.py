"""Microsoft Entra ID: a user's object id and a token instead of a password, renewed before the token runs out."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any, Final, cast

import msgspec
from redis import exceptions
from redis.credentials import CredentialProvider, StreamingCredentialProvider

from everthread._extras import import_extra
from everthread.engines.redis._scripts import Command
from everthread.engines.redis._wire import request
from everthread.errors import ConfigurationError

SCOPE: Final = "https://redis.azure.com/.default"
"""What a token is asked for: https://learn.microsoft.com/azure/azure-cache-for-redis/cache-azure-active-directory-for-authentication"""

_MARGIN: Final = 240.0
"""Seconds before its end at which a token is renewed: azure-identity gives another one from 5 minutes before."""

_LEAST_PAUSE: Final = 1.0

_PASSING: Final = frozenset({"ServiceRequestError", "ServiceResponseError", "OSError"})
"""The errors of azure-core that speak of the way there (https://learn.microsoft.com/python/api/azure-core/azure.core.exceptions)."""


class EntraCredentials(CredentialProvider):
    """A ``credential_provider`` that signs in with tokens of Microsoft Entra ID.

    Args:
        credential: One of ``azure.identity`` or ``azure.identity.aio``; its owner closes it. Without one, a
            ``DefaultAzureCredential``.

    Raises:
        ConfigurationError: There is no credential and ``azure-identity`` is not installed.
    """

    def __init__(self, credential: Any = None) -> None:
        self._credential = credential or import_extra("azure.identity", "entra").DefaultAzureCredential()
        self._expires = 0.0

    async def get_credentials_async(self) -> tuple[str, str]:
        """The user's object id, which is the user's name, and a token.

        Raises:
            ConfigurationError: No token is given, or it is none that names a user.
            ConnectionError: Entra ID cannot be reached for the time being.
        """
        token, trouble = await self._asked()
        # Raised here, since the credential's error may tell of accounts; what kind it is says enough.
        if trouble in _PASSING:
            raise exceptions.ConnectionError(f"Entra ID cannot be reached: {trouble}")
        if token is None:
            raise ConfigurationError(f"Entra ID gave no token for Redis ({trouble}).")
        self._expires = float(token.expires_on)
        return _object_id(token.token), cast(str, token.token)

    async def _asked(self) -> tuple[Any, str]:
        """A token, or ``None`` and the kind of error."""
        try:
            # A credential that is not async does I/O here, so it runs in a thread.
            token = await asyncio.to_thread(self._credential.get_token, SCOPE)
            return (await token if isawaitable(token) else token), ""
        except Exception as error:
            return None, "OSError" if isinstance(error, OSError) else type(error).__name__

    @property
    def has_token(self) -> bool:
        """Whether a token was asked for."""
        return self._expires > 0

    def renewal_in(self) -> float:
        """Seconds until the token should be renewed, or until there may be one."""
        left = self._expires - time.time()
        return max(left - min(_MARGIN, left * 0.2), _LEAST_PAUSE)


class _Claims(msgspec.Struct):
    oid: str


def _object_id(token: str) -> str:
    try:
        claims = token.split(".")[1]
        return msgspec.json.decode(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)), type=_Claims).oid
    except (IndexError, ValueError):
        raise ConfigurationError("Entra ID gave a token without an object id (oid).") from None


async def keep_signed_in(provider: object, tell_all: Callable[[Command], None]) -> None:
    """Signs all connections in again whenever there are new credentials, so that no server ends them.

    Args:
        provider: An `EntraCredentials`, or one of redis-py's that streams. Others are asked at each connection only.
        tell_all: Sends a command on every connection.
    """
    if isinstance(provider, StreamingCredentialProvider):
        _listen(provider, tell_all)
    while isinstance(provider, EntraCredentials):
        await asyncio.sleep(provider.renewal_in())
        if not provider.has_token:
            continue
        try:
            user, token = await provider.get_credentials_async()
        except (ConfigurationError, exceptions.ConnectionError):
            continue  # the token that there is lasts a while longer, so it is tried again
        tell_all(_sign_in(user, token))


def _listen(provider: StreamingCredentialProvider, tell_all: Callable[[Command], None]) -> None:
    loop = asyncio.get_running_loop()

    async def renewed(token: Any) -> None:
        # It may be called in a loop of the provider's own.
        loop.call_soon_threadsafe(tell_all, _sign_in(token.try_get("oid"), token.get_value()))

    listening: Callable[[Any], Awaitable[None]] = renewed
    provider.on_next(cast(Callable[[Any], None], listening))


def _sign_in(user: str, password: str) -> Command:
    return Command(request([b"AUTH", user.encode(), password.encode()]))

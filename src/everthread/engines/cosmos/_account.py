"""Which account a URL means, and what it is opened with."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from everthread._extras import import_extra
from everthread.errors import ConfigurationError

KEY = "AZURE_COSMOS_KEY"
CONNECTION_STRING = "AZURE_COSMOS_CONNECTIONSTRING"
"""The name that Azure's Service Connector gives it
(https://learn.microsoft.com/azure/service-connector/how-to-integrate-cosmos-sql)."""


class Account(NamedTuple):
    """Where an account is, and its key if the environment has it."""

    name: str
    endpoint: str
    key: str | None

    def __repr__(self) -> str:
        return f"Account({self.name!r}, {self.endpoint!r})"


def account_of(name: str, endpoint: str = "") -> Account:
    """The account of this name, with what the environment knows of it.

    Args:
        name: Empty: the one of the connection string.
        endpoint: Where it is, if not in the public cloud.

    Raises:
        ConfigurationError: There is no name and no connection string, or that cannot be read.
    """
    if "@" in endpoint:
        raise ConfigurationError("The endpoint must not hold credentials.")
    known = _connection()
    if not name and known is None:
        raise ConfigurationError(f"Name the account, cosmos://account/database, or set {CONNECTION_STRING}.")
    if known is not None and not name and not endpoint:
        return known
    name = name or (known.name if known is not None else "")
    endpoint = endpoint or f"https://{name}.documents.azure.com:443/"
    # A connection string of another account says nothing of this one.
    is_this = known is not None and _origin(known.endpoint) == _origin(endpoint)
    return Account(name, endpoint, known.key if known is not None and is_this else os.environ.get(KEY) or None)


def _connection() -> Account | None:
    text = os.environ.get(CONNECTION_STRING, "")
    if not text:
        return None
    fields = {name.strip().lower(): value for name, _, value in (part.partition("=") for part in text.split(";"))}
    endpoint, key = fields.get("accountendpoint", "").strip(), fields.get("accountkey", "").strip()
    if not endpoint or not key:
        raise ConfigurationError(f"{CONNECTION_STRING} must be AccountEndpoint=https://…;AccountKey=…;")
    return Account((urlsplit(endpoint).hostname or "").partition(".")[0], endpoint, key)


def _origin(endpoint: str) -> tuple[str, str | None, int]:
    parts = urlsplit(endpoint)
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def place_of(url: str) -> tuple[str, str]:
    """The account and the database that a URL names.

    Raises:
        ConfigurationError: It names no database, holds credentials, or an option that there is not.
    """
    parts = urlsplit(url)
    database = parts.path.strip("/")
    if "@" in parts.netloc or not database or "/" in database:
        raise ConfigurationError("Name account and database: cosmos://account/database, without credentials.")
    if unknown := [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]:
        raise ConfigurationError(f"The cosmos engine has no option {', '.join(unknown)}.")
    return parts.netloc, database


async def credential_of(given: Any, account: Account, stack: AsyncExitStack) -> Any:
    """The credential to open an account with: the caller's, the environment's key, or Entra's default one.

    Only the last is closed with the stack.
    """
    if given is not None:
        return given
    if account.key is not None:
        return account.key
    identity = import_extra("azure.identity.aio", "cosmos")
    return await stack.enter_async_context(identity.DefaultAzureCredential())

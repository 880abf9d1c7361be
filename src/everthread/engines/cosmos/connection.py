"""The account of a URL, and its credential."""

from __future__ import annotations

import contextlib
import os
from contextlib import AsyncExitStack
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from everthread._extras import import_extra
from everthread.errors import ConfigurationError
from everthread.urls import shown_names, split_url

KEY = "AZURE_COSMOS_KEY"
CONNECTION_STRING = "AZURE_COSMOS_CONNECTIONSTRING"
"""The name that Azure's Service Connector gives it
(https://learn.microsoft.com/azure/service-connector/how-to-integrate-cosmos-sql)."""


class Account(NamedTuple):
    """An account, and its key if the environment has it."""

    name: str
    endpoint: str
    key: str | None

    def __repr__(self) -> str:
        return f"Account({self.name!r}, {self.endpoint!r})"


def account_of(name: str, endpoint: str = "") -> Account:
    """Return the account of this name, with its key from the environment.

    Args:
        name: Empty for the account of the connection string.
        endpoint: Its endpoint outside the public cloud.

    Raises:
        ConfigurationError: There is no name and no valid connection string.
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
    # The connection string may be of another account.
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
    return Account(
        (split_url(endpoint, f"endpoint in {CONNECTION_STRING}").hostname or "").partition(".")[0], endpoint, key
    )


def _origin(endpoint: str) -> tuple[str, str | None, int]:
    with contextlib.suppress(ValueError):
        parts = urlsplit(endpoint)
        return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    # Not chained to the parser's error, which may quote a secret.
    raise ConfigurationError("The endpoint of the Cosmos DB account is not a URL such as https://host:443/.")


def account_and_database(url: str) -> tuple[str, str]:
    """Return the account and the database of a URL.

    Raises:
        ConfigurationError: It has no database, or has credentials or an unknown option.
    """
    parts = split_url(url)
    database = parts.path.strip("/")
    if "@" in parts.netloc or not database or "/" in database:
        raise ConfigurationError("Name account and database: cosmos://account/database, without credentials.")
    if parts.query or parts.fragment:
        unknown = shown_names(parts.query) or "that this URL holds"
        raise ConfigurationError(f"The cosmos engine has no option {unknown}.")
    return parts.netloc, database


async def credential_of(given: Any, account: Account, stack: AsyncExitStack) -> Any:
    """Return the caller's credential, the environment's key, or Entra's default credential.

    The stack closes only the last.
    """
    if given is not None:
        return given
    if account.key is not None:
        return account.key
    identity = import_extra("azure.identity.aio", "cosmos")
    return await stack.enter_async_context(identity.DefaultAzureCredential())

"""Requests to one container: bounded retries, request charges, translated errors."""

from __future__ import annotations

import asyncio
import binascii
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar, cast

from everthread._extras import import_extra
from everthread.engines.cosmos.items import ITEM_BYTES, request_bytes
from everthread.errors import ConfigurationError, LimitExceededError, StoreUnavailableError
from everthread.request_charge import charge

PARTITION_KEY = "/pk"
PARTITION_BYTES = 20 * 1024**3
"""The limit of a logical partition (https://learn.microsoft.com/azure/cosmos-db/concepts-limits)."""

_TRANSIENT = {408, 410, 429, 449, 500, 502, 503, 504}
_AT_ONCE = 32
"""Concurrent requests. More would wait in the driver, and run into its timeout there."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0
_WRITE_FORBIDDEN, _PARTITION_FULL = 3, 1014  # sub-statuses of 403
_SESSION_NOT_AVAILABLE = 1002  # of 404: this replica is behind what was read or written here before

_log = logging.getLogger("everthread.cosmos")

R = TypeVar("R")


class AbsentError(Exception):
    """The item does not exist."""


class TakenError(Exception):
    """An item of this ID exists, or no longer meets the condition."""


class Requests:
    """Sends requests.

    Args:
        location: The location in error messages.
        timeout: The seconds for one attempt.
        retry_seconds: The time for further attempts.

    Attributes:
        units: The request units used so far, including refused requests.
    """

    def __init__(self, location: str, *, timeout: float, retry_seconds: float) -> None:
        self._errors = import_extra("azure.cosmos.exceptions", "cosmos")
        self._transport = import_extra("azure.core.exceptions", "cosmos")
        self._location = location
        self._timeout = timeout
        self._retry_seconds = retry_seconds
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self.units = 0.0

    async def call(self, method: Callable[..., Awaitable[R]], **arguments: Any) -> R:
        """Call one of the driver's methods.

        Raises:
            AbsentError: The item does not exist.
            TakenError: An item of this ID exists, or no longer meets the condition.
            LimitExceededError: The item is too large, or its partition is full.
            StoreUnavailableError: There was no good answer in time; a write may have landed.
        """
        body = arguments.get("body")
        return await self.tried(lambda: method(**arguments, response_hook=self.count), body)

    async def tried(self, request: Callable[[], Awaitable[R]], body: object = None) -> R:
        """Send a request, and send it again if that may help; raises as `call` does.

        Every request is safe to repeat: the log and the documents recognize their own writes.
        """
        left = self._retry_seconds
        for attempt in itertools.count():
            async with self._slots:
                # The time before a slot is free does not count.
                began = time.monotonic()
                try:
                    async with asyncio.timeout(self._timeout):
                        return await request()
                except Exception as error:
                    self._count_refused(error)
                    typed = self.typed(error, body)
                    pause = _asked_pause(error) or min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE)
                    left -= time.monotonic() - began + pause
                    if not isinstance(typed, StoreUnavailableError) or left < 0:
                        raise typed from None
            await asyncio.sleep(pause)
        raise AssertionError

    def count(self, headers: Mapping[str, str], _: object = None) -> None:
        """Add the request charge of an answer."""
        units = float(headers.get("x-ms-request-charge", 0))
        self.units += units
        charge(units)
        _log.debug("A request used %.2f request units.", units)

    def _count_refused(self, error: Exception) -> None:
        headers = getattr(error, "headers", None)
        if isinstance(error, self._errors.CosmosHttpResponseError) and headers:
            self.count(cast("Mapping[str, str]", headers))

    def typed(self, error: Exception, body: object = None) -> Exception:
        """Translate an error of the driver. Its text quotes items and signatures; ``body`` is the item sent."""
        if isinstance(error, self._errors.CosmosHttpResponseError):
            return self._typed_answer(_number(error, "status_code"), _number(error, "sub_status"), body)
        if isinstance(error, self._transport.ClientAuthenticationError):
            return ConfigurationError(
                f"{self._location}: Entra accepted none of the credentials of this "
                "machine. Give the account key in AZURE_COSMOS_KEY, or sign in: az login."
            )
        if isinstance(error, binascii.Error):
            return ConfigurationError(f"{self._location}: the account key is not Base64. Check that it is complete.")
        if isinstance(error, (self._transport.AzureError, OSError, asyncio.TimeoutError)):
            return StoreUnavailableError(f"{self._location} cannot be reached: check the network and the address.")
        return error

    def _typed_answer(self, status: int, detail: int, body: object) -> Exception:
        match status, detail:
            case 404, code if code != _SESSION_NOT_AVAILABLE:
                return AbsentError()
            case ((409 | 412), _):
                return TakenError()
            case 413, _:
                size = request_bytes(body)
                return LimitExceededError(f"{self._location} refuses an item of {size:,} bytes.", size, ITEM_BYTES)
            case 403, code if code == _PARTITION_FULL:
                return LimitExceededError(
                    f"A partition of {self._location} is full: a thread, or a tenant's list of threads, holds "
                    f"{PARTITION_BYTES:,} bytes.",
                    PARTITION_BYTES,
                    PARTITION_BYTES,
                )
            case 429, _:
                return StoreUnavailableError(
                    f"{self._location} throttles: its request units are used up. Try again later, or give it more."
                )
            case _ if not status or status in {404, *_TRANSIENT} or (status, detail) == (403, _WRITE_FORBIDDEN):
                return StoreUnavailableError(f"{self._location} answers with status {status}: try again.")
            case ((401 | 403), _):
                return ConfigurationError(
                    f"{self._location} refuses these credentials: check them, their rights and the account's firewall."
                )
            case _:
                return ConfigurationError(f"{self._location} refuses a request with status {status}.")

    def missing(self) -> ConfigurationError:
        """Return the error for a missing container."""
        return ConfigurationError(
            f"{self._location} does not exist: create the container with the partition key {PARTITION_KEY}, "
            "or open it with create=true."
        )


def _number(error: Exception, name: str) -> int:
    return int(cast("int | None", getattr(error, name, None)) or 0)


def _asked_pause(error: Exception) -> float:
    """Return the seconds that the service asks to wait."""
    headers = cast("Mapping[str, str]", getattr(error, "headers", None) or {})
    return float(headers.get("x-ms-retry-after-ms", 0)) / 1000

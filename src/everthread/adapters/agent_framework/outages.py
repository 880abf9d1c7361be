"""Bound the time that a run waits for its store, and let it answer without one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Literal

from everthread.errors import ConfigurationError, StoreUnavailableError
from everthread.model import ThreadKey

OnOutage = Literal["raise", "answer"]
TIMEOUT = 30.0
"""Seconds that a run waits at most for its history, and again for its turn to be stored."""

log = logging.getLogger("everthread.agent_framework")


class Outages:
    """What a run does if its store does not answer.

    Args:
        policy: ``raise`` the error, or log it and ``answer`` without the history.
        timeout: Seconds to wait; ``None``: as long as the store does.
    """

    def __init__(self, policy: OnOutage, timeout: float | None) -> None:
        if policy not in {"raise", "answer"}:
            raise ConfigurationError("on_outage is one of raise, answer.")
        if timeout is not None and (isinstance(timeout, bool) or not 0 < timeout < float("inf")):
            raise ConfigurationError("timeout is a number of seconds above 0, or None.")
        self._answers = policy == "answer"
        self._timeout = timeout

    @asynccontextmanager
    async def bounded(self, what: str, key: ThreadKey) -> AsyncGenerator[None]:
        """Run the body within the timeout; end it without an error if the store does not answer, by the policy.

        Raises:
            StoreUnavailableError: The store did not answer, or not in time. A save may have landed.
        """
        limit = asyncio.timeout(self._timeout)
        try:
            try:
                async with limit:
                    yield
            except TimeoutError:
                if not limit.expired():
                    raise
                raise StoreUnavailableError(f"{what} {key} took more than {self._timeout:g} seconds.") from None
        except StoreUnavailableError as error:
            if not self._answers:
                raise
            log.error("%s %s failed (%s): the run continues without it.", what, key, type(error).__name__)  # noqa: TRY400

"""The rights of a request, which the application decides."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from everthread.model import check_identifier

if TYPE_CHECKING:
    from starlette.requests import Request


@dataclass(frozen=True, slots=True)
class Access:
    """The rights of a request.

    Attributes:
        tenant: The only tenant that the request reaches. ``""`` is the default tenant.
        may_write: The request may change and delete threads.

    Raises:
        InvalidIdentifierError: The tenant is not a valid name.
    """

    tenant: str
    may_write: bool = False

    def __post_init__(self) -> None:
        check_identifier(self.tenant, "tenant", may_be_empty=True)


Authorize = Callable[["Request"], Access | Awaitable[Access]]
"""Return the rights of a request, or raise ``starlette.exceptions.HTTPException`` with 401 or 403."""


async def access_of(request: Request, authorize: Authorize) -> Access:
    """Return the rights of a request.

    Raises:
        TypeError: ``authorize`` returned something else, a defect of the application.
        HTTPException: ``authorize`` refused the request.
    """
    granted = authorize(request)
    access: object = await granted if inspect.isawaitable(granted) else granted
    if not isinstance(access, Access):
        raise TypeError(f"authorize must return an Access, not {type(access).__name__}.")
    return access

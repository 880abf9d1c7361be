"""The tree of errors: what callers may catch, and what the errors carry."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from everthread import errors
from everthread.errors import (
    ConfigurationError,
    ConflictError,
    EverthreadError,
    InvalidIdentifierError,
    InvalidMessageError,
    LimitExceededError,
    OutcomeUnknownError,
    StoreUnavailableError,
    ThreadNotFoundError,
)


def test_all_errors_have_one_base() -> None:
    found = [thing for _, thing in inspect.getmembers(errors, inspect.isclass)]
    assert EverthreadError in found
    assert all(issubclass(error, EverthreadError) for error in found)


@pytest.mark.parametrize(
    ("error", "base"),
    [
        (ConfigurationError, ValueError),
        (InvalidIdentifierError, ValueError),
        (InvalidMessageError, ValueError),
        (ThreadNotFoundError, LookupError),
        (OutcomeUnknownError, StoreUnavailableError),
    ],
)
def test_errors_are_also_what_python_calls_them(error: type[Exception], base: type[Exception]) -> None:
    assert issubclass(error, base)


@pytest.mark.parametrize("remake", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_errors_that_carry_something_can_be_copied(remake) -> None:
    conflict = remake(ConflictError("The next position is 3.", 3))
    limit = remake(LimitExceededError("Too large.", 11, 10))
    assert (str(conflict), conflict.actual) == ("The next position is 3.", 3)
    assert (str(limit), limit.size, limit.limit) == ("Too large.", 11, 10)

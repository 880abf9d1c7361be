"""The example client for the betas, in processes of its own on a real Redis."""

from __future__ import annotations

import pytest

from tests import lab11
from tests.beta import betas

pytestmark = pytest.mark.skipif(not betas.HAS_CLASSES, reason="the example is for the betas with ChatAgent")


def test_a_conversation_continues_in_another_process(redis_url: str) -> None:
    lab11.holds_a_conversation_across_processes("beta", redis_url, "beta")


def test_a_missing_redis_is_reported() -> None:
    lab11.refuses_what_it_cannot_reach("beta")

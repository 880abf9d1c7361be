"""An engine that breaks one guarantee fails the tests of that guarantee, and few others."""

from __future__ import annotations

import asyncio
import sys

import msgspec
import pytest

REFERENCE = "MatchesReference"
"""The comparison with the memory engine. Its calls are random, so it finds most differences but not in every run."""

BROKEN = {
    # The others check a repeat in a special case: a high position, an index.
    "DoublesARetry": {"RetrySafe", "ImportsPositions", "SkipsPositions", "Searching"},
    "LosesAnAppend": {
        *("Ordered", "Atomic", "RetrySafe", "ConflictAware", "ConflictAwareDropping", "Bounded", "Cancelling"),
        *("EveryLoop", "HonestOwnership", "OwnRetention", "Rewrites", "SkipsPositions"),
    },
    "TrimsBlindly": {
        *("ValidForAModel", "ValidForAModelProperties", "OwnRetention", "Rewrites", "ImportsPositions"),
        "SkipsPositions",
    },
    "ListsOldestFirst": {"Listing", "Truncating", "Imports"},
    "IgnoresExpectedSeq": {"ConflictAware", "Atomic", "Discreet", "Searching", "SkipsPositions"},
}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("mutant", BROKEN)
async def test_a_mutant_fails_the_guarantee_that_it_breaks(mutant: str) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "tests.testing.mutants", mutant]
    running = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await running.communicate()
    report = msgspec.json.decode(output)
    failed = {each["name"] for suite in report["suites"] for each in suite["guarantees"] if each["failed"]}
    assert report["level"] == "none"
    assert failed - {REFERENCE} <= BROKEN[mutant]
    assert failed - {REFERENCE}

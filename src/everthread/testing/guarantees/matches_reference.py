"""A store returns the same as the memory engine for any sequence of calls."""

from __future__ import annotations

from hypothesis.stateful import run_state_machine_as_test

from everthread.testing.guarantees._base import GuaranteeTests, example_settings
from everthread.testing.harness import Harness
from everthread.testing.machine import machine_for


class MatchesReference(GuaranteeTests):
    """Random sequences of calls on two stores of one place."""

    def test_it_matches_the_memory_engine(self, harness: Harness) -> None:
        run_state_machine_as_test(machine_for(harness), settings=example_settings(2, stateful_step_count=20))

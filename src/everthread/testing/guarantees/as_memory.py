"""Whatever is done to it, a store answers as the memory engine does."""

from __future__ import annotations

from hypothesis.stateful import run_state_machine_as_test

from everthread.testing.guarantees._base import GuaranteeTests, example_settings
from everthread.testing.harness import Harness
from everthread.testing.machine import machine_for


class AsMemory(GuaranteeTests):
    """Random sequences of calls on two stores of one place."""

    def test_it_answers_as_the_memory_engine_does(self, harness: Harness) -> None:
        run_state_machine_as_test(machine_for(harness), settings=example_settings(2, stateful_step_count=20))

"""The stores that pruning and summaries are tested on."""

from __future__ import annotations

from tests.transfer.conftest import places, store

__all__ = ["places", "store"]

"""Objects that hold connections, which no copy can share and no other process can continue."""

from __future__ import annotations

from typing import Never, SupportsIndex

from everthread.errors import ConfigurationError


class Uncopied:
    """Refuses `copy`, `copy.deepcopy` and `pickle` immediately, instead of a copy that fails at its first use."""

    def __reduce_ex__(self, protocol: SupportsIndex) -> Never:
        raise ConfigurationError(
            f"{type(self).__name__} holds connections, so it cannot be copied or pickled. Pass the URL of the store "
            "and open it where you need it; to continue a conversation elsewhere, serialize its thread or session."
        )

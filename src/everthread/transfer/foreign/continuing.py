"""The providers of Agent Framework that continue imported sessions."""

from __future__ import annotations

from everthread._escaping import unescape
from everthread.model import ThreadKey
from everthread.transfer.model import PROBLEMS, Outcome, Watcher

_MOST = 20


class Providers(Watcher):
    """Collects which providers find the imported sessions, and passes everything on.

    Args:
        inner: The watcher that is informed too.
    """

    def __init__(self, inner: Watcher) -> None:
        self._inner = inner
        self._found: set[tuple[str, str | None]] = set()

    def begin(self, total: int | None) -> None:
        self._inner.begin(total)

    def advance(self, count: int) -> None:
        self._inner.advance(count)

    def finished(self, outcome: Outcome) -> None:
        if outcome.status not in PROBLEMS:
            self._found.add((outcome.key.tenant, source_of(outcome.key)))
        self._inner.finished(outcome)

    def calls(self, location: str) -> list[str]:
        """Return the call that makes each provider, in Python, and a note if there are more than 20."""
        shown: list[str] = []
        for tenant, source_id in sorted(self._found, key=str)[:_MOST]:
            more = f", source_id={source_id!r}" if source_id is not None else ""
            more += f", tenant={tenant!r}" if tenant else ""
            shown.append(f"EverthreadHistoryProvider({location!r}{more})")
        if len(self._found) > _MOST:
            shown.append(f"… and {len(self._found) - _MOST:,} more tenants or sources")
        return shown


def source_of(key: ThreadKey) -> str | None:
    """Return the ``source_id`` of the provider that reads a thread; ``None`` for the default one."""
    if not key.thread_id.startswith("~") or key.thread_id.startswith("~~"):
        return None
    return unescape(key.thread_id[1:].partition("~")[0])

"""The providers that continue imported sessions."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given

from everthread import InvalidIdentifierError, ThreadKey
from everthread.adapters.agent_framework.sessions import DEFAULT_SOURCE, SessionKeys
from everthread.testing.strategies import identifiers
from everthread.transfer.foreign.continuing import Providers, source_of
from everthread.transfer.model import Outcome, Watcher


@given(identifiers(), identifiers())
def test_the_source_of_any_session_is_found(source: str, session: str) -> None:
    for each in (source, DEFAULT_SOURCE):
        with suppress(InvalidIdentifierError):
            key = SessionKeys(each).key(session)
            assert source_of(key) == (None if each == DEFAULT_SOURCE else each)


def test_many_tenants_are_summed_up() -> None:
    providers = Providers(Watcher())
    for number in range(25):
        providers.finished(Outcome(ThreadKey("a", f"t{number:02}"), "new"))
        providers.finished(Outcome(ThreadKey("b", f"t{number:02}"), "failed"))
    calls = providers.calls("sqlite:///x.db")
    assert (len(calls), calls[0], calls[-1]) == (
        21,
        "EverthreadHistoryProvider('sqlite:///x.db', tenant='t00')",
        "… and 5 more tenants or sources",
    )

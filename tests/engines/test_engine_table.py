"""The documentation's table of engines says what the code says."""

from __future__ import annotations

import pytest

from everthread import open_store
from everthread.capabilities import SupportsSearch
from everthread.opening import schemes
from tools.docs import engine_table
from tools.docs.profiles import ABILITIES, CALLS, GUARANTEES, PROFILES, Profile


def test_the_page_is_what_the_code_says() -> None:
    written = engine_table.PAGE.read_text(encoding="utf-8")
    assert written == engine_table.page(), "run: python -m tools.docs.engine_table"


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.scheme)
def test_every_cell_is_filled(profile: Profile) -> None:
    assert set(profile.how) == set(GUARANTEES)
    assert set(profile.costs) == set(CALLS)
    assert set(profile.ways) <= set(ABILITIES)
    assert all(profile.how.values())


def test_abilities_are_asked_of_the_classes() -> None:
    can = {profile.scheme: engine_table.can(profile, "SupportsSearch") for profile in PROFILES}
    assert can["sqlite"]
    assert not can["memory"]
    assert isinstance(open_store("sqlite:///x.db"), SupportsSearch)
    assert not isinstance(open_store("memory:"), SupportsSearch)


def test_each_engine_that_is_installed_is_in_the_table() -> None:
    of_these = {"postgres": "postgresql", "rediss": "redis", "unix": "redis", "az": "s3", "gs": "s3", "file": "s3"}
    families = {of_these.get(scheme, of_these.get(scheme.partition("+")[0], scheme)) for scheme in schemes()}
    assert {scheme.partition("+")[0] for scheme in families} == {profile.scheme for profile in PROFILES}

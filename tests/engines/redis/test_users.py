"""Redis users for one tenant each, as the page on tenants makes them: the server itself keeps them apart."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import redis as redis_client

from everthread import EverthreadError, Store, ThreadKey, open_store
from tests.operations.talks import KEY, kept, said, talk, turn
from tests.operations.test_tenants import CALLS
from tests.servers import Server

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "tenants.md"


def recipe(tenant: str, prefix: str) -> list[str]:
    """The page's command, for another tenant and prefix."""
    found = re.search(r"^ {4}ACL SETUSER(.|\n)*?\n\n", PAGE.read_text(), re.MULTILINE)
    assert found is not None
    return found[0].replace("chat_messages", prefix).replace("acme", tenant).split()


@pytest.fixture
def users_url(any_redis_server: Server, fresh_prefix: str) -> str:
    """A URL in which only the user's name is missing; the users ``acme`` and ``other`` have been made."""
    with redis_client.Redis(port=any_redis_server.port) as admin:
        for tenant in ("acme", "other"):
            admin.execute_command(*recipe(tenant, fresh_prefix))
    return f"redis://%s:PASSWORD@127.0.0.1:{any_redis_server.port}/0?prefix={fresh_prefix}"


async def use_all(store: Store) -> None:
    """All that a store does."""
    await talk(store)
    await store.append(KEY, turn(4), append_id="a", expected_seq=12)
    assert (await store.append(KEY, turn(4), append_id="a")).replayed
    await store.put_document(KEY, "d", b"1")
    for name in CALLS:
        await CALLS[name](store, KEY)


async def test_a_tenants_user_can_do_everything_for_its_tenant(users_url: str) -> None:
    async with open_store(users_url % "acme") as store:
        await use_all(store.tenant("acme"))


async def test_a_tenants_user_can_do_nothing_for_another(users_url: str) -> None:
    others = [ThreadKey("trip", "other"), ThreadKey("trip"), ThreadKey("trip", "acme2"), ThreadKey("trip", "acm")]
    async with open_store(users_url % "other") as other, open_store(users_url % "acme") as store:
        await talk(other.tenant("other"))
        before = await kept(other, others[0])
        for key in others:
            for name, call in CALLS.items():
                if name == "check_append":
                    continue  # which asks no server
                with pytest.raises(EverthreadError):
                    await call(store, key)
        assert await kept(other, others[0]) == before


async def test_the_server_refuses_a_thread_id_with_braces(users_url: str) -> None:
    async with open_store(users_url % "acme") as store:
        with pytest.raises(EverthreadError):
            await store.tenant("acme").append(ThreadKey("a{b}c"), [said("user", "x")])

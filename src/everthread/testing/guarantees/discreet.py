"""Credentials and message contents appear in no error, log or ``repr``."""

from __future__ import annotations

import contextlib
import logging
import traceback

import pytest

from everthread.contract import Store
from everthread.errors import EverthreadError
from everthread.model import NewMessage
from everthread.testing.guarantees._base import KEY, GuaranteeTests, said
from everthread.testing.harness import SecretHarness

PRIVATE = "correct horse battery staple"


def shown_of(error: BaseException) -> str:
    """Return the text of an error in a log, its causes included."""
    return "".join(traceback.format_exception(error)) + repr(error) + str(error)


class Discreet(GuaranteeTests):
    """Content stays out of ``repr``, ``location``, errors and logs."""

    async def test_no_repr_shows_content(self, store: Store) -> None:
        message = said(PRIVATE)
        await store.append(KEY, [message], default_title=PRIVATE)
        thread = await store.update_thread(KEY, metadata={"x": PRIVATE})
        document = await store.put_document(KEY, "d", message.payload)
        page = await store.read(KEY)
        listing = await store.list_threads(KEY.tenant)
        for thing in (message, thread, document, page, page[0], listing, store, store.location):
            assert PRIVATE not in repr(thing)
            assert PRIVATE not in str(thing)

    async def test_no_error_shows_content(self, store: Store) -> None:
        await store.append(KEY, [said(PRIVATE)], default_title=PRIVATE)
        errors: list[EverthreadError] = []
        for call in (
            lambda: store.append(KEY, [said(PRIVATE)], expected_seq=9),
            lambda: store.append(KEY, [said(PRIVATE * 1_000_000)]),
            lambda: store.append(KEY, [said(PRIVATE)], default_title=PRIVATE * 100),
            lambda: store.update_thread(KEY, metadata={"x": PRIVATE}, expected_revision=9),
            lambda: store.update_thread(KEY, metadata={"x": PRIVATE * 100_000}),
            lambda: store.update_thread(KEY, metadata={PRIVATE: float("nan")}),
            lambda: store.put_document(KEY, "d", NewMessage(said(PRIVATE).payload).payload, expected_revision=9),
            lambda: store.put_document(KEY, "d", PRIVATE.encode()),
            lambda: store.put_document(KEY, "d", f'"{PRIVATE}\xff'.encode("latin-1")),
        ):
            with pytest.raises(EverthreadError) as caught:
                await call()
            errors.append(caught.value)
        for error in errors:
            # Source lines of this test hold the name of the constant, not its value.
            assert PRIVATE not in shown_of(error)

    async def test_nothing_is_logged_of_content(self, store: Store, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.DEBUG):
            await store.append(KEY, [said(PRIVATE)], default_title=PRIVATE)
            await store.put_document(KEY, "d", said(PRIVATE).payload)
            await store.read(KEY)
            with contextlib.suppress(EverthreadError):
                await store.append(KEY, [said(PRIVATE)], expected_seq=9)
        assert PRIVATE not in caplog.text


class DiscreetAboutSecrets(GuaranteeTests):
    """For engines with a secret. A subclass defines ``harness``, a `SecretHarness`."""

    async def test_no_repr_and_no_location_shows_the_secret(self, harness: SecretHarness) -> None:
        async with harness.open() as store:
            await store.append(KEY, [said("a")])
            for shown in (repr(store), str(store), store.location):
                assert harness.secret not in shown

    async def test_no_error_and_no_log_shows_the_secret(
        self, harness: SecretHarness, caplog: pytest.LogCaptureFixture
    ) -> None:
        store = harness.open_unreachable()
        with caplog.at_level(logging.DEBUG):
            for call in (store.open, lambda: store.append(KEY, [said("a")]), lambda: store.read(KEY)):
                with pytest.raises(EverthreadError) as caught:
                    await call()
                assert harness.secret not in shown_of(caught.value)
            await store.aclose()
        assert harness.secret not in caplog.text
        assert harness.secret not in repr(store) + store.location

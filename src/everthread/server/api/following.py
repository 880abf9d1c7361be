"""Server-Sent Events: the new messages of a thread, soon after they are stored."""

from __future__ import annotations

import logging
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated

import anyio
import msgspec
from msgspec import Meta
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from everthread.contract import Store
from everthread.errors import ConfigurationError, EverthreadError, StoreUnavailableError
from everthread.json_form import RawMessage, ShownMessage, UnreadableRecord, encoded, unreadable_record
from everthread.listing import existing_thread
from everthread.model import Message, MessagePage, Thread, ThreadKey
from everthread.readable import Unreadable, read_around
from everthread.server.api.calls import Call, invalid
from everthread.server.api.reading import Form, Seq, message_object
from everthread.server.problems import ProblemError, problem_of

log = logging.getLogger("everthread.server")

MESSAGES_A_PAGE = 25
SEND_SECONDS = 30
"""The time after which a client that takes no data is disconnected."""
GRACE_SECONDS = 2
"""The time that a follower has to end when the server stops."""
LONGEST_PAUSE = 10.0
"""The most seconds between two reads of a store that does not answer."""
RETRY_MS = 1_000
"""The time after which a client connects again."""
_EVENT_ID = re.compile(r"([0-9]{1,16})\.([0-9]{1,16})")


class FollowThread(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Follow a thread: Server-Sent Events with its messages.

    Events: `open`, then one without a name for each message; `unreadable` for a record that cannot be read; `restart`
    if the thread was deleted and created again; `deleted`; `problem`. After an interruption, a client sends the ID of
    the last event as Last-Event-ID and misses nothing.
    """

    start: Annotated[Seq | None, Meta(description="First position; without it, the messages stored from now on.")] = (
        None
    )
    form: Form = "view"


class Followers(msgspec.Struct):
    """Counts the followers, and bounds their number and rate.

    Attributes:
        most: The most followers.
        most_per_tenant: The most of one tenant.
        poll_seconds: The time between two reads without new messages.
        stay_seconds: The time after which a follower must connect again, and is authorized again.
        counts: The followers of each tenant.
    """

    most: int
    most_per_tenant: int
    poll_seconds: float
    stay_seconds: float
    counts: Counter[str] = msgspec.field(default_factory=Counter[str])

    def __post_init__(self) -> None:
        if min(self.most, self.most_per_tenant) < 0 or self.poll_seconds < 0.02 or self.stay_seconds <= 0:
            raise ConfigurationError(
                "Followers need limits of at least 0, polls at least 0.02 seconds apart, and a time above 0."
            )

    def check_room(self, tenant: str) -> None:
        """Raise the problem 429 if there are too many."""
        if self.counts.total() >= self.most or self.counts[tenant] >= self.most_per_tenant:
            raise ProblemError(
                HTTPStatus.TOO_MANY_REQUESTS,
                "TooManyFollowers",
                "Too many clients follow threads. Close one, or try again later.",
                {"Retry-After": "10"},
            )


class Events(EventSourceResponse):
    """The response of a follower. Counts it while it lasts."""

    def __init__(
        self, events: AsyncIterator[ServerSentEvent], ending: anyio.Event, followers: Followers, tenant: str
    ) -> None:
        super().__init__(  # pyright: ignore[reportUnknownMemberType]
            events, send_timeout=SEND_SECONDS, shutdown_event=ending, shutdown_grace_period=GRACE_SECONDS
        )
        self._followers = followers
        self._tenant = tenant

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._followers.counts[self._tenant] += 1
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._followers.counts[self._tenant] -= 1
            # Without zeros: there may be many tenants.
            self._followers.counts += Counter()


def keep_messages_out_of_logs() -> None:
    """Make sse-starlette log no events, which have messages."""
    logging.getLogger("sse_starlette.sse").addFilter(_is_without_event)


def _is_without_event(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("chunk")


class Place(msgspec.Struct):
    """The place of a follower, and the ID of its events: the thread's creation, and the next position to read."""

    created_ms: int
    start: int

    def __str__(self) -> str:
        return f"{self.created_ms}.{self.start}"


async def follow_thread(call: Call, asked: FollowThread, followers: Followers) -> Response:
    """Return the events of a thread."""
    thread = await existing_thread(call.store, call.key)
    if call.request.method == "HEAD":
        # Older releases of sse-starlette begin the stream.
        return Response(media_type="text/event-stream")
    place, is_another = _place(thread, asked, call.request.headers.get("last-event-id"))
    ending = anyio.Event()
    events = _events(
        call.store, thread.key, place, form=asked.form, followers=followers, ending=ending, is_another=is_another
    )
    # No await from here to the count.
    followers.check_room(call.access.tenant)
    return Events(events, ending, followers, call.access.tenant)


def _place(thread: Thread, asked: FollowThread, last_id: str | None) -> tuple[Place, bool]:
    """Return the place at which to begin, and whether the thread is not the one that was followed before."""
    start, is_another = thread.next_seq if asked.start is None else asked.start, False
    if last_id:
        found = _EVENT_ID.fullmatch(last_id)
        if found is None:
            raise invalid("Last-Event-ID is not the ID of an event of this thread.")
        is_another = int(found[1]) != thread.created_ms
        start = 0 if is_another else int(found[2])
    return Place(thread.created_ms, min(start, thread.next_seq)), is_another


async def _events(
    store: Store,
    key: ThreadKey,
    place: Place,
    *,
    form: str,
    followers: Followers,
    ending: anyio.Event,
    is_another: bool,
) -> AsyncIterator[ServerSentEvent]:
    ends_at = time.monotonic() + followers.stay_seconds
    failures = 0
    yield _event("restart" if is_another else "open", place, b"{}", retry=RETRY_MS)
    while time.monotonic() < ends_at and not ending.is_set():
        try:
            page, bad = await _next_page(store, key, place)
            thread = await store.get_thread(key) if page.next_seq < place.start else None
        except EverthreadError as error:
            if not failures:
                log.warning("Following %s failed: %s", key, error)
                yield _event("problem", place, encoded(problem_of(error)))
            if not isinstance(error, StoreUnavailableError):
                return
            # A browser gives up if it connects again and gets 503, so the stream outlasts the outage.
            failures = min(failures + 1, 10)
            await _pause(min(followers.poll_seconds * 2**failures, LONGEST_PAUSE), ending)
            continue
        failures = 0
        for name, seq, value in _in_order(key, page.messages, bad, form):
            place.start = seq + 1
            yield _event(name, place, encoded(value))
        if page.next_seq >= place.start:
            if len(page) < MESSAGES_A_PAGE:
                await _pause(followers.poll_seconds, ending)
        elif thread is None:
            yield _event("deleted", place, b"{}")
            return
        else:
            # It was deleted, and created again.
            place = Place(thread.created_ms, 0)
            yield _event("restart", place, b"{}")


async def _pause(seconds: float, ending: anyio.Event) -> None:
    with anyio.move_on_after(seconds):
        await ending.wait()


async def _next_page(store: Store, key: ThreadKey, place: Place) -> tuple[MessagePage, list[Unreadable]]:
    bad: list[Unreadable] = []
    page = await read_around(store, key, start=place.start, limit=MESSAGES_A_PAGE, on_unreadable=bad.append)
    return page, bad


def _in_order(
    key: ThreadKey, messages: tuple[Message, ...], bad: list[Unreadable], form: str
) -> list[tuple[str | None, int, ShownMessage | RawMessage | UnreadableRecord]]:
    events: list[tuple[str | None, int, ShownMessage | RawMessage | UnreadableRecord]] = [
        (None, message.seq, message_object(message, key, form)) for message in messages
    ]
    events += [("unreadable", each.seq, unreadable_record(each)) for each in bad if each.seq is not None]
    return sorted(events, key=lambda event: event[1])


def _event(name: str | None, place: Place, data: bytes, *, retry: int | None = None) -> ServerSentEvent:
    return ServerSentEvent(data.decode(), event=name, id=str(place), retry=retry)

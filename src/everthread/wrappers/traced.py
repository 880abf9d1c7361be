"""`Traced`: spans, metrics and log lines of every call, without its content.

Names follow OpenTelemetry's conventions for database clients,
https://opentelemetry.io/docs/specs/semconv/database/ ; other names begin with ``everthread.``.
This needs OpenTelemetry's API only. If the application has no SDK, nothing is recorded.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar, Unpack, cast
from urllib.parse import urlsplit

from everthread._extras import missing_extra
from everthread.capabilities import SupportsRewrite
from everthread.contract import Store
from everthread.errors import ConflictError
from everthread.model import (
    Appended,
    Document,
    MessagePage,
    NewMessage,
    Page,
    Rewrite,
    ThreadKey,
)
from everthread.request_charge import charges
from everthread.urls import scheme_of
from everthread.wrappers.forwarding import ABILITIES, WRITES, AppendOptions, ForwardingStore

try:
    from opentelemetry import metrics, trace
    from opentelemetry.trace import SpanKind, Status, StatusCode
except ImportError as error:
    raise missing_extra("otel", error) from error

T = TypeVar("T")
Attributes = dict[str, str | int | float]

LOGGER = logging.getLogger("everthread.calls")

_SYSTEMS = {"rediss": "redis", "unix": "redis", "postgres": "postgresql", "cosmos": "azure.cosmosdb"}
"""The conventions' name of an engine's kind, if it differs from the scheme."""

_REQUEST_UNITS = "azure.cosmosdb.operation.request_charge"

_USUAL = {ConflictError.__name__, asyncio.CancelledError.__name__}
"""The errors that are no faults."""

# What the conventions advise for db.client.operation.duration, in seconds.
_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
_BYTES = tuple(4.0**power for power in range(3, 13))
_COUNTS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)


class Traced(ForwardingStore):
    """A store that records each call as a span, a few metrics and a line in the log.

        store = Traced(open_store("redis://localhost:6379/0"))

    Spans are named after the call and the server (``append localhost:6379``) and carry ``db.system.name``,
    ``db.operation.name``, ``server.address``, ``server.port``, ``error.type``, the numbers of messages and bytes sent
    or received, and whether an append repeated one that had landed; on Cosmos DB also the request charge,
    ``azure.cosmosdb.operation.request_charge``.

    Metrics: ``db.client.operation.duration`` (s), ``everthread.messages`` and ``everthread.bytes`` (histograms per
    call, with ``everthread.direction`` ``sent`` or ``received``), ``everthread.conflicts`` and ``everthread.retries``;
    on Cosmos DB ``azure.cosmosdb.client.operation.request_charge`` (a histogram).

    The logger ``everthread.calls`` gets one line per call: DEBUG, INFO for a conflict or a cancellation, WARNING for
    another error; the span's attributes and ``everthread.seconds`` are fields of the record.

    The abilities of the inner store (search, rewriting, ...) are traced too.

    No span, metric or line has the id of a thread or tenant, since ids often name people. To record ids, open your own
    span around the call.

    Args:
        inner: The store that is traced; this store closes it. Around `Encrypted`, bytes are counted before encryption.
        tracer_provider: The application's global one, if not given.
        meter_provider: The application's global one, if not given.
    """

    carries = ABILITIES

    def __init__(
        self,
        inner: Store,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        super().__init__(inner)
        self._tracer = trace.get_tracer("everthread", tracer_provider=tracer_provider)
        self._meters = _Meters(metrics.get_meter("everthread", meter_provider=meter_provider))
        self._where = _place_of(inner.location)
        self._target = _target_of(self._where)

    async def append(
        self, key: ThreadKey, messages: Sequence[NewMessage], **options: Unpack[AppendOptions]
    ) -> Appended:
        return await self._traced("append", lambda: self._inner.append(key, messages, **options), _sent(messages))

    async def put_document(
        self, key: ThreadKey, name: str, value: bytes, *, expected_revision: int | None = None
    ) -> Document:
        return await self._traced(
            "put_document",
            lambda: self._inner.put_document(key, name, value, expected_revision=expected_revision),
            {"everthread.bytes.sent": len(value)} if isinstance(value, bytes) else {},
        )

    async def rewrite(self, key: ThreadKey, changes: Sequence[Rewrite]) -> int:
        inner = self._inner_that(SupportsRewrite)
        return await self._traced("rewrite", lambda: inner.rewrite(key, changes), _sent(changes))

    async def _around(self, call: str, proceed: Callable[[], Awaitable[T]]) -> T:
        return await self._traced(call, proceed, {})

    async def _traced(self, call: str, proceed: Callable[[], Awaitable[T]], sent: Attributes) -> T:
        attributes: Attributes = {**self._where, "db.operation.name": call}
        seen = dict(sent)
        began = time.perf_counter()
        with (
            charges() as used,
            self._tracer.start_as_current_span(
                f"{call} {self._target}",
                kind=SpanKind.CLIENT,
                attributes=attributes,
                record_exception=False,
                set_status_on_exception=False,
            ) as span,
        ):
            try:
                result = await proceed()
                seen |= _received(call, result)
            except BaseException as error:
                # Not the exception itself: the texts of other libraries' errors may quote content.
                attributes["error.type"] = type(error).__name__
                if isinstance(error, Exception):
                    span.set_status(Status(StatusCode.ERROR, type(error).__name__))
                raise
            finally:
                seconds = time.perf_counter() - began
                if used.total:
                    seen[_REQUEST_UNITS] = used.total
                span.set_attributes({**attributes, **seen})
                self._meters.record(attributes, seen, seconds)
                _log(call, attributes, seen, seconds)
        return result


class _Meters:
    """The instruments of one store."""

    def __init__(self, meter: metrics.Meter) -> None:
        self._duration = meter.create_histogram(
            "db.client.operation.duration", "s", "Duration of a call.", explicit_bucket_boundaries_advisory=_SECONDS
        )
        self._messages = meter.create_histogram(
            "everthread.messages", "{message}", "Messages of a call.", explicit_bucket_boundaries_advisory=_COUNTS
        )
        self._bytes = meter.create_histogram(
            "everthread.bytes", "By", "Payload bytes of a call.", explicit_bucket_boundaries_advisory=_BYTES
        )
        self._request_units = meter.create_histogram(
            "azure.cosmosdb.client.operation.request_charge", "{request_unit}", "What a call has cost."
        )
        self._conflicts = meter.create_counter("everthread.conflicts", "{call}", "Calls refused: somebody wrote first.")
        self._retries = meter.create_counter("everthread.retries", "{call}", "Appends that had landed before.")

    def record(self, attributes: Attributes, seen: Attributes, seconds: float) -> None:
        self._duration.record(seconds, attributes)
        for what, instrument in (("messages", self._messages), ("bytes", self._bytes)):
            for direction in ("sent", "received"):
                amount = seen.get(f"everthread.{what}.{direction}")
                if amount is not None:
                    instrument.record(int(amount), {**attributes, "everthread.direction": direction})
        if (units := seen.get(_REQUEST_UNITS)) is not None:
            self._request_units.record(float(units), attributes)
        if attributes.get("error.type") == ConflictError.__name__:
            self._conflicts.add(1, attributes)
        if seen.get("everthread.replayed"):
            self._retries.add(1, attributes)


def _log(call: str, attributes: Attributes, seen: Attributes, seconds: float) -> None:
    error = attributes.get("error.type")
    level = logging.DEBUG if error is None else logging.INFO if error in _USUAL else logging.WARNING
    if LOGGER.isEnabledFor(level):
        outcome = "done" if error is None else error
        fields: Mapping[str, str | int | float] = {**attributes, **seen, "everthread.seconds": seconds}
        LOGGER.log(level, "%s: %s in %.1f ms", call, outcome, seconds * 1000, extra=fields)


def _place_of(location: str) -> Attributes:
    place: Attributes = {"db.system.name": "other"}
    try:
        scheme = scheme_of(location)
        place = {"db.system.name": _SYSTEMS.get(scheme, scheme)}
        parts = urlsplit(location)
        host, port = parts.hostname, parts.port
    except ValueError:
        # No URL, or several hosts: which of them answers is the driver's affair.
        return place
    return place | ({"server.address": host} if host else {}) | ({"server.port": port} if port else {})


def _target_of(place: Attributes) -> str:
    port = place.get("server.port")
    return str(place.get("server.address", place["db.system.name"])) + (f":{port}" if port else "")


def _sent(messages: object) -> Attributes:
    if not isinstance(messages, Sequence):
        return {}
    given = cast(Sequence[object], messages)
    sizes = [len(each.payload) for each in given if isinstance(each, NewMessage)]
    sizes += [len(each.new) for each in given if isinstance(each, Rewrite)]
    return {"everthread.messages.sent": len(sizes), "everthread.bytes.sent": sum(sizes)}


def _received(call: str, result: object) -> Attributes:
    match result:
        case Appended():
            return {"everthread.replayed": 1} if result.replayed else {}
        case MessagePage():
            size = sum(len(message.payload) for message in result)
            return {"everthread.messages.received": len(result), "everthread.bytes.received": size}
        case Document() if call not in WRITES:
            return {"everthread.bytes.received": len(result.value)}
        case Page():
            return {"db.response.returned_rows": len(cast(Page[object], result))}
        case _:
            return {}

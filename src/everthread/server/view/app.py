"""The viewer as an ASGI application: pages about the threads of one tenant, on top of the thread API."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import jinja2
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from everthread._wording import ago, file_size
from everthread.contract import Store
from everthread.errors import EverthreadError, InvalidIdentifierError, ThreadNotFoundError
from everthread.listing import existing_thread, title_of, undo
from everthread.model import MAX_SEQ, ThreadKey
from everthread.operations.fork import fork
from everthread.operations.search import continued_search
from everthread.server.access import Access
from everthread.server.api.app import thread_api
from everthread.server.api.paths import segment_of, thread_id_of
from everthread.server.problems import problem_of
from everthread.server.view import reading
from everthread.server.view.entries import MODES, Mode, entries_of, seen_of
from everthread.server.view.markup import as_html, as_plain_html
from everthread.transfer.rendering import readable_text

_HERE = Path(__file__).parent
_LONGEST_QUERY = 1_000
_MODES: Mapping[str, Mode] = {mode: mode for mode in MODES}
_LONGEST_FORM = 16_384
SEARCH_SECONDS = 5.0
MOST_SHOWN_CHARACTERS = 2_000_000
"""The most characters of a message that its own page shows."""


@dataclass(frozen=True)
class Shown:
    """The store that the viewer shows.

    Attributes:
        tenant: The tenant of its threads.
        location: The store as people know it, without secrets.
        options: The options that name store and tenant on a command line; empty if they would show a secret.
        may_write: Threads can be changed.
    """

    store: Store
    tenant: str
    location: str
    options: str = ""
    may_write: bool = False


def viewer(shown: Shown) -> Starlette:
    """Return the application. It has no access control: see `Gate`."""
    pages = _Pages(shown)
    access = Access(shown.tenant, shown.may_write)
    routes: list[Route | Mount] = [
        Route("/", pages.threads),
        Route("/favicon.ico", pages.icon),
        Route("/open", pages.open),
        Route("/search", pages.search),
        Route("/threads/{thread}", pages.thread),
        Route("/threads/{thread}/rows", pages.rows),
        Route("/threads/{thread}/health", pages.health),
        Route("/threads/{thread}/find", pages.find),
        Route("/threads/{thread}/messages/{seq}", pages.message),
        Mount("/api", thread_api(shown.store, authorize=lambda _: access)),
        Mount("/static", StaticFiles(directory=_HERE / "static")),
    ]
    if shown.may_write:
        routes.append(Route("/threads/{thread}/change", pages.change, methods=["POST"]))
    return Starlette(routes=routes, exception_handlers={EverthreadError: pages.problem, 404: pages.problem})


class _Pages:
    """Answers requests with pages and with parts of pages."""

    def __init__(self, shown: Shown) -> None:
        self._shown = shown
        self._store = shown.store.tenant(shown.tenant)
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= {"size": file_size, "ago": _ago, "time": _time, "plain": readable_text}
        values: dict[str, Any] = self._templates.globals
        values.update(shown=shown, segment=segment_of, modes=MODES)

    # Pages

    async def icon(self, request: Request) -> Response:
        return RedirectResponse("/static/icon.svg")

    async def threads(self, request: Request) -> Response:
        text = _text(request, "q")
        found = await reading.list_threads(self._store, text, request.query_params.get("cursor"))
        values = {"found": found, "text": text, "more": _more("/", found.cursor, q=text)}
        return self._page("_thread_rows.html" if _is_part(request) else "threads.html", values)

    async def open(self, request: Request) -> Response:
        """Lead to the thread with an ID, else to the list of threads with the text."""
        text = _text(request, "q").strip()
        try:
            is_thread = bool(text) and await self._store.get_thread(ThreadKey(text)) is not None
        except InvalidIdentifierError:
            is_thread = False
        where = f"/threads/{segment_of(text)}" if is_thread else "/?" + urlencode({"q": text})
        return RedirectResponse(where, HTTPStatus.SEE_OTHER)

    async def search(self, request: Request) -> Response:
        text = _text(request, "q")
        cursor = request.query_params.get("cursor")
        values: dict[str, Any] = {"text": text, "findings": None, "more": ""}
        if text.strip():
            findings = await continued_search(
                self._store, self._shown.tenant, text, limit=30, cursor=cursor, seconds=SEARCH_SECONDS
            )
            values |= {"findings": findings, "more": _more("/search", findings.cursor, q=text)}
        return self._page("_hits.html" if _is_part(request) else "search.html", values)

    async def thread(self, request: Request) -> Response:
        key = _key(request)
        thread = await existing_thread(self._store, key)
        at = _position(request, "at")
        page = await reading.read_page(self._store, key, at=at)
        mode = _mode(request)
        values = {
            "thread": thread,
            "title": reading.shown_title(await title_of(self._store, thread)),
            "at": at,
            "command": self._command("show", key),
            "error": _text(request, "error"),
        }
        return self._page("thread.html", values | self._rows(key, page, mode))

    async def rows(self, request: Request) -> Response:
        key = _key(request)
        before, start = _position(request, "before"), _position(request, "start")
        page = await reading.read_page(self._store, key, before=before, start=start)
        values = self._rows(key, page, _mode(request))
        if before is not None:
            values["newer"] = None
        if start is not None:
            values["older"] = None
        return self._page("_rows.html", values)

    def _rows(self, key: ThreadKey, page: reading.Page, mode: Mode) -> dict[str, Any]:
        return {
            "key": key,
            "entries": entries_of(page, mode),
            "mode": mode,
            "older": page.first if page.older else None,
            "newer": page.stop,
            "has_newer": page.newer,
            "next_seq": page.next_seq,
        }

    async def message(self, request: Request) -> Response:
        key, seq = _key(request), _seq(request.path_params["seq"])
        found = await self._store.read(key, start=seq, stop=seq + 1)
        if not found:
            raise ThreadNotFoundError(f"{key} has no message at position {seq}.")
        seen = seen_of(found[0], key)
        text = seen.view.text if seen.view else ""
        html = as_html(text) if len(text) < 200_000 else as_plain_html(text[:MOST_SHOWN_CHARACTERS])
        values = {
            "key": key,
            "message": found[0],
            "seen": seen,
            "html": Markup(html),  # noqa: S704 - cleaned
            "raw": readable_text(found[0].payload[:MOST_SHOWN_CHARACTERS].decode(errors="replace")),
            "is_cut": len(found[0].payload) > MOST_SHOWN_CHARACTERS,
            "bounds": (found.head_seq, found.next_seq),
        }
        return self._page("message.html", values)

    # Parts

    async def health(self, request: Request) -> Response:
        thread = await existing_thread(self._store, _key(request))
        health = await reading.examine_thread(self._store, thread)
        command = f"everthread doctor {self._shown.options}".rstrip() + " --repair --dry-run"
        return self._page("_health.html", {"key": thread.key, "health": health, "command": command})

    async def find(self, request: Request) -> Response:
        key, text = _key(request), _text(request, "q")
        before = _position(request, "before")
        found = await reading.find(self._store, key, text, before) if text.strip() else reading.Found([], None)
        here = f"/threads/{segment_of(key.thread_id)}/find"
        more = _more(here, None if found.before is None else str(found.before), name="before", q=text)
        return self._page("_found.html", {"key": key, "found": found, "text": text, "more": more})

    # Changes

    async def change(self, request: Request) -> Response:
        key = _key(request)
        form = await _form(request)
        where = f"/threads/{segment_of(key.thread_id)}"
        match form.get("action"):
            case "rename":
                await self._store.update_thread(key, title=form.get("title", "") or None)
            case "undo":
                await undo(self._store, key, expected_seq=_seq(form.get("next_seq", "")))
            case "fork":
                target = ThreadKey(form.get("target", ""))
                await fork(self._store, key, target)
                where = f"/threads/{segment_of(target.thread_id)}"
            case "delete":
                await self._store.delete_thread(key, expected_seq=_seq(form.get("next_seq", "")))
                where = "/"
            case _:
                raise InvalidIdentifierError("This change is not known.")
        return RedirectResponse(where, HTTPStatus.SEE_OTHER)

    # Answers

    async def problem(self, request: Request, error: Exception) -> Response:
        """Answer with an error, without content of messages."""
        if isinstance(error, EverthreadError):
            problem = problem_of(error)
            values = {"status": problem.status, "detail": readable_text(problem.detail)}
        else:
            values = {"status": 404, "detail": "There is no such page."}
        return self._page("_problem.html" if _is_part(request) else "problem.html", values, values["status"])

    def _page(self, template: str, values: Mapping[str, Any], status: Any = 200) -> Response:
        text = self._templates.get_template(template).render(values)
        # Another program's records may hold lone surrogates.
        return Response(text.encode(errors="replace"), status, media_type="text/html")

    def _command(self, name: str, key: ThreadKey) -> str:
        options = f" {self._shown.options}" if self._shown.options else ""
        return f"everthread {name}{options} {shlex.quote(key.thread_id)}"


# Requests


def _is_part(request: Request) -> bool:
    return request.headers.get("hx-request") == "true"


def _text(request: Request, name: str) -> str:
    return request.query_params.get(name, "")[:_LONGEST_QUERY]


def _key(request: Request) -> ThreadKey:
    return ThreadKey(thread_id_of(request.path_params["thread"]))


def _mode(request: Request) -> Mode:
    return _MODES.get(request.query_params.get("mode", ""), "tools")


def _position(request: Request, name: str) -> int | None:
    given = request.query_params.get(name, "")
    return _seq(given) if given else None


def _seq(digits: str) -> int:
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 16) or int(digits) > MAX_SEQ:
        raise InvalidIdentifierError(f"A position is a whole number from 0 to {MAX_SEQ}.")
    return int(digits)


async def _form(request: Request) -> dict[str, str]:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _LONGEST_FORM:
            raise InvalidIdentifierError("The form is too long.")
    return dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True, max_num_fields=10))


def _more(path: str, cursor: str | None, *, name: str = "cursor", **query: str) -> str:
    """Return the address of the next page; empty at the end."""
    return "" if cursor is None else f"{path}?" + urlencode({**query, name: cursor})


# Values in templates


def _ago(when: datetime) -> str:
    return ago(when, datetime.fromtimestamp(time.time()).astimezone())


def _time(when: datetime) -> Markup:
    """Return a time, which the page's script shows in the browser's time zone."""
    return Markup('<time datetime="{}" data-local>{} UTC</time>').format(
        when.isoformat(timespec="milliseconds"), f"{when:%Y-%m-%d %H:%M:%S}"
    )

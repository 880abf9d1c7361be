"""The gate in front of the viewer: only the browser that opened the printed address gets through."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Mapping
from hashlib import blake2b
from http import HTTPStatus
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PARAMETER = "token"
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_SAFE_METHODS = frozenset({"GET", "HEAD"})
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
_CLOSED = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>everthread view</title></head><body>
<h1>This browser has no access yet</h1>
<p>Open the address that <code>everthread view</code> printed last in its terminal. Each address works once.</p>
<p>If this browser had access and you followed a link from another site: <a href="">open this page again</a>.</p>
</body></html>"""


class Gate:
    """An ASGI application in front of another one: checks host, origin and cookie, and adds security headers.

    A token in the URL is good for one browser: it becomes a cookie, and a new token replaces it.

    Args:
        app: The application.
        on_used: Receives the new token after each use of a token.
    """

    def __init__(self, app: ASGIApp, on_used: Callable[[str], None]) -> None:
        self._app = app
        self._on_used = on_used
        self._session = secrets.token_urlsafe(32)
        # Cookies know no ports: viewers on other ports of this host have cookies with other names.
        self._cookie = "everthread-view-" + blake2b(self._session.encode(), digest_size=6).hexdigest()
        self.token = secrets.token_urlsafe(24)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it to the application."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1000})
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refused = self._refused(Request(scope, receive))
        await (refused or self._app)(scope, receive, send_guarded)

    def _refused(self, request: Request) -> Response | None:
        if _name_of(request.headers.get("host", "")) not in _LOOPBACK:
            # A page of another site whose name leads to this machine (DNS rebinding).
            return HTMLResponse("<p>This viewer answers on loopback addresses only.", HTTPStatus.MISDIRECTED_REQUEST)
        if _equal(request.query_params.get(PARAMETER, ""), self.token) and request.method in _SAFE_METHODS:
            return self._welcome(request)
        if not _equal(request.cookies.get(self._cookie, ""), self._session):
            return HTMLResponse(_CLOSED, HTTPStatus.FORBIDDEN)
        if request.method not in _SAFE_METHODS and not _is_own(request):
            return HTMLResponse("<p>This request comes from another page.", HTTPStatus.FORBIDDEN)
        return None

    def _welcome(self, request: Request) -> Response:
        self.token = secrets.token_urlsafe(24)
        self._on_used(self.token)
        rest = [pair for pair in parse_qsl(request.url.query, keep_blank_values=True) if pair[0] != PARAMETER]
        # A path with two slashes would lead to another host.
        path = "/" + request.url.path.lstrip("/\\")
        response = RedirectResponse(path + ("?" + urlencode(rest) if rest else ""), HTTPStatus.SEE_OTHER)
        response.set_cookie(self._cookie, self._session, path="/", httponly=True, samesite="strict")
        return response


def _name_of(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _equal(given: str, secret: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), secret.encode())


def _is_own(request: Request) -> bool:
    """Return whether a page of this viewer made the request. Other ports of this host are the same site."""
    origin = request.headers.get("origin", "")
    return origin in {f"{scheme}://{request.headers['host']}" for scheme in ("http", "https")}

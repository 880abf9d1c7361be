"""Convert PostgreSQL URLs of libpq and providers to settings of asyncpg. Reads certificates; no other I/O."""

from __future__ import annotations

import inspect
import logging
import re
import ssl as tls
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, quote, urlencode

import asyncpg
import msgspec

from everthread.errors import ConfigurationError
from everthread.urls import check_url

_log = logging.getLogger("everthread.postgres")

_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_SESSIONS: Final = ("any", "read-write", "read-only", "primary", "standby", "prefer-standby")
_FILES: Final = ("sslcert", "sslkey", "sslrootcert", "sslcrl")

# Options that asyncpg reads from a URL.
_DRIVER: Final = {
    *("host", "port", "dbname", "database", "user", "password", "passfile", "krbsrvname", "gsslib"),
    *("sslmode", "sslpassword", "ssl_min_protocol_version", "ssl_max_protocol_version", "target_session_attrs"),
    *_FILES,
}
# Options that asyncpg reads as of release 0.31.
_NEWER: Final = {"service": "service", "sslnegotiation": "direct_tls"}
_SERVER: Final = {
    *("application_name", "options", "timezone", "datestyle", "intervalstyle", "synchronous_commit", "work_mem"),
    *("idle_in_transaction_session_timeout", "idle_session_timeout", "transaction_timeout", "role"),
}
_OTHER_NAMES: Final = {
    "fallback_application_name": "application_name",
    "hostaddr": "host",
    "applicationname": "application_name",
}
_NO_EFFECT: Final = "the driver has no such setting"
_IGNORED: Final = {
    "channel_binding": "the driver signs in without channel binding: sslmode=verify-full protects the connection",
    **dict.fromkeys(("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count"), _NO_EFFECT),
    **dict.fromkeys(("tcp_user_timeout", "tcpkeepalive", "gssencmode", "gssdelegation", "sslcompression"), _NO_EFFECT),
    **dict.fromkeys(("sslsni", "sslcertmode", "sslaccept", "sslidentity", "min_protocol_version"), _NO_EFFECT),
    **dict.fromkeys(("max_protocol_version", "preparethreshold", "statement_cache_size", "uselibpqcompat"), _NO_EFFECT),
    "load_balance_hosts": "hosts are tried in their order",
    "client_encoding": "text is UTF-8",
    "currentschema": "the option schema says where the tables are",
    "search_path": "the option schema says where the tables are",
    "jit": "everthread turns it off",
    **dict.fromkeys(("connection_limit", "pool_max_conns"), "the option pool_size limits connections"),
    **dict.fromkeys(("pool_timeout", "connecttimeout", "logintimeout"), "the option connect_timeout limits this time"),
    **dict.fromkeys(
        ("statement_timeout", "lock_timeout", "sockettimeout", "socket_timeout"), "the option timeout does"
    ),
}
# Requirements that nothing would enforce if they were ignored.
_REFUSED: Final = {
    *("require_auth", "requirepeer", "sslcrldir", "replication", "scram_client_key", "scram_server_key"),
    *("servicefile", "targetservertype"),
}
_DEFAULT_ROOT: Final = Path("~/.postgresql/root.crt")

_noted: set[str] = set()


class Target(msgspec.Struct, frozen=True):
    """The settings of a URL.

    Attributes:
        dsn: The URL with only the options that asyncpg knows.
        server_settings: Settings of each session.
        options: The URL's TLS options.
    """

    dsn: str
    server_settings: dict[str, str] = {}
    options: dict[str, str] = {}

    def __repr__(self) -> str:
        return "Target(…)"


def target_of(url: str) -> Target:
    """Sort a URL's options; log those without effect once in a process.

    Raises:
        ConfigurationError: An option or its value is unknown, or the driver lacks it.
    """
    head, _, query = check_url(url).partition("?")
    # As with libpq, the last of several values wins.
    given = {name: value for name, value in parse_qsl(query) if value}
    options: dict[str, str] = {}
    settings: dict[str, str] = {}
    for name, value in given.items():
        _sort(name, value, options, settings)
    _check_values(options)
    driver_options = {name: value for name, value in options.items() if (name, value) != ("sslrootcert", "system")}
    text = urlencode(driver_options, quote_via=quote, safe="/,")
    return Target(head + ("?" + text if text else ""), settings, options)


def certificates(options: Mapping[str, str], environ: Mapping[str, str]) -> tls.SSLContext | None:
    """Return a context that trusts the system's certificate authorities, if the URL requests them or names no others.

    Raises:
        ConfigurationError: A file that an option names cannot be read.
    """
    for name in _FILES:
        if name in options and options[name] != "system" and not Path(options[name]).is_file():
            raise ConfigurationError(f"The file that {name} in the URL names does not exist.")
    root = options.get("sslrootcert") or environ.get("PGSSLROOTCERT")
    mode = options.get("sslmode") or environ.get("PGSSLMODE")
    has_no_root = not root and mode == "verify-full" and not _DEFAULT_ROOT.expanduser().exists()
    if root != "system" and not has_no_root:
        return None
    context = tls.create_default_context()
    if "sslcert" in options:
        try:
            context.load_cert_chain(options["sslcert"], options.get("sslkey"), options.get("sslpassword", ""))
        except (OSError, tls.SSLError) as error:
            raise ConfigurationError(f"sslcert or sslkey cannot be read ({type(error).__name__}).") from None
    return context


def connect_timeout(text: str) -> float:
    """Read libpq's ``connect_timeout``: 0 is a day here instead of forever."""
    return float(text) or 86_400.0


def _sort(name: str, value: str, options: dict[str, str], settings: dict[str, str]) -> None:
    known = _OTHER_NAMES.get(name.lower(), name)
    lowered = known.lower()
    if known != name and known in {**options, **settings}:
        return
    if lowered == "ssl":
        options.setdefault("sslmode", "require" if value.lower() in {"true", "1"} else "prefer")
    elif lowered in _DRIVER:
        options[lowered] = value
    elif lowered in _SERVER:
        settings[lowered] = value
    elif lowered in _NEWER:
        _check_driver(lowered)
        options[lowered] = value
    elif lowered in _REFUSED or (lowered, value) == ("gssencmode", "require"):
        raise ConfigurationError(f"The driver (asyncpg) cannot do what the option {name} in the URL requires.")
    elif lowered in _IGNORED:
        _note(lowered)
    else:
        raise ConfigurationError(
            f"The postgresql engine has no option {name}. Give a setting of the server as options=-c%20name%3Dvalue."
        )


def _check_values(options: Mapping[str, str]) -> None:
    for name, values in (("sslmode", _MODES), ("target_session_attrs", _SESSIONS), ("gsslib", ("gssapi", "sspi"))):
        if options.get(name, values[0]) not in values:
            raise ConfigurationError(f"The option {name} in the URL is one of {', '.join(values)}.")
    for name in ("ssl_min_protocol_version", "ssl_max_protocol_version"):
        if not re.fullmatch(r"TLSv1(\.[1-3])?", options.get(name, "TLSv1")):
            raise ConfigurationError(f"The option {name} in the URL is TLSv1, TLSv1.1, TLSv1.2 or TLSv1.3.")
    ports = options.get("port", "5432").split(",")
    if not all(re.fullmatch(r"[0-9]{1,5}", port) and 0 < int(port) < 65_536 for port in ports):
        raise ConfigurationError("The option port in the URL is a number from 1 to 65535.")
    for host in options.get("host", "").split(","):
        if not host.startswith("/") and not re.fullmatch(r"[A-Za-z0-9._:\[\]%-]*", host):
            raise ConfigurationError("The option host in the URL is a name, an address or the folder of a socket.")
    if options.get("sslrootcert") == "system" and options.get("sslmode", "verify-full") != "verify-full":
        raise ConfigurationError("sslrootcert=system in the URL needs sslmode=verify-full.")


def _check_driver(name: str) -> None:
    if _NEWER[name] not in inspect.signature(asyncpg.connect).parameters:
        raise ConfigurationError(f"The option {name} in the URL needs asyncpg 0.31 or newer.")


def _note(name: str) -> None:
    if name not in _noted:
        _noted.add(name)
        _log.info("The option %s in a PostgreSQL URL has no effect here: %s.", name, _IGNORED[name])

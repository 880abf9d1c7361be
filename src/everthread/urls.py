"""Split, check and mask store URLs.

Drivers disagree on the end of a password that holds an unescaped ``@``, ``/``, ``?`` or ``#``. So this module splits
URLs itself, and refuses those that are ambiguous; drivers get user and password percent-encoded.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from typing import Final, NamedTuple, cast
from urllib.parse import SplitResult, quote, unquote, unquote_to_bytes, urlsplit

from everthread.errors import ConfigurationError

MAX_URL_LENGTH: Final = 16_384
"""Maximum number of characters of a store's URL."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_FILE_ENDINGS = (".db", ".sqlite", ".sqlite3")
_PARTS = re.compile(r"([^/?#]*)([^?#]*)(.*)", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+(?:%25[\w.-]+)?\]|(?:[A-Za-z0-9._~-]|%[0-9A-Fa-f]{2})*)(?::(\d{1,5}))?", re.ASCII)
_BUCKET = re.compile(r"[A-Za-z0-9._$-]*")
_OPTION_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,60}")
_SECRET_NAME = re.compile(r"pass|secret|token|key(?!_?(id|enabled))|credential|sig$|pwd|sas$", re.IGNORECASE)

_SERVERS: Final = re.compile(r"(rediss?(\+(cluster|sentinel))?|unix|postgres(ql)?)")
_BUCKETS: Final = re.compile(r"(s3|az|gs|cosmos)")

# Names of options that may be shown, and that may follow a secret option. Any other name there can be a part of a
# secret that holds an unescaped "&".
_KNOWN: Final = re.compile(
    r"""(?: aws | azure | google | ssl | socket | tcp | keepalives | health_check | retry | retries | sentinel |
        search | wait | failover | imdsv1 | msi | proxy | fabric | container | encoding | client | gss | sse | oauth |
        http1 | http2 | min | max | conditional | copy | disable | use | skip | allow | server | session | target |
        default | virtual | request | s3 | role | load | user | database | cache | busy | connect | application |
        fallback | connection | pool | expire | table | channel | require | read | service |
        statement | lock | idle | krb | lib | legacy )[a-z0-9_]*
    | schema | timeout | prefix | auth | spread | migrate | pgbouncer | host | hostaddr | port | db | dbname | protocol
    | decode_responses | path | options | currentschema | replication | gsslib | region | bucket | endpoint
    | account_(?:name|key) | accountkey | authority_host | base_url | checksum(?:_algorithm)? | unsigned_payload | sync
    | synchronous | synchronous_commit | create | verify | discover | token | object_id | tenant_id | sts_endpoint
    | metadata_endpoint | web_identity_token_file | federated_token_file | work_mem | jit | timezone
    | access_key(?:_id)? | secret_access_key | sas_(?:key|token) | bearer_token | password | passfile""",
    re.VERBOSE | re.IGNORECASE,
)

_MAY_HOLD_AT: Final = {"user", "username", "client_name", "application_name", "fallback_application_name", "options"}

_ADVICE = (
    "Percent-encode special characters in it: / as %2F, ? as %3F, # as %23, @ as %40, & as %26, % as %25, + as %2B."
)


class Parts(NamedTuple):
    """The parts of a URL, still encoded.

    Attributes:
        scheme: In lower case.
        slashes: ``://``, or ``:`` if there are none.
        user: Up to the first ``:``; ``None`` if there is no ``@``.
        password: ``None`` if there is none.
        hosts: The rest of the authority.
        path: With its leading slash.
        query: With its leading ``?``, and a fragment.
    """

    scheme: str
    slashes: str
    user: str | None
    password: str | None
    hosts: str
    path: str
    query: str

    @property
    def is_ambiguous(self) -> bool:
        """Return whether user or password may extend beyond the authority, or an earlier host has its own."""
        user, password = self.user or "", self.password or ""
        if "," in user or ("," in password and ("@" in password or "+" in self.scheme)):
            return True
        if not _SERVERS.fullmatch(self.scheme):
            # In other URLs "@" and "#" can be parts of names, and a password begins with a ":".
            return (":" in self.hosts or self.password is not None) and "@" in self.path + self.query
        if "#" in self.path + self.query or "@" in self.path:
            return True
        return any("@" in option and option.partition("=")[0] not in _MAY_HOLD_AT for option in options_of(self.query))


def as_url(place: str | os.PathLike[str]) -> str:
    """Return the URL of a store that may be named by the path of an SQLite file.

    Only the endings ``.db``, ``.sqlite`` and ``.sqlite3`` make text without a scheme a path.

    Raises:
        ConfigurationError: The path holds characters that no file's name can have.
    """
    text = os.fspath(place) if isinstance(place, os.PathLike) else place
    if not isinstance(text, str) or not text.lower().endswith(_FILE_ENDINGS):
        return cast(str, place)
    scheme = _SCHEME.match(text)
    # A one-letter scheme is a Windows drive.
    if scheme is not None and len(scheme[0]) > 2:
        return text
    try:
        return "sqlite:///" + quote(os.fsencode(text), safe="/~:\\")
    except UnicodeEncodeError:
        raise ConfigurationError("The path of this SQLite file holds a lone surrogate.") from None


def scheme_of(url: str) -> str:
    """Return the URL's scheme in lower case.

    Raises:
        ConfigurationError: The URL has no scheme. One letter is a Windows drive, not a scheme.
    """
    if not isinstance(url, str):
        raise ConfigurationError(f"A store is named by a URL, not by {type(url).__name__}.")
    found = _SCHEME.match(url)
    if found is None or len(found[0]) == 2:
        raise ConfigurationError(
            "A store is named by a URL such as sqlite:///threads.db or redis://localhost:6379/0; this has no scheme."
        )
    return found[0][:-1].lower()


def parts_of(url: str) -> Parts:
    """Split a URL, without decoding or checking it."""
    scheme, colon, rest = url.partition(":")
    slashes = "//" if rest.startswith("//") else ""
    authority, path, query = _parts_of_rest(rest[len(slashes) :]) if slashes else ("", *_path_and_query(rest))
    credentials, at, hosts = authority.rpartition("@")
    user, mark, password = credentials.partition(":")
    given = (user, password if mark else None) if at else (None, None)
    return Parts(scheme.lower(), colon + slashes, *given, hosts, path, query)


def split_url(url: str, what: str = "URL") -> SplitResult:
    """Split a URL with the standard library, which decodes and checks only the host.

    Raises:
        ConfigurationError: The host is wrong.
    """
    with contextlib.suppress(ValueError):
        return urlsplit(url)
    # Not raised from the parser's error, which may quote a secret.
    raise ConfigurationError(f"The host in this {what} is wrong.")


def options_of(query: str) -> list[str]:
    """Split a query (with or without its ``?``) into options, still encoded."""
    return [option for option in query.removeprefix("?").split("&") if option]


def check_url(url: str) -> str:
    """Raise an error for a URL that no engine accepts, or in which the end of user or password is ambiguous.

    Returns:
        The URL for a driver: user and password are percent-encoded.

    Raises:
        ConfigurationError: The URL is wrong. The message quotes no part that can be secret.
    """
    scheme = scheme_of(url)
    if len(url) > MAX_URL_LENGTH:
        raise ConfigurationError(f"This URL has {len(url):,} characters; at most {MAX_URL_LENGTH:,} are taken.")
    if _CONTROL.search(url):
        raise ConfigurationError("This URL holds a control character or a lone surrogate: percent-encode it.")
    if _SERVERS.fullmatch(scheme):
        return _checked_server(parts_of(url))
    if _BUCKETS.fullmatch(scheme):
        # A "#" belongs to the prefix there.
        _check_bucket(parts_of(url.replace("#", "%23")))
    return url


def mask_url(url: str) -> str:
    """Return the URL with ``***`` for every part that is or may be secret."""
    parts = parts_of(url)
    rest = url[len(parts.scheme) + len(parts.slashes) :]
    start = f"{parts.scheme}{parts.slashes}"
    is_server = _SERVERS.fullmatch(parts.scheme) is not None
    if parts.slashes != "://":
        return f"{start}***" if is_server or "@" in rest else start + parts.path + _masked_query(parts.query)
    if _is_path(parts):
        return start + parts.path + _masked_query(parts.query)
    if parts.is_ambiguous or not (is_server or all(_HOST.fullmatch(host) for host in parts.hosts.split(","))):
        has_secret = _first_secret(options_of(parts.query)) < len(options_of(parts.query))
        return start + ("***" if has_secret else _masked_unclear(rest))
    secret = "" if parts.password is None else ":***"
    user = "" if parts.user is None else f"{parts.user}{secret}@"
    return start + user + _masked_place(parts.hosts, parts.path, parts.query, is_server=is_server)


def without_credentials(url: str) -> str:
    """Return the URL without user, password and secret options, to reconnect with credentials from elsewhere.

    Raises:
        ConfigurationError: The end of the password is ambiguous, so it cannot be removed with certainty.
    """
    parts = parts_of(url)
    if parts.slashes != "://":
        if _SERVERS.fullmatch(parts.scheme):
            raise ConfigurationError(f"A URL of this engine begins with {parts.scheme}://.")
        return url
    hosts_are_plain = all(_HOST.fullmatch(host) for host in parts.hosts.split(","))
    if not _is_path(parts) and (parts.is_ambiguous or not hosts_are_plain):
        raise _unclear("The end of user or password in this URL is ambiguous")
    options = options_of(parts.query)
    _check_options_after_secrets(options)
    left = [option for option in options if not _is_credential(option)]
    return f"{parts.scheme}://{parts.hosts}{parts.path}" + ("?" + "&".join(left) if left else "")


def secrets_of(url: str) -> set[str]:
    """Return the secret parts of a URL, encoded and decoded."""
    parts = parts_of(url)
    found = {parts.password or ""}
    found |= {option.partition("=")[2] for option in options_of(parts.query) if is_secret(option.partition("=")[0])}
    if parts.is_ambiguous:
        found.add(url[len(parts.scheme) + 3 :].rpartition("@")[0].partition(":")[2])
    return {spelling for secret in found for spelling in (secret, unquote(secret))} - {""}


def is_secret(name: str) -> bool:
    """Return whether an option's name says that its value is secret."""
    return _SECRET_NAME.search(unquote(name)) is not None


def shown_names(query: str) -> str:
    """Return the names of options that an error may show: no piece of a secret can be among them."""
    names = [unquote(option.partition("=")[0]) for option in options_of(query)]
    return ", ".join(sorted({name for name in names if _is_known(name) or not any(map(is_secret, names))}))


def _parts_of_rest(rest: str) -> tuple[str, str, str]:
    found = _PARTS.fullmatch(rest)
    assert found is not None, "the pattern matches any text"
    return found[1], found[2], found[3]


def _path_and_query(rest: str) -> tuple[str, str]:
    path, mark, query = rest.partition("?")
    return path, mark + query


def _checked_server(parts: Parts) -> str:
    if parts.slashes != "://":
        raise ConfigurationError(f"A URL of this engine begins with {parts.scheme}://.")
    if parts.is_ambiguous and not _is_path(parts):
        raise _unclear("The end of user or password in this URL is ambiguous")
    for what, text in (("user", parts.user), ("password", parts.password), ("path", parts.path)):
        _check_encoding(text or "", what)
    for host in parts.hosts.split(","):
        _check_host(host)
    options = options_of(parts.query)
    _check_options_after_secrets(options)
    for option in options:
        _check_option(option)
    secret = "" if parts.password is None else f":{_encoded(parts.password)}"
    user = "" if parts.user is None else f"{_encoded(parts.user)}{secret}@"
    return f"{parts.scheme}://{user}{parts.hosts}{parts.path}{parts.query}"


def _check_bucket(parts: Parts) -> None:
    if parts.slashes != "://":
        raise ConfigurationError(f"A URL of this engine begins with {parts.scheme}://.")
    if parts.user is not None or not _BUCKET.fullmatch(parts.hosts):
        raise ConfigurationError(
            f"Name the bucket, container or account in letters and digits, as in {parts.scheme}://name/prefix, without "
            "credentials: they are options or come from the environment."
        )
    options = options_of(parts.query)
    _check_options_after_secrets(options)
    for option in options:
        _check_option(option)


def _check_host(text: str) -> None:
    found = _HOST.fullmatch(text)
    if not text.isascii():
        raise ConfigurationError("A host in this URL is not ASCII: write it in its encoded form (xn--…).")
    if found is None:
        raise _unclear("A host or port in this URL is wrong, or a user or password holds a special character")
    _check_encoding(found[1], "host")
    if found[2] and not 0 < int(found[2]) < 65_536:
        raise ConfigurationError("A port in this URL is wrong: ports are 1 to 65535.")
    if max(map(len, found[1].split("."))) > 63 and "%" not in found[1]:
        raise ConfigurationError("A host in this URL is too long: each part has at most 63 characters.")


def _check_option(option: str) -> None:
    name, equals, value = option.partition("=")
    if not _OPTION_NAME.fullmatch(unquote(name)) or not (equals or _is_known(name)):
        raise _unclear("An option in this URL has no name or no value, or is part of the value before it")
    # Shown only if it cannot be a part of a secret.
    shown = f"option {unquote(name)}" if _is_known(name) else "query"
    _check_encoding(value, shown)
    if "+" in value and is_secret(name):
        raise ConfigurationError(f"The {shown} in this URL holds a +, which means a space there: write %2B, or %20.")


def _check_options_after_secrets(options: list[str]) -> None:
    after = options[_first_secret(options) + 1 :]
    if not all(_is_known(option.partition("=")[0]) for option in after):
        raise _unclear("An option after a secret one in this URL is unknown, or is part of the secret")


def _first_secret(options: list[str]) -> int:
    """Return the index of the first option with a secret: by its name, or as an address with a password."""
    for at, option in enumerate(options):
        name, equals, value = option.partition("=")
        # The password of an address may continue after an unescaped "&".
        is_address = "://" in unquote(value) and "@" in unquote("&".join(options[at:]))
        if equals and (is_secret(name) or is_address):
            return at
    return len(options)


def _check_encoding(text: str, what: str) -> None:
    if _BAD_PERCENT.search(text):
        raise ConfigurationError(f"The {what} in this URL holds a % that encodes nothing: write it as %25.")
    try:
        decoded = unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        decoded = "\0"
    if "\0" in decoded:
        raise ConfigurationError(f"The {what} in this URL is not UTF-8 once it is decoded, or holds a NUL.")


def _is_path(parts: Parts) -> bool:
    """Return whether the URL names a file or a socket, in which an "@" has no meaning."""
    is_empty = not parts.hosts and parts.user is None
    return is_empty and (parts.scheme == "unix" or not _SERVERS.fullmatch(parts.scheme))


def _masked_unclear(rest: str) -> str:
    # Masks too much rather than too little: a password may end at the very last "@".
    credentials, at, place = rest.rpartition("@")
    name = credentials.partition(":")[0] if at else ""
    shown = name if not re.search(r"[/?#@]", name) else ""
    return f"{shown}:***{at}" + (_masked_place(*_parts_of_rest(place), is_server=True) if at else "")


def _masked_place(hosts: str, path: str, query: str, *, is_server: bool) -> str:
    shown: list[str] = []
    for host in hosts.split(","):
        if not _HOST.fullmatch(host):
            # A password may begin here.
            return ",".join([*shown, host.partition(":")[0] + ":***"])
        shown.append(host)
    return hosts + path + _masked_query(query, is_server=is_server)


def _masked_query(query: str, *, is_server: bool = False) -> str:
    mark = query[:1] if query[:1] in ("?", "#") else ""
    return mark + "&".join(_masked_options(query[len(mark) :], is_server=is_server))


def _masked_options(query: str, *, is_server: bool) -> Iterator[str]:
    options = query.split("&")
    first = _first_secret(options)
    for option in options[:first]:
        name, equals, _ = option.partition("=")
        yield "***" if is_server and option and not equals and not _is_known(name) else option
    if first < len(options):
        # The rest may be a part of the secret.
        yield f"{options[first].partition('=')[0]}=***"


def _is_known(name: str) -> bool:
    return len(name) <= 60 and _KNOWN.fullmatch(unquote(name)) is not None


def _is_credential(option: str) -> bool:
    name = unquote(option.partition("=")[0]).lower()
    value = unquote(option.partition("=")[2])
    return name in {"username", "user"} or is_secret(name) or ("@" in value and ":" in value.rpartition("@")[0])


def _encoded(text: str) -> str:
    # Existing escapes stay unchanged.
    return quote(text, safe="%!$'()*,;=~")


def _unclear(what: str) -> ConfigurationError:
    return ConfigurationError(f"{what}. {_ADVICE}")

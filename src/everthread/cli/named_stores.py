"""The user's named stores: a TOML file that refers to secrets and contains none.

    [stores.prod]
    url = "rediss://app@cache.example:6380/0"
    password_env = "PROD_REDIS_PASSWORD"      # or password_command = ["pass", "show", "redis"]
    tenant = "acme"
    max_messages = 500
    expire_after = "90d"

The whole URL can be a reference too: ``url_env`` or ``url_command``. Nothing heavy is imported at the
top, since every command may load this.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import msgspec

from everthread._url_options import engine_options
from everthread.cli.durations import duration_of
from everthread.cli.keyrings import check_keyring
from everthread.errors import ConfigurationError
from everthread.model import Retention, check_identifier
from everthread.urls import check_url, mask_url, parts_of, scheme_of

COMMAND_SECONDS = 60.0
"""The limit for a command that prints a secret: it may ask the user to unlock something."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class NamedStore(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How to reach one store.

    Attributes:
        url: The URL without a password.
        url_env: The environment variable that holds the whole URL, instead of ``url``.
        url_command: The command that prints the whole URL, instead of ``url``.
        password_env: The environment variable that holds the password.
        password_command: The command that prints the password. It runs without a shell.
        tenant: The tenant to operate on without ``--tenant``.
        keyring: ``file:PATH`` or ``env:NAME`` of the keys of an encrypted store.
        max_messages: The newest messages that a thread without its own retention keeps.
        expire_after: The time without activity after which such a thread is deleted: ``90d``.
    """

    url: str = ""
    url_env: str = ""
    url_command: tuple[str, ...] = ()
    password_env: str = ""
    password_command: tuple[str, ...] = ()
    tenant: str = ""
    keyring: str = ""
    max_messages: int | None = None
    expire_after: str = ""

    @property
    def retention(self) -> Retention:
        """The limits as a retention; `ConfigurationError` if one is wrong."""
        try:
            expire_after = duration_of(self.expire_after) if self.expire_after else None
        except ValueError as error:
            raise ConfigurationError(f"expire_after: {error}") from None
        return Retention(self.max_messages, expire_after)

    def check(self) -> None:
        """Refuse contradictory settings, and secrets in plain text.

        Raises:
            ConfigurationError: Without the secret.
        """
        if sum(map(bool, (self.url, self.url_env, self.url_command))) != 1:
            raise ConfigurationError("A named store needs exactly one of url, url_env and url_command.")
        if self.password_env and self.password_command:
            raise ConfigurationError("A named store has one of password_env and password_command, not both.")
        check_identifier(self.tenant, "tenant", may_be_empty=True)
        retention = self.retention
        if self.keyring:
            check_keyring(self.keyring)
        if self.url:
            scheme_of(self.url)
            engine_options(with_retention(self.url, retention), {})
            if mask_url(self.url) != self.url:
                raise ConfigurationError(
                    "The URL contains a password or key, and the configuration stores none: remove it and give "
                    "--password-env or --password-command, or --url-env for the whole URL."
                )

    def full_url(self, environ: Mapping[str, str]) -> str:
        """Fetch the secret, and return the URL with it and with the retention as options.

        Raises:
            ConfigurationError: The variable is not set, or the command fails.
        """
        url = self.url or _secret("url", self.url_env, self.url_command, environ)
        if self.password_env or self.password_command:
            url = _with_password(url, _secret("password", self.password_env, self.password_command, environ))
        return with_retention(url, self.retention)


class NamedStores(msgspec.Struct, forbid_unknown_fields=True):
    """The content of the configuration file."""

    stores: dict[str, NamedStore] = {}

    def get(self, name: str) -> NamedStore:
        """Return the store of that name.

        Raises:
            ConfigurationError: There is none. The message lists the names.
        """
        if name in self.stores:
            return self.stores[name]
        known = ", ".join(f"@{known}" for known in sorted(self.stores)) or "none yet: see everthread config add --help"
        raise ConfigurationError(f"There is no store @{name} in the configuration. Its stores: {known}.")


def config_path() -> Path:
    """Return ``EVERTHREAD_CONFIG``, or the path of ``config.toml`` in the user's configuration folder."""
    given = os.environ.get("EVERTHREAD_CONFIG")
    if given:
        return Path(given)
    from everthread._extras import import_extra

    folder: Path = import_extra("platformdirs", "cli").user_config_path("everthread", appauthor=False)
    return folder / "config.toml"


def load(path: Path | None = None) -> NamedStores:
    """Read the configuration; without a file it is empty.

    Raises:
        ConfigurationError: The file cannot be read, or its content is wrong.
    """
    path = path or config_path()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return NamedStores()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"Cannot read the configuration {path}: {type(error).__name__}.") from None
    import tomllib

    try:
        found = msgspec.convert(tomllib.loads(text), NamedStores)
        for store in found.stores.values():
            store.check()
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, ConfigurationError) as error:
        raise ConfigurationError(f"The configuration {path} is wrong: {error}") from None
    return found


def with_retention(url: str, retention: Retention) -> str:
    """Return the URL with a retention as options that every engine knows."""
    expire = retention.expire_after
    limits = {
        "max_messages": retention.max_messages,
        "expire_after": None if expire is None else f"{expire.total_seconds():.0f}",
    }
    options = "&".join(f"{name}={value}" for name, value in limits.items() if value is not None)
    return f"{url}{'&' if '?' in url else '?'}{options}" if options else url


def check_name(name: str) -> str:
    """Return the name if it can follow ``@`` and needs no quotes in TOML; else raise `ConfigurationError`."""
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            "A store's name consists of letters, digits, - and _, and begins with a letter or digit."
        )
    return name


def save(found: NamedStores, path: Path | None = None) -> None:
    """Write the configuration for its owner alone, in one step: the file is the old or the new one at any moment."""
    path = path or config_path()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".config-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(as_toml(found))
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def as_toml(found: NamedStores) -> str:
    """Return the configuration as text of the file."""
    # JSON's strings and arrays of strings are TOML's too, once DEL is escaped.
    lines = ["# Named stores of everthread. This file refers to secrets and must not contain any.\n"]
    for name, store in sorted(found.stores.items()):
        values: dict[str, object] = msgspec.to_builtins(store)
        fields = (f"{field} = {json.dumps(value, ensure_ascii=False)}\n" for field, value in values.items())
        lines.append(f"\n[stores.{name}]\n" + "".join(fields).replace("\x7f", "\\u007f"))
    return "".join(lines)


def _secret(what: str, variable: str, command: tuple[str, ...], environ: Mapping[str, str]) -> str:
    if variable:
        value = environ.get(variable)
        if not value:
            raise ConfigurationError(f"The environment variable {variable}, which holds the {what}, is not set.")
        return value
    try:
        run = subprocess.run(  # noqa: S603 - the user's own command, without a shell
            command, stdout=subprocess.PIPE, text=True, check=True, timeout=COMMAND_SECONDS
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"The command {command[0]!r}, which prints the {what}, failed ({type(error).__name__})."
        ) from None
    value = run.stdout.rstrip("\r\n")
    if not value:
        raise ConfigurationError(f"The command {command[0]!r}, which prints the {what}, printed nothing.")
    return value


def _with_password(url: str, password: str) -> str:
    parts = parts_of(check_url(url))
    if not (parts.hosts or parts.user) or parts.password is not None:
        raise ConfigurationError("A password can be inserted only into a URL that names a host and has no password.")
    place = parts.hosts + parts.path + parts.query
    return f"{parts.scheme}://{parts.user or ''}:{quote(password, safe='')}@{place}"

"""The user's named stores: a TOML file in which secrets stand by reference only.

    [stores.prod]
    url = "rediss://app@cache.example:6380/0"
    password_env = "PROD_REDIS_PASSWORD"      # or password_command = ["pass", "show", "redis"]
    tenant = "acme"
    max_messages = 500                        # what is kept: see docs/operating.md
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
from urllib.parse import quote, urlsplit

import msgspec

from everthread.cli.durations import duration_of
from everthread.cli.encryption import check_keyring
from everthread.errors import ConfigurationError
from everthread.model import Retention, check_identifier
from everthread.settings import engine_options, mask_url, scheme_of

COMMAND_SECONDS = 60.0
"""How long a command that prints a secret may take: it may ask the user to unlock something."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class NamedStore(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How one store is reached.

    Attributes:
        url: Without a password.
        url_env: The environment variable that holds the whole URL, instead of ``url``.
        url_command: The command that prints the whole URL, instead of ``url``.
        password_env: The environment variable that holds the URL's password.
        password_command: The command that prints it. It is run without a shell.
        tenant: Whose threads, unless a command says otherwise.
        keyring: Where the keys of an encrypted store are: ``file:PATH`` or ``env:NAME``.
        max_messages: How many of its newest messages a thread keeps that has no retention of its own.
        expire_after: After how long without activity such a thread is forgotten: ``90d``.
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
        """What is kept.

        Raises:
            ConfigurationError: A limit is wrong.
        """
        try:
            expire_after = duration_of(self.expire_after) if self.expire_after else None
        except ValueError as error:
            raise ConfigurationError(f"expire_after: {error}") from None
        return Retention(self.max_messages, expire_after)

    def check(self) -> None:
        """Refuses what cannot be meant, and secrets in plain text.

        Raises:
            ConfigurationError: Says what is wrong, without the secret.
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
                    "The URL holds a password or key, and the configuration keeps none: leave it out and give "
                    "--password-env or --password-command, or --url-env for the whole URL."
                )

    def full_url(self, environ: Mapping[str, str]) -> str:
        """The URL with its secret, fetched now, and with the retention as its options.

        Raises:
            ConfigurationError: The variable is not set, or the command fails.
        """
        url = self.url or _secret("url", self.url_env, self.url_command, environ)
        if self.password_env or self.password_command:
            url = _with_password(url, _secret("password", self.password_env, self.password_command, environ))
        return with_retention(url, self.retention)


class NamedStores(msgspec.Struct, forbid_unknown_fields=True):
    """What the configuration file says."""

    stores: dict[str, NamedStore] = {}

    def get(self, name: str) -> NamedStore:
        """The store of that name.

        Raises:
            ConfigurationError: There is none; says which there are.
        """
        if name in self.stores:
            return self.stores[name]
        known = ", ".join(f"@{known}" for known in sorted(self.stores)) or "none yet: see everthread config add --help"
        raise ConfigurationError(f"There is no store @{name} in the configuration; there are: {known}.")


def config_path() -> Path:
    """Where the configuration is: ``EVERTHREAD_CONFIG``, or ``config.toml`` in the user's configuration folder."""
    given = os.environ.get("EVERTHREAD_CONFIG")
    if given:
        return Path(given)
    from everthread._extras import import_extra

    folder: Path = import_extra("platformdirs", "cli").user_config_path("everthread", appauthor=False)
    return folder / "config.toml"


def load(path: Path | None = None) -> NamedStores:
    """The configuration; empty if there is no file.

    Raises:
        ConfigurationError: The file is not as it should be; says where.
    """
    path = path or config_path()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return NamedStores()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"The configuration {path} cannot be read: {type(error).__name__}.") from None
    import tomllib

    try:
        found = msgspec.convert(tomllib.loads(text), NamedStores)
        for store in found.stores.values():
            store.check()
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, ConfigurationError) as error:
        raise ConfigurationError(f"The configuration {path} is wrong: {error}") from None
    return found


def with_retention(url: str, retention: Retention) -> str:
    """The URL with the limits of a retention as options that every engine knows."""
    expire = retention.expire_after
    limits = {
        "max_messages": retention.max_messages,
        "expire_after": None if expire is None else f"{expire.total_seconds():.0f}",
    }
    options = "&".join(f"{name}={value}" for name, value in limits.items() if value is not None)
    return f"{url}{'&' if '?' in url else '?'}{options}" if options else url


def check_name(name: str) -> str:
    """A name that can follow ``@`` and stand in TOML without quotes.

    Raises:
        ConfigurationError: It cannot.
    """
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            "A store's name consists of letters, digits, - and _, and begins with none of the two."
        )
    return name


def save(found: NamedStores, path: Path | None = None) -> None:
    """Writes the configuration, readable by its owner alone; the old or the new one is there at any moment."""
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
    """The configuration as the file's text."""
    # JSON's strings and arrays of strings are TOML's too, once DEL is escaped.
    lines = ["# Named stores of everthread. Secrets stand here by reference only.\n"]
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
    scheme, _, rest = url.partition("://")
    parts = urlsplit(url)
    if not parts.netloc or parts.password is not None:
        raise ConfigurationError("A password can only be put into a URL that names a host and has no password yet.")
    user, at, _ = parts.netloc.rpartition("@")
    place = rest[len(user) + len(at) :]
    return f"{scheme}://{user}:{quote(password, safe='')}@{place}"

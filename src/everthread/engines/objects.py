"""Threads in object storage: S3, Azure Blob, Google Cloud Storage, or a directory on a disk.

URLs: ``s3://bucket/prefix``, ``az://container/prefix``, ``gs://bucket/prefix``, ``file:///directory``. Credentials come
from the environment in each cloud's usual ways. Needs ``pip install 'everthread[objects]'``, a directory needs nothing.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any, Self
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from everthread._extras import import_extra
from everthread.engines._directory import DirectoryStorage
from everthread.engines._segments.diagnosis import Described, DiagnosedEngine
from everthread.engines._segments.reconciling import ReconciledEngine
from everthread.engines._segments.storage import Browsable, Found, Listed, Storage
from everthread.engines._segments.threads import ThreadedStorage
from everthread.errors import ConfigurationError, LimitExceededError, StoreUnavailableError
from everthread.model import Fact
from everthread.settings import engine_options, flag, scheme_of

MAX_OBJECT_BYTES = 256 * 1024 * 1024
"""Far below what the services take in one request, and what a process should hold in memory for one turn."""

_CHUNK = 1000
_REFUSED = {"PermissionDeniedError", "UnauthenticatedError"}
_STATUS = re.compile(r"status code: (\d{3})")


class ObjectStore(DiagnosedEngine, ReconciledEngine):
    """A store in a bucket, a container or a directory.

    Args:
        storage: Where the objects are.
    """

    @property
    def storage(self) -> Storage:
        """Where the objects are."""
        return self._storage

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        """The store that a URL names.

        Options of its own, in the URL or as keyword arguments: ``cache_bytes``, ``retry_seconds`` (10), ``timeout``
        (seconds for a request, 30), ``allow_http``. What else stands in the URL goes to obstore's configuration of
        the service, e.g. ``region``, ``endpoint``, ``account_name``. ``credential_provider`` (keyword only) is one of
        obstore's.
        """
        own = {"cache_bytes": int, "retry_seconds": float, "timeout": float, "allow_http": flag}
        rest, settings = engine_options(url, options, own)
        connection = {
            name: settings.pop(name)
            for name in ("retry_seconds", "timeout", "allow_http", "credential_provider")
            if name in settings
        }
        return cls(_storage(rest, connection), **settings)


class ServiceStorage(ThreadedStorage, Browsable, Described):
    """Objects in a service, through obstore's blocking calls.

    Its asynchronous ones leave threads behind that touch Python objects after the last answer; a process that ends
    then is aborted (https://github.com/PyO3/pyo3-async-runtimes/issues/40).

    Args:
        store: An obstore store.
        location: Where that is, without secrets.
    """

    threads = 32
    max_object_bytes = MAX_OBJECT_BYTES

    def __init__(self, store: Any, location: str) -> None:
        self._obstore = import_extra("obstore", "objects")
        self._errors = import_extra("obstore.exceptions", "objects")
        self._store = store
        self._location = location

    @property
    def location(self) -> str:
        return self._location

    def prepare(self) -> None:
        # Finds out now, not at the first append, that the bucket is missing or the credentials are wrong.
        next(iter(self._obstore.list(self._store, "r/")), None)

    async def create(self, folder: str, name: str, data: bytes) -> bool:
        return await self.run(lambda: self._put(f"{folder}/{name}", data, "create"))

    async def put(self, folder: str, name: str, data: bytes) -> None:
        await self.run(lambda: self._put(f"{folder}/{name}", data, "overwrite"))

    async def replace(self, folder: str, name: str, data: bytes, tag: str) -> bool:
        return await self.run(lambda: self._put(f"{folder}/{name}", data, {"e_tag": tag}))

    async def get(self, folder: str, name: str) -> Found | None:
        return await self.run(lambda: self._get(f"{folder}/{name}"))

    async def delete(self, folder: str, names: Collection[str]) -> None:
        paths = [f"{folder}/{name}" for name in names]
        await self.run(lambda: self._delete(paths))

    async def list(self, folder: str, *, after: str = "") -> AsyncIterator[Sequence[Listed]]:
        offset = f"{folder}/{after}" if after else None
        chunks = iter(self._obstore.list(self._store, f"{folder}/", offset=offset, chunk_size=_CHUNK))
        while (chunk := await self.run(lambda: next(chunks, None))) is not None:
            # Azure's emulator and OneLake do not know offsets and give all names.
            listed = [each for each in map(_listed, chunk) if each.name > after]
            if listed:
                yield listed

    async def folders(self, folder: str) -> AsyncIterator[Sequence[str]]:
        # Not by delimiter: that gives all of them at once, however many there are.
        chunks = iter(self._obstore.list(self._store, f"{folder}/", chunk_size=_CHUNK))
        last = ""
        while (chunk := await self.run(lambda: next(chunks, None))) is not None:
            names = dict.fromkeys(item["path"].split("/")[-2] for item in chunk)
            names.pop(last, None)
            if names:
                yield list(names)
                *_, last = names

    async def describe(self) -> tuple[Fact, ...]:
        name, endpoint = _SERVICES[urlsplit(self._location).scheme], str(dict(self._store.config).get("endpoint", ""))
        facts = [Fact("server", f"{name} at {urlsplit(endpoint).netloc}" if endpoint else name)]
        if not endpoint.startswith("http://"):
            return (*facts, Fact("encryption", "TLS"))
        if urlsplit(endpoint).hostname in {"127.0.0.1", "localhost", "::1"}:
            return (*facts, Fact("encryption", "none, within this machine"))
        return (*facts, Fact("encryption", "none", "warning", "Messages cross the network as they are: use https://."))

    async def describe_object(self, folder: str, name: str) -> tuple[Fact, ...]:
        found = await self.run(lambda: self._obstore.head(self._store, f"{folder}/{name}"))
        if self._location.startswith("gs:"):
            return ()  # there every object has a generation, whether or not older ones are kept
        if not found["version"]:
            return (Fact("versions", "no older ones are kept; whether soft delete is on cannot be asked"),)
        return (Fact("versions", "older ones are kept", "warning", _VERSIONED),)

    def _put(self, path: str, data: bytes, mode: object) -> bool:
        try:
            # One request whatever the size: a part of an upload must never be what a condition applies to.
            self._obstore.put(self._store, path, data, mode=mode, use_multipart=False)
        except (self._errors.AlreadyExistsError, self._errors.PreconditionError):
            return False
        except FileNotFoundError:
            if isinstance(mode, dict):
                return False
            raise
        return True

    def _get(self, path: str) -> Found | None:
        try:
            found = self._obstore.get(self._store, path)
            return Found(bytes(found.bytes()), found.meta["e_tag"] or "")
        except FileNotFoundError:
            return None

    def _delete(self, paths: Collection[str]) -> None:
        try:
            self._obstore.delete(self._store, paths)
        except FileNotFoundError:
            # Azure refuses to delete what is not there, and says nothing of the others.
            for path in paths:
                with contextlib.suppress(FileNotFoundError):
                    self._obstore.delete(self._store, path)

    def typed(self, error: Exception) -> Exception:
        """An error of ours: obstore's own quote requests, which may hold signatures."""
        if isinstance(error, FileNotFoundError):
            return self._missing()
        if not isinstance(error, self._errors.BaseError):
            return error
        found = _STATUS.search(str(error))
        status = int(found[1]) if found else 0
        if type(error).__name__ in _REFUSED or status in {401, 403}:
            return ConfigurationError(f"{self._location} refuses these credentials: check them and their rights.")
        if status == 404:
            return self._missing()
        if status == 413:
            return LimitExceededError(f"{self._location} does not take an object of this size.", 0, MAX_OBJECT_BYTES)
        why = f"answers with status {status}" if status else "cannot be reached"
        return StoreUnavailableError(f"{self._location} {why}: check the network and the address, and try again.")

    def _missing(self) -> ConfigurationError:
        return ConfigurationError(f"{self._location} does not exist: create it first.")


def _listed(item: Mapping[str, Any]) -> Listed:
    return Listed(item["path"].rpartition("/")[2], item["last_modified"].timestamp(), item["size"])


_SERVICES = {"s3": "S3", "az": "Azure Blob Storage", "gs": "Google Cloud Storage"}
_VERSIONED = "What is erased stays in the service as an older version: set a lifecycle rule that removes them soon."
_MAKERS = {"s3": "S3Store", "az": "AzureStore", "gs": "GCSStore"}


def _storage(url: str, connection: dict[str, Any]) -> Storage:
    scheme = scheme_of(url)
    # No part of a URL is lost in silence: a "#" belongs to the path here.
    parts = urlsplit(url.replace("#", "%23"))
    if scheme == "file":
        return _directory(parts, connection)
    if not parts.netloc or "@" in parts.netloc:
        raise ConfigurationError(f"Name the bucket or container: {scheme}://name/prefix, without credentials.")
    prefix = unquote(parts.path).strip("/")
    location = f"{scheme}://{parts.netloc}" + (f"/{prefix}" if prefix else "")
    config: dict[str, Any] = dict(parse_qsl(parts.query, keep_blank_values=True))
    if scheme == "az":
        config = {**_azure_connection(), **config}
    make = getattr(import_extra("obstore.store", "objects"), _MAKERS[scheme])
    try:
        store = make(parts.netloc, prefix=prefix or None, config=config, **_client(config, connection))
    except Exception as error:
        # The text may quote a value; the names of the options are harmless.
        given = ", ".join(sorted(config)) or "none given"
        raise ConfigurationError(
            f"{location}: the options ({given}) or the environment are refused: {type(error).__name__}."
        ) from None
    return ServiceStorage(store, location)


def _directory(parts: SplitResult, connection: Mapping[str, Any]) -> Storage:
    options = dict(parse_qsl(parts.query))
    sync = options.pop("sync", "true")
    if parts.netloc not in {"", "localhost"} or parts.path in {"", "/"}:
        raise ConfigurationError(
            "Name a directory by its path from the root: file:///var/lib/threads or file:///~/threads."
        )
    if options or connection:
        raise ConfigurationError(f"A directory has no option {', '.join([*options, *connection])}.")
    path = unquote(parts.path)
    try:
        return DirectoryStorage(path[1:] if path.startswith("/~/") else path, sync=flag(sync))
    except ValueError as error:
        raise ConfigurationError(f"The option sync in the URL has a wrong value: {error}") from None


def _client(config: dict[str, Any], connection: Mapping[str, Any]) -> dict[str, Any]:
    """What obstore wants to know of the connection."""
    endpoint = str(config.get("endpoint", ""))
    client: dict[str, Any] = {"timeout": timedelta(seconds=connection.get("timeout", 30))}
    if connection.get("allow_http", endpoint.startswith(("http://127.0.0.1", "http://localhost"))):
        client["allow_http"] = True
    bound = timedelta(seconds=connection.get("retry_seconds", 10))
    retries = {"max_retries": 8, "retry_timeout": bound, "backoff": {"max_backoff": timedelta(seconds=2)}}
    settings = {"client_options": client, "retry_config": retries}
    if "credential_provider" in connection:
        settings["credential_provider"] = connection["credential_provider"]
    return settings


def _azure_connection() -> dict[str, Any]:
    """The account that ``AZURE_STORAGE_CONNECTION_STRING`` names, which obstore does not read."""
    text = os.environ.get("AZURE_STORAGE_CONNECTION_STRING", "")
    fields = {name.strip().lower(): value for name, _, value in (part.partition("=") for part in text.split(";"))}
    names = {
        "accountname": "account_name",
        "accountkey": "account_key",
        "sharedaccesssignature": "sas_key",
        "blobendpoint": "endpoint",
    }
    return {option: fields[name] for name, option in names.items() if fields.get(name)}

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
from urllib.parse import SplitResult, parse_qsl, unquote

from everthread._extras import import_extra
from everthread._url_options import engine_options, flag
from everthread.engines._segments.directory import DirectoryStorage
from everthread.engines._segments.recency import Listing
from everthread.engines._segments.storage import Found, Listed, Storage, ThreadedStorage
from everthread.engines._segments.store import SegmentStore
from everthread.engines._tenants import ListingTenants
from everthread.errors import ConfigurationError, LimitExceededError, StoreUnavailableError
from everthread.model import HealthCheck
from everthread.urls import is_secret, scheme_of, shown_names, split_url

MAX_OBJECT_BYTES = 256 * 1024 * 1024
"""Far below the limits of the services: a process must hold a whole turn in memory."""

_CHUNK = 1000
_REFUSED = {"PermissionDeniedError", "UnauthenticatedError"}
_METADATA_SERVERS = ("169.254.169.254", "169.254.170.2", "metadata.google.internal")
"""obstore asks these for credentials if none are given."""

_STATUS = re.compile(r"status code: (\d{3})")


class ObjectStore(SegmentStore, ListingTenants):
    """A store in a bucket, a container or a directory."""

    @property
    def storage(self) -> Storage:
        return self._storage

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        """Return the store for a URL.

        Options in the URL or as keyword arguments: ``cache_bytes``, ``retry_seconds`` (10), ``timeout`` (seconds for a
        request, 30), ``allow_http``. obstore's configuration of the service gets all other options of the URL, such as
        ``region``, ``endpoint``, ``account_name``. ``credential_provider`` (keyword only) is one of obstore's.
        """
        own = {"cache_bytes": int, "retry_seconds": float, "timeout": float, "allow_http": flag}
        rest, settings = engine_options(url, options, own)
        connection = {
            name: settings.pop(name)
            for name in ("retry_seconds", "timeout", "allow_http", "credential_provider")
            if name in settings
        }
        return cls(_storage(rest, connection), **settings)

    async def _list_tenants(self, after: str, limit: int) -> list[str]:
        folders = {name async for names in self._storage.folders("r") for name in names}
        found = set[str]()
        for folder in folders:
            tenant = await self._tenant_in(folder)
            if tenant is not None and tenant > after:
                found.add(tenant)
        return sorted(found)

    async def _tenant_in(self, folder: str) -> str | None:
        """Return the tenant of a folder of markers, if it has a thread: the name of the folder may be a digest."""
        async for prefixes in Listing(self._threads, folder, 0, None).prefixes():
            for prefix in prefixes:
                state = (await self._threads.current(prefix)).state
                if state is not None and not state.gone:
                    return state.tenant
        return None


class ServiceStorage(ThreadedStorage):
    """Objects in a service, through obstore's blocking calls.

    Its asynchronous calls leave threads behind that use Python objects after the last answer, which aborts a process
    that ends then (https://github.com/PyO3/pyo3-async-runtimes/issues/40).

    Args:
        store: An obstore store.
        location: Its URL, without secrets.
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

    def prepare(self, *, read_only: bool) -> None:
        # A missing bucket or wrong credentials are an error now, not at the first append.
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
            # Azure's emulator and OneLake ignore offsets.
            listed = [each for each in map(_listed, chunk) if each.name > after]
            if listed:
                yield listed

    async def folders(self, folder: str) -> AsyncIterator[Sequence[str]]:
        # Not by delimiter: that returns all folders in one answer.
        chunks = iter(self._obstore.list(self._store, f"{folder}/", chunk_size=_CHUNK))
        last = ""
        while (chunk := await self.run(lambda: next(chunks, None))) is not None:
            names = dict.fromkeys(item["path"].split("/")[-2] for item in chunk)
            names.pop(last, None)
            if names:
                yield list(names)
                *_, last = names

    async def describe(self) -> tuple[HealthCheck, ...]:
        name, endpoint = _SERVICES[split_url(self._location).scheme], str(dict(self._store.config).get("endpoint", ""))
        url = split_url(endpoint)
        server = HealthCheck("server", f"{name} at {url.netloc.rpartition('@')[2]}" if endpoint else name)
        if url.scheme != "http":
            return (server, HealthCheck("encryption", "TLS"))
        if url.hostname in {"127.0.0.1", "localhost", "::1"}:
            return (server, HealthCheck("encryption", "none, within this machine"))
        advice = "Messages cross the network unencrypted: use https://."
        return (server, HealthCheck("encryption", "none", "warning", advice))

    async def describe_object(self, folder: str, name: str) -> tuple[HealthCheck, ...]:
        found = await self.run(lambda: self._obstore.head(self._store, f"{folder}/{name}"))
        if self._location.startswith("gs:"):
            return ()  # every object there has a generation, even if older ones are not kept
        if not found["version"]:
            return (HealthCheck("versions", "no older ones are kept; whether soft delete is on cannot be asked"),)
        return (HealthCheck("versions", "older ones are kept", "warning", _VERSIONED),)

    def _put(self, path: str, data: bytes, mode: object) -> bool:
        try:
            # One request for any size: a condition must never apply to a part of an upload.
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
            # Azure refuses to delete a missing object, and does not report the others.
            for path in paths:
                with contextlib.suppress(FileNotFoundError):
                    self._obstore.delete(self._store, path)

    def typed(self, error: Exception) -> Exception:
        """Translate an error of obstore. Its text may quote a request with its signature."""
        if isinstance(error, FileNotFoundError):
            return self._missing()
        if not isinstance(error, self._errors.BaseError):
            return error
        found = _STATUS.search(str(error))
        status = int(found[1]) if found else 0
        if any(server in str(error) for server in _METADATA_SERVERS):
            return ConfigurationError(
                f"{self._location} has no credentials: the environment and the URL give none, and neither does a "
                "metadata service of this machine. Set them, for example AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            )
        if type(error).__name__ in _REFUSED or status in {401, 403}:
            return ConfigurationError(f"{self._location} refuses these credentials: check them and their rights.")
        if status == 404:
            return self._missing()
        if status == 413:
            return LimitExceededError(f"{self._location} refuses an object of this size.", 0, MAX_OBJECT_BYTES)
        why = f"answers with status {status}" if status else "cannot be reached"
        return StoreUnavailableError(f"{self._location} {why}: check the network and the address, and try again.")

    def _missing(self) -> ConfigurationError:
        return ConfigurationError(f"{self._location} does not exist: create it first.")


def _listed(item: Mapping[str, Any]) -> Listed:
    return Listed(item["path"].rpartition("/")[2], item["last_modified"].timestamp(), item["size"])


_SERVICES = {"s3": "S3", "az": "Azure Blob Storage", "gs": "Google Cloud Storage"}
_VERSIONED = "Erased content stays in the service as older versions: set a lifecycle rule that removes them soon."
_MAKERS = {"s3": "S3Store", "az": "AzureStore", "gs": "GCSStore"}


def _storage(url: str, connection: dict[str, Any]) -> Storage:
    scheme = scheme_of(url)
    # A "#" belongs to the path: no part of a URL is ignored.
    parts = split_url(url.replace("#", "%23"))
    if scheme == "file":
        return _directory(parts, connection)
    if not parts.netloc or "@" in parts.netloc:
        raise ConfigurationError(f"Name the bucket or container: {scheme}://name/prefix, without credentials.")
    prefix = unquote(parts.path).strip("/")
    location = f"{scheme}://{parts.netloc}" + (f"/{prefix}" if prefix else "")
    config: dict[str, Any] = dict(parse_qsl(parts.query, keep_blank_values=True))
    _check_addresses(config)
    if scheme == "az":
        config = {**_azure_connection(), **config}
    make = getattr(import_extra("obstore.store", "objects"), _MAKERS[scheme])
    try:
        store = make(parts.netloc, prefix=prefix or None, config=config, **_client(config, connection))
    except Exception as error:
        # The text may quote a value; the names of options are no secrets.
        given = shown_names(parts.query) or "none shown"
        raise ConfigurationError(
            f"obstore refuses the options ({given}) or the environment of {location}: {type(error).__name__}."
        ) from None
    return ServiceStorage(store, location)


def _check_addresses(config: Mapping[str, str]) -> None:
    for name, value in config.items():
        if "://" in value and "@" in value and not is_secret(name):
            raise ConfigurationError("An endpoint or another address in this URL must not hold credentials.")


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
    """Return obstore's settings of the connection."""
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
    """Read ``AZURE_STORAGE_CONNECTION_STRING``, which obstore ignores."""
    text = os.environ.get("AZURE_STORAGE_CONNECTION_STRING", "")
    fields = {name.strip().lower(): value for name, _, value in (part.partition("=") for part in text.split(";"))}
    names = {
        "accountname": "account_name",
        "accountkey": "account_key",
        "sharedaccesssignature": "sas_key",
        "blobendpoint": "endpoint",
    }
    return {option: fields[name] for name, option in names.items() if fields.get(name)}

"""The model that `chat` and `summarize` use: Azure OpenAI, OpenAI or a compatible server, or our offline one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from everthread.errors import ConfigurationError
from everthread.messages.codec import shorten
from everthread.urls import mask_url

if TYPE_CHECKING:
    from agent_framework import BaseChatClient
    from agent_framework_openai import OpenAIChatCompletionClient

OFFLINE = "offline"
DEFAULT_OPENAI_MODEL = "gpt-4o-mini"
LONGEST_REASON = 400
SHORTEST_SECRET = 6
"""Shorter keys are placeholders for local servers: replacing them would only spoil messages."""


_SIGNING_IN = ("AuthenticationError", "CredentialUnavailableError", "PermissionDeniedError")
_UNREACHABLE = ("APIConnectionError", "APITimeoutError", "ConnectError", "ConnectTimeout", "ServiceRequestError")


class Settings(NamedTuple):
    """The settings that name a model's key, its name and its address."""

    key: str
    name: str
    address: str


OPENAI_SETTINGS = Settings("OPENAI_API_KEY", "--model or OPENAI_MODEL", "OPENAI_BASE_URL")
AZURE_SETTINGS = Settings("AOAI_API_KEY, or sign in with az login", "AOAI_DEPLOYMENT", "AOAI_ENDPOINT")


class Model(NamedTuple):
    """A chat client, its description, the function that closes it, its secrets, and its settings."""

    client: BaseChatClient[Any]
    description: str
    close: Callable[[], Awaitable[None]]
    secrets: tuple[str, ...] = ()
    settings: Settings = OPENAI_SETTINGS

    def without_secrets(self, text: str) -> str:
        """Return the text with the model's keys replaced."""
        for secret in self.secrets:
            text = text.replace(secret, "***") if len(secret) >= SHORTEST_SECRET else text
        return text

    def failure(self, error: BaseException) -> str:
        """Return the failure and its remedy, without the model's keys."""
        # Some services answer with a whole page.
        why = shorten(self.without_secrets(_explain(error, self.settings)), LONGEST_REASON)
        return f"The model did not answer. {why}"


def choose_model(option: str | None, environ: Mapping[str, str], *, pace: float = 0.0) -> Model:
    """Return the model that ``--model`` and the environment name.

    Args:
        option: The value of ``--model``.
        environ: The environment; an empty value counts as unset.
        pace: Seconds between two words of the offline model.

    Raises:
        ConfigurationError: Half of a pair is set, or ``option`` names a model without a server.
    """
    endpoint, deployment = environ.get("AOAI_ENDPOINT"), environ.get("AOAI_DEPLOYMENT")
    if option == OFFLINE:
        return _offline(pace)
    if endpoint and (deployment or option):
        return _azure(endpoint, option or deployment or "", environ)
    if environ.get("OPENAI_API_KEY") or environ.get("OPENAI_BASE_URL"):
        return _openai(option, environ)
    if endpoint or deployment:
        missing = "AOAI_DEPLOYMENT" if endpoint else "AOAI_ENDPOINT"
        raise ConfigurationError(f"Azure OpenAI needs AOAI_ENDPOINT and AOAI_DEPLOYMENT; {missing} is not set.")
    if option:
        raise ConfigurationError(
            f"No server is set for the model {option!r}: set OPENAI_API_KEY or OPENAI_BASE_URL, or AOAI_ENDPOINT; "
            "or use --model offline."
        )
    return _offline(pace)


def summarizing_model(option: str | None, environ: Mapping[str, str]) -> Model:
    """Return the model as `choose_model` does, or raise `ConfigurationError` for the offline one."""
    from everthread.cli.offline_model import OfflineModel

    model = choose_model(option, environ)
    if isinstance(model.client, OfflineModel):
        raise ConfigurationError(
            "The offline model cannot write summaries: set OPENAI_API_KEY or OPENAI_BASE_URL, or AOAI_ENDPOINT and "
            "AOAI_DEPLOYMENT."
        )
    return model


def _offline(pace: float) -> Model:
    from everthread.cli.offline_model import OfflineModel

    async def nothing() -> None:
        pass

    return Model(OfflineModel(pace=pace), "offline model (no key is set; it only quotes this conversation)", nothing)


def _openai(option: str | None, environ: Mapping[str, str]) -> Model:
    from agent_framework_openai import OpenAIChatCompletionClient

    name = option or environ.get("OPENAI_MODEL") or DEFAULT_OPENAI_MODEL
    base_url = environ.get("OPENAI_BASE_URL") or None
    # Local servers need no key, but the client does.
    key = environ.get("OPENAI_API_KEY") or "unused"
    client = OpenAIChatCompletionClient(name, api_key=key, base_url=base_url)
    return Model(
        client, f"{name} at {mask_url(base_url)}" if base_url else f"{name} (OpenAI)", _closing(client), (key,)
    )


def _azure(endpoint: str, deployment: str, environ: Mapping[str, str]) -> Model:
    from agent_framework_openai import OpenAIChatCompletionClient

    key = environ.get("AOAI_API_KEY") or None
    client = OpenAIChatCompletionClient(
        deployment,
        azure_endpoint=endpoint,
        api_key=key,
        credential=None if key else _azure_credential(),
        api_version=environ.get("AOAI_API_VERSION") or None,
    )
    return Model(
        client,
        f"{deployment} (Azure OpenAI at {mask_url(endpoint)})",
        _closing(client),
        (key,) if key else (),
        AZURE_SETTINGS,
    )


def _azure_credential() -> Any:
    from azure.identity import AzureCliCredential, ChainedTokenCredential, DefaultAzureCredential

    # The CLI first: on a developer's machine it answers immediately, where the default chain probes for a cloud host.
    return ChainedTokenCredential(AzureCliCredential(), DefaultAzureCredential(exclude_cli_credential=True))


def _closing(client: OpenAIChatCompletionClient[Any]) -> Callable[[], Awaitable[None]]:
    async def close() -> None:
        await client.client.close()

    return close


def _explain(error: BaseException, settings: Settings) -> str:
    """Return one or two sentences about a model's failure."""
    # Libraries of models have exceptions of their own, and frameworks wrap them: so the HTTP status and the class names
    # in the chain of causes decide.
    chain = list(_causes(error))
    status = next((found for each in chain if (found := _status(each)) is not None), None)
    names = {type(each).__name__ for each in chain}
    if status in {401, 403} or any(name.endswith(_SIGNING_IN) for name in names):
        return f"It rejected the key or the sign-in. Check {settings.key}."
    if status == 404:
        return f"There is no such model or deployment at this address. Check {settings.name} and {settings.address}."
    if status == 429:
        return "There are too many requests, or the quota is used up. Wait a moment and try again."
    if status is not None and status >= 500:
        return f"The server failed with status {status}. Try again in a moment."
    if names.intersection(_UNREACHABLE):
        return f"It cannot be reached. Check the network and {settings.address}."
    return str(error) or type(error).__name__


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _status(error: BaseException) -> int | None:
    status = getattr(error, "status_code", None)
    return status if isinstance(status, int) else None

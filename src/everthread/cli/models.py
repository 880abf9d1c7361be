"""Which model the interactive client talks to: Azure OpenAI, OpenAI or a compatible server, or our offline one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from everthread.errors import ConfigurationError
from everthread.settings import mask_url

if TYPE_CHECKING:
    from agent_framework import BaseChatClient
    from agent_framework_openai import OpenAIChatCompletionClient

OFFLINE = "offline"
DEFAULT_OPENAI_MODEL = "gpt-4o-mini"
SHORTEST_SECRET = 6
"""Shorter keys are placeholders for local servers; blotting them out would only spoil messages."""


class Model(NamedTuple):
    """A chat client, what to call it, and how to close it."""

    client: BaseChatClient[Any]
    description: str
    close: Callable[[], Awaitable[None]]
    secrets: tuple[str, ...] = ()

    def without_secrets(self, text: str) -> str:
        """The text with the model's keys replaced."""
        for secret in self.secrets:
            text = text.replace(secret, "***") if len(secret) >= SHORTEST_SECRET else text
        return text

    def failure(self, error: Exception) -> str:
        """What to tell of a failure of the model."""
        return f"The model did not answer. {self.without_secrets(str(error))}"


def choose_model(option: str | None, environ: Mapping[str, str], *, pace: float = 0.0) -> Model:
    """The model that the options and the environment name.

    Args:
        option: ``--model``.
        environ: The process's environment; an empty value counts as unset.
        pace: Seconds between two words of the offline model.

    Raises:
        ConfigurationError: Half of a pair is set, or ``option`` names a model and nothing says where it runs.
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
            f"Where does the model {option!r} run? Set OPENAI_API_KEY or OPENAI_BASE_URL, or AOAI_ENDPOINT; "
            "or use --model offline."
        )
    return _offline(pace)


def summarising_model(option: str | None, environ: Mapping[str, str]) -> Model:
    """As `choose_model`, but one that can write a summary: not the offline one.

    Raises:
        ConfigurationError: No such model is named.
    """
    from everthread.cli.offline_model import OfflineModel

    model = choose_model(option, environ)
    if isinstance(model.client, OfflineModel):
        raise ConfigurationError(
            "A summary needs a model that can write one: set OPENAI_API_KEY or OPENAI_BASE_URL, or AOAI_ENDPOINT and "
            "AOAI_DEPLOYMENT."
        )
    return model


def _offline(pace: float) -> Model:
    from everthread.cli.offline_model import OfflineModel

    async def nothing() -> None:
        pass

    return Model(OfflineModel(pace=pace), "offline model (no key is set; it only recalls what you tell it)", nothing)


def _openai(option: str | None, environ: Mapping[str, str]) -> Model:
    from agent_framework_openai import OpenAIChatCompletionClient

    name = option or environ.get("OPENAI_MODEL") or DEFAULT_OPENAI_MODEL
    base_url = environ.get("OPENAI_BASE_URL") or None
    # Local servers want no key, but the client wants one.
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
        client, f"{deployment} (Azure OpenAI at {mask_url(endpoint)})", _closing(client), (key,) if key else ()
    )


def _azure_credential() -> Any:
    from azure.identity import AzureCliCredential, ChainedTokenCredential, DefaultAzureCredential

    # The CLI first: on a developer's machine it answers at once, where the default chain probes for a cloud host.
    return ChainedTokenCredential(AzureCliCredential(), DefaultAzureCredential(exclude_cli_credential=True))


def _closing(client: OpenAIChatCompletionClient[Any]) -> Callable[[], Awaitable[None]]:
    async def close() -> None:
        await client.client.close()

    return close

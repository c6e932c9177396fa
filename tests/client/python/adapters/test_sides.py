"""Tests the base of every adapter: prompts and options for queries and documents, order, errors, and one client per event loop."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import pickle

import numpy as np
import pytest

longembed = pytest.importorskip("longembed", reason="the Python package is not installed; run tests/run.sh")

from longembed import AsyncClient, Client, InvalidArgument, LongEmbedError, Options, messages, results  # noqa: E402
from longembed.sides import DOCUMENT, QUERY, Connection, Sides  # noqa: E402

QUESTION = "How long is the Nile?"


def vectors(answers) -> np.ndarray:
    return np.stack([answer.float32()[0] for answer in answers])


def test_a_side_without_a_prompt_gets_its_input_type(address, expected):
    sides = Sides(address)
    np.testing.assert_allclose(vectors(sides.embed(QUERY, [QUESTION])), expected([QUESTION], "query: "), atol=1e-6)
    np.testing.assert_allclose(vectors(sides.embed(DOCUMENT, [QUESTION])), expected([QUESTION], "passage: "), atol=1e-6)
    assert np.abs(expected([QUESTION], "query: ") - expected([QUESTION], "passage: ")).max() > 0.01


def test_a_model_without_input_types_gets_no_prompt(address, expected, monkeypatch):
    monkeypatch.setattr(Client, "model", lambda *_: messages.Model(name="e5-small-v2"))
    np.testing.assert_allclose(vectors(Sides(address).embed(QUERY, [QUESTION])), expected([QUESTION], ""), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "prompt"),
    [
        (Options(prompt_name="query"), "query: "),
        (Options(input_type="QUERY"), "query: "),
        (Options(prompt="about rivers: "), "about rivers: "),
        (Options(prompt=""), ""),
        (Options(normalize=True), "passage: "),
    ],
)
def test_a_named_prompt_is_used(address, expected, options, prompt):
    np.testing.assert_allclose(vectors(Sides(address, document=options).embed(DOCUMENT, [QUESTION])), expected([QUESTION], prompt), atol=1e-6)


def test_one_vector_is_named_in_every_call(address, monkeypatch):
    """A model of token vectors would otherwise give those, and the adapters would take the first token's."""
    asked = []

    def noting(method):
        def note(self, items, options=None, **others):
            asked.append(options.output)
            return method(self, items, options, **others)

        return note

    for client in (Client, AsyncClient):
        for name in ("embed", "embed_stream"):
            monkeypatch.setattr(client, name, noting(getattr(client, name)))
    sides = Sides(address)
    sides.embed_one(QUERY, QUESTION)
    sides.embed(DOCUMENT, [QUESTION])

    async def embed():
        await sides.aembed_one(QUERY, QUESTION)
        await sides.aembed(DOCUMENT, [QUESTION])
        await sides.aclose()

    asyncio.run(embed())
    assert len(asked) >= 4 and set(asked) == {"ONE_VECTOR"}


def test_answers_come_in_the_order_of_the_texts(address, expected, long_text):
    texts = [long_text, *(f"{number} is a number" for number in range(40)), long_text[5000:], "short"]
    answers = Sides(address, document=Options(extension={"windows": {}})).embed(DOCUMENT, texts)
    np.testing.assert_allclose(vectors(answers), expected(texts, "passage: ", windows=512), atol=1e-6)


def test_async_and_blocking_agree_in_every_event_loop(address, expected):
    sides = Sides(address)

    async def embed():
        first, *rest = await sides.aembed(DOCUMENT, ["a", "b", "c"])
        await sides.aclose()
        one = await sides.aembed_one(DOCUMENT, "a")  # After aclose, the next call creates another client.
        return vectors([first, *rest]), vectors([one])

    for _ in range(2):
        several, one = asyncio.run(embed())
        np.testing.assert_allclose(several, expected(["a", "b", "c"], "passage: "), atol=1e-6)
        np.testing.assert_allclose(one, several[:1], atol=1e-6)


def test_clients_of_ended_event_loops_are_released(address):
    sides = Sides(address)

    async def embed():
        await sides.aembed(QUERY, [QUESTION])
        return sides.async_client()

    first, second = asyncio.run(embed()), asyncio.run(embed())
    assert first is not second
    referrers = [other for other in gc.get_referrers(first) if isinstance(other, dict) and second in other.values()]
    assert not referrers  # Only the running loop's client and the second one are kept.


def test_with_a_client_async_methods_run_it_on_a_thread_or_use_the_async_client(address, expected):
    async def embed(with_async_client):
        with Client(address) as client:
            async with AsyncClient(address) as async_client:
                if with_async_client:
                    client.close()  # Only the async client can answer.
                sides = Sides(client, async_client=async_client if with_async_client else None)
                return vectors([await sides.aembed_one(QUERY, QUESTION), *await sides.aembed(QUERY, [QUESTION])])

    for with_async_client in (False, True):
        np.testing.assert_allclose(asyncio.run(embed(with_async_client)), expected([QUESTION] * 2, "query: "), atol=1e-6)


def test_a_text_that_fails_is_named(address, long_text):
    with pytest.raises(InvalidArgument, match=r"^text 1: .*512") as caught:
        Sides(address).embed(DOCUMENT, ["short", long_text])
    assert caught.value.reason == "INPUT_TOO_LONG"

    async def embed():
        await Sides(address).aembed(DOCUMENT, ["short", long_text])

    with pytest.raises(InvalidArgument, match=r"^text 1: .*512"):
        asyncio.run(embed())


def test_vectors_of_two_recipes_are_not_mixed(address, monkeypatch):
    """A server may restart with other weights within a stream. No caller of an adapter sees recipes."""
    embedding = results.embedding
    monkeypatch.setattr(results, "embedding", lambda *given: dataclasses.replace(found := embedding(*given), recipe=f"{found.recipe} {found.tokens}"))
    sides = Sides(address)
    assert len(sides.embed(DOCUMENT, ["one", "two"])) == 2
    with pytest.raises(LongEmbedError, match="changed, from recipe .* embed all texts again"):
        sides.embed(DOCUMENT, ["one", "one and two"])
    with pytest.raises(LongEmbedError, match="changed, from recipe"):
        asyncio.run(sides.aembed(DOCUMENT, ["one", "one and two"]))


def test_vectors_of_two_recipes_are_not_mixed_across_calls(address, monkeypatch):
    """An index is built by many calls, between which a server may restart. Queries may have another recipe than documents."""
    embedding = results.embedding
    monkeypatch.setattr(results, "embedding", lambda *given: dataclasses.replace(found := embedding(*given), recipe=f"{found.recipe} {found.tokens}"))
    sides = Sides(address, query=Options(truncate="END"))
    sides.embed(DOCUMENT, ["one"])
    sides.embed_one(QUERY, "one and two")
    asyncio.run(sides.aembed(DOCUMENT, ["two"]))
    calls = [
        lambda: sides.embed(DOCUMENT, ["one and two"]),
        lambda: sides.embed_one(DOCUMENT, "one and two"),
        lambda: asyncio.run(sides.aembed(DOCUMENT, ["one and two"])),
        lambda: asyncio.run(sides.aembed_one(QUERY, "one")),
    ]
    for call in calls:
        with pytest.raises(LongEmbedError, match="changed, from recipe"):
            call()


def test_input_other_than_a_list_of_texts_is_refused(address):
    with pytest.raises(TypeError, match="list of texts"):
        Sides(address).embed(DOCUMENT, "one text")
    with pytest.raises(TypeError, match="list of texts, not one dict"):
        Sides(address).embed(DOCUMENT, {"a key": "one text"})
    with pytest.raises(TypeError, match="text 1 is of type int"):
        Sides(address).embed(DOCUMENT, ["one", 2])


def test_texts_may_come_from_a_generator(address, expected):
    """A generator is empty after the check of its texts."""
    texts = ["one", "two", "three"]
    np.testing.assert_allclose(vectors(Sides(address).embed(DOCUMENT, (text for text in texts))), expected(texts, "passage: "), atol=1e-6)
    answers = asyncio.run(Sides(address).aembed(DOCUMENT, map(str, texts)))
    np.testing.assert_allclose(vectors(answers), expected(texts, "passage: "), atol=1e-6)


@pytest.mark.parametrize("side", ["query", "document"])
def test_several_vectors_a_text_are_refused(side):
    with pytest.raises(ValueError, match=f"{side} options: output is WINDOW_VECTORS"):
        Sides("127.0.0.1:1", **{side: Options(output="WINDOW_VECTORS", extension={"windows": {}})})


def test_pickling_keeps_address_and_options_and_refuses_a_client(address, expected):
    sides = pickle.loads(pickle.dumps(Sides(Connection(address), query=Options(prompt="x: "))))
    np.testing.assert_allclose(vectors(sides.embed(QUERY, [QUESTION])), expected([QUESTION], "x: "), atol=1e-6)
    with Client(address) as client, pytest.raises(TypeError, match="Client cannot be pickled"):
        pickle.dumps(Sides(client))

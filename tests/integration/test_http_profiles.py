"""Tests profiles over HTTP, for clients that can only set the name of a model, and for TEI's clients, which cannot even set that."""

import base64

import numpy as np
from generated_client import generate_tei_client
from http_client import LONG, MODEL, TEXT, close, vectors

ALIAS = f"{MODEL}:long"
HTTP_CONFIG = "profiles: {long: {windows: {tokens: 128}}}\ntei: {profile: long}\n"  # TEI's requests use the profile, too.


def test_openai_takes_the_alias(web, embed, pb):
    expected = embed([LONG, TEXT], extension=pb[0].Extension(profile="long"))
    answer = web.ok("/v1/embeddings", {"input": [LONG, TEXT], "model": ALIAS})
    close([item["embedding"] for item in answer["data"]], vectors(expected))
    assert (answer["model"], answer["recipe"]) == (ALIAS, expected.recipe)
    encoded = web.ok("/v1/embeddings", {"input": LONG, "model": ALIAS, "encoding_format": "base64"})["data"][0]["embedding"]
    close(np.frombuffer(base64.b64decode(encoded), "<f4"), vectors(expected)[0])
    tokens = [token["id"] for token in web.ok("/longembed/v1/tokenize", {"texts": [TEXT]})["results"][0]["tokens"]]
    close(web.ok("/v1/embeddings", {"input": tokens, "model": ALIAS})["data"][0]["embedding"], vectors(expected)[1])


def test_openai_lists_and_gets_the_alias(web):
    listed = {model["id"]: model for model in web.get("/v1/models").json["data"]}
    for path in (f"/v1/models/{ALIAS}", f"/v1/models/{ALIAS.replace(':', '%3A')}"):
        assert web.get(path).json == listed[ALIAS]
    missing = web.get(f"/v1/models/{MODEL}:none")
    assert missing.status == 404 and missing.json["error"]["code"] == "UNKNOWN_PROFILE"
    error = web.refused("/v1/embeddings", {"input": TEXT, "model": f"{MODEL}:none"}, 404)["error"]
    assert (error["code"], error["param"]) == ("UNKNOWN_PROFILE", "model") and "long" in error["message"]


def test_cohere_and_longembed_take_the_alias(web, embed, pb):
    expected = vectors(embed([LONG], extension=pb[0].Extension(profile="long")))
    answer = web.ok("/v2/embed", {"texts": [LONG], "model": ALIAS, "input_type": "clustering", "truncate": "NONE"})
    close(answer["embeddings"]["float"], expected)
    answer = web.ok("/longembed/v1/embed", {"inputs": [{"text": LONG}], "options": {"model": ALIAS}})
    close([answer["results"][0]["embeddings"][0]["values"]], expected)


def test_an_alias_and_an_extension_are_one_too_many(web):
    error = web.refused("/v1/embeddings", {"input": TEXT, "model": ALIAS, "extension": {"windows": {}}}, 400)["error"]
    assert "extension" in error["message"] and "options." not in error["message"]


def test_tei_embeds_under_the_configs_profile(web, http_channel, tmp_path):
    pb, stubs = generate_tei_client(tmp_path)
    tei = stubs.EmbedStub(http_channel)
    for path in ("/embed", "/"):
        for options in ({}, {"prompt_name": "query"}, {"truncate": True}):
            expected = tei.Embed(pb.EmbedRequest(inputs=LONG, **options))
            close(web.ok(path, {"inputs": LONG, **options}), [list(expected.embeddings)])
    tokens = tei.EmbedAll(pb.EmbedAllRequest(inputs=LONG)).token_embeddings
    close(web.ok("/embed_all", {"inputs": LONG})[0], [list(token.embeddings) for token in tokens])
    assert web.get("/info").json["max_input_length"] == stubs.InfoStub(http_channel).Info(pb.InfoRequest()).max_input_length > 512


def test_tei_takes_another_extension_instead(web, embed, pb):
    windows = pb[0].Extension(windows=pb[0].Extension.Windows(tokens=256))
    close(web.ok("/embed", {"inputs": LONG, "extension": {"windows": {"tokens": 256}}}), vectors(embed([LONG], extension=windows)))

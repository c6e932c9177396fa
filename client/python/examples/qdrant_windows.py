"""Builds two Qdrant collections of the same long texts. One holds one vector per text, of its first 512 tokens. The other holds one vector per window, and
Qdrant searches it by MaxSim.

    pip install "longembed[qdrant]"
    LONGEMBED_SERVER=127.0.0.1:50051 python qdrant_windows.py

The texts are licenses that every Debian system has. Every question is about something far behind the beginning of a license.
Qdrant runs in this process (":memory:"). To use a Qdrant server, replace that by QdrantClient(url=...).
"""

from __future__ import annotations

import numpy as np
from qdrant_client import QdrantClient, models

from longembed import Client, Embedding, Options
from license_texts import read_licenses

# Pairs (question, license that answers it).
QUESTIONS = [
    ("What notice should a program print when it starts in interactive mode?", "GPL-3"),
    ("Is there a law against circumvention of technological measures, and is the power to forbid it waived?", "GPL-3"),
    ("May a wiki be published again under a Creative Commons license, and until which day?", "GFDL-1.3"),
    ("Do C subroutines that are linked into the interpreter change the language?", "Artistic"),
    ("In the courts of which jurisdiction may litigation be brought?", "MPL-2.0"),
    ("Are trademark or patent rights waived?", "CC0-1.0"),
    ("What has to become of a NOTICE text file in derivative works?", "Apache-2.0"),
    ("How do I put the boilerplate notice, with fields in brackets, on my own work?", "Apache-2.0"),
]

PLAIN = Options(input_type="DOCUMENT", truncate="END")
WINDOWS = Options(input_type="DOCUMENT", extension={"windows": {"tokens": 64}}, output="WINDOW_VECTORS")


def make_collections(store: QdrantClient, dimensions: int) -> None:
    plain = models.VectorParams(size=dimensions, distance=models.Distance.COSINE)
    maxsim = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    store.create_collection("plain", vectors_config=plain)
    store.create_collection("windows", vectors_config=plain.model_copy(update={"multivector_config": maxsim}))


def index(client: Client, store: QdrantClient, texts: dict[str, str]) -> dict[str, Embedding]:
    """Fills both collections. Returns the window vectors of each text, with their token ranges."""
    plain, windows = client.embed(texts.values(), PLAIN), client.embed(texts.values(), WINDOWS)
    for number, name in enumerate(texts):
        store.upsert("plain", [models.PointStruct(id=number, vector=plain[number].vector.tolist(), payload={"name": name})])
        store.upsert("windows", [models.PointStruct(id=number, vector=windows[number].vectors.tolist(), payload={"name": name})])
    return dict(zip(texts, windows))


def found(store: QdrantClient, collection: str, vector: np.ndarray) -> str:
    """Returns the name of the best text."""
    query = [vector.tolist()] if collection == "windows" else vector.tolist()
    return store.query_points(collection, query=query, limit=1).points[0].payload["name"]


def evidence(client: Client, text: str, windows: Embedding, vector: np.ndarray) -> str:
    """Returns the text of the window that is nearest to the question."""
    start, end = windows.ranges[int(np.argmax(windows.vectors @ vector))]
    characters = client.tokenize([text], add_special_tokens=False)[0].ranges
    return " ".join(text[characters[start][0] : characters[end - 1][1]].split())


def main() -> None:
    texts = read_licenses()
    with Client() as client:
        store = QdrantClient(":memory:")
        make_collections(store, client.model().dimensions)
        windows = index(client, store, texts)
        right = dict.fromkeys(("plain", "windows"), 0)
        for (question, answer), vector in zip(QUESTIONS, client.embed([q for q, _ in QUESTIONS], input_type="QUERY").matrix()):
            best = {collection: found(store, collection, vector) for collection in right}
            for collection, name in best.items():
                right[collection] += name == answer
            print(f"{question}\n  plain: {best['plain']}   windows: {best['windows']}   right: {answer}")
            name = best["windows"]
            print(f"  {name}: ... {evidence(client, texts[name], windows[name], vector)} ...")
        print(f"one vector a text finds {right['plain']} of {len(QUESTIONS)}, window vectors with MaxSim {right['windows']}")


if __name__ == "__main__":
    main()

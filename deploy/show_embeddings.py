"""Embeds a few real texts through the command line client and shows a person what came back. Called by quickstart.sh with the client's path."""

import json
import subprocess
import sys
import time
from pathlib import Path

LONG_TEXT = Path("/usr/share/common-licenses/GPL-3").read_text(encoding="utf-8")  # On every Debian; some 6,800 of e5's tokens.
WAYS = {"GPL-3, its beginning": ["--truncate", "end"], "GPL-3, in windows": ["--windows"]}
PASSAGES = {
    "Apache-2.0, patents": "Subject to the terms and conditions of this License, each Contributor hereby grants to You a perpetual, worldwide, "
    "non-exclusive, no-charge, royalty-free, irrevocable patent license to make, have made, use, offer to sell, sell, import, and otherwise "
    "transfer the Work.",
    "Nile": "The Nile is about 6,650 km long. It rises in the highlands of East Africa and flows north through eleven countries into the "
    "Mediterranean Sea.",
    "bread": "Mix flour, water, salt and a little yeast, let the dough rise overnight in the cold, and bake it in a very hot oven until the crust "
    "is dark.",
}
QUERIES = ["may I sell copies of a free program?", "who gets a patent license?", "how long is the longest river of Africa?", "how do I bake bread?"]


def flags_of(model: dict, side: str) -> list[str]:
    """Returns the flags of queries or documents: the model's prompt for them, where it has one. ColBERT models need to know the side in any case."""
    by_token = model["outputs"][0] == "TOKEN_VECTORS"
    flags = ["--input-type", side.lower()] if by_token or side in model.get("input_types", {}) else []
    return flags + ["--token-pooling", "8"] * (by_token and side == "DOCUMENT")  # Python takes long to compare thousands of vectors.


def run(client: str, command: str, texts: dict[str, str], *flags: str) -> subprocess.CompletedProcess:
    lines = "".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in texts.items())
    return subprocess.run([client, command, *flags], input=lines, capture_output=True, text=True)


def results(done: subprocess.CompletedProcess) -> list[dict]:
    if done.returncode != 0:
        sys.exit(f"error: the client failed: {done.stderr.strip()}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def embed(client: str, texts: dict[str, str], *flags: str) -> list[dict]:
    return results(run(client, "embed", texts, "--output", "json", *flags))


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b))


def similarity(query: dict, passage: dict) -> float:
    """Returns the dot product, or MaxSim of several vectors."""
    if "embeddings" in query:
        return sum(max(dot(own, other) for other in passage["embeddings"]) for own in query["embeddings"]) / len(query["embeddings"])
    if "indices" in query["embedding"]:
        weights = dict(zip(passage["embedding"]["indices"], passage["embedding"]["values"]))
        return sum(weight * weights.get(index, 0.0) for index, weight in zip(query["embedding"]["indices"], query["embedding"]["values"]))
    return dot(query["embedding"], passage["embedding"])


def described(answer: dict) -> str:
    if "embeddings" in answer:
        return f"{len(answer['embeddings'])} vectors of {len(answer['embeddings'][0])}"
    vector = answer["embedding"]
    if "indices" in vector:
        return f"{len(vector['indices'])} entries of a vocabulary of {vector['dimensions']}"
    return f"[{', '.join(f'{x:+.4f}' for x in vector[:4])}, ...] of {len(vector)}"


def show_long_text(client: str, flags: list[str]) -> None:
    """Shows the server's error for a text beyond the window, and the plan under an extension."""
    refused = run(client, "embed", {"GPL-3": LONG_TEXT}, *flags)
    if refused.returncode != 0:
        print(f"\nA text beyond the model's window is refused unless the request says how to embed it:\n  {refused.stderr.strip()}")
    plan = run(client, "explain", {"GPL-3": LONG_TEXT}, "--output", "text", "--windows", *flags).stdout.splitlines()
    print("\nlongembed explain --windows says what would happen, without running the model:")
    print("\n".join(f"  {line}" for line in plan[:3] + ["  ..."][: len(plan) > 4] + plan[3:][-1:]))


def main(client: str) -> None:
    model = results(subprocess.run([client, "models", "--output", "json"], capture_output=True, text=True))[0]
    for_passages, for_queries = flags_of(model, "DOCUMENT"), flags_of(model, "QUERY")
    show_long_text(client, for_passages)
    started = time.monotonic()
    passages = [embed(client, {way: LONG_TEXT}, *flags, *for_passages)[0] for way, flags in WAYS.items()]
    # Neither changes a text that fits into the model's window.
    passages += embed(client, PASSAGES, "--windows", *for_passages)
    queries = embed(client, {text: text for text in QUERIES}, "--truncate", "end", *for_queries)
    elapsed = time.monotonic() - started

    print(f"\n{len(passages) + len(queries)} texts in {len(WAYS) + 2} calls of the command line client: {elapsed * 1000:.0f} ms")
    for passage in passages:
        more = f", {passage['truncated_tokens']} cut away" if passage["truncated_tokens"] else ""
        more += f" in {len(passage['windows'])} windows" if len(passage["windows"]) > 1 else ""
        print(f"  {passage['id']:20} {passage['tokens']:4} tokens{more}: {described(passage)}")

    names = {"ONE_VECTOR": "Cosine similarity", "SPARSE": "Dot product", "TOKEN_VECTORS": "MaxSim, mean over the query's vectors"}
    print(f"\n{names[model['outputs'][0]]:44}" + "".join(f"{passage['id']:>22}" for passage in passages))
    for query in queries:
        scores = [similarity(query, passage) for passage in passages]
        cells = "".join(f"{f'{score:.3f}' + ('  <' if score == max(scores) else '   '):>22}" for score in scores)
        print(f"  {query['id']:42}{cells}")


if __name__ == "__main__":
    main(sys.argv[1])

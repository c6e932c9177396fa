"""Measures retrieval accuracy by precision, with the questions and answers of FAQs: accuracy at 1 and at 5, in fp32, bf16 and int8.

    build/venv/bin/python tests/benchmark/faq_retrieval.py FILE.html...

Every heading that ends with a question mark is a query. The text below it, up to the next heading, is its answer (at least 200 characters). Debian's packages debian-faq
(/usr/share/doc/debian/FAQ/*.en.html) and anarchism (/usr/share/doc/anarchism/html/*.html) have several hundred together. Cosines compare with the fp32 vectors of the same texts.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import grpc
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/integration"), str(ROOT / "client/python/examples")]
from faq_corpus import questions  # noqa: E402
from generated_client import generate_client  # noqa: E402
from running_server import start_server  # noqa: E402


def embed(stub, pb, texts: list[str], prompt: str) -> np.ndarray:
    rows = []
    for first in range(0, len(texts), 64):
        options = pb.EmbedOptions(prompt_name=prompt, truncate=pb.EmbedOptions.END)
        request = pb.EmbedRequest(inputs=[pb.Input(text=text) for text in texts[first : first + 64]], options=options)
        rows += [result.embeddings[0].values for result in stub.Embed(request, timeout=600).results]
    return np.array(rows)


def vectors(precision: str, queries: list[str], answers: list[str]) -> tuple[np.ndarray, np.ndarray]:
    with tempfile.TemporaryDirectory() as scratch:
        pb, pb_grpc = generate_client(Path(scratch))
        server = start_server(Path(scratch), ["e5-small-v2"], model_options=f"precision: {precision}")
        try:
            with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
                stub = pb_grpc.EmbeddingServiceStub(channel)
                return embed(stub, pb, queries, "query"), embed(stub, pb, answers, "passage")
        finally:
            server.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+")
    pairs = questions(parser.parse_args().files)
    if len(pairs) < 20:
        sys.exit(f"only {len(pairs)} questions with answers were found; name more files of a FAQ")
    queries, answers = list(pairs), list(pairs.values())
    print(f"{len(pairs)} questions\n\n| precision | accuracy at 1 | at 5 | least cosine to fp32 | mean |\n|---|---|---|---|---|")
    reference = None
    for precision in ("fp32", "bf16", "int8"):
        q, a = vectors(precision, queries, answers)
        ranks = (-(q @ a.T)).argsort(axis=1)
        hits = [float((ranks[:, :k] == np.arange(len(q))[:, None]).any(axis=1).mean()) for k in (1, 5)]
        both = np.concatenate([q, a])
        reference = both if reference is None else reference
        cosines = (both * reference).sum(axis=1)
        print(f"| {precision} | {100 * hits[0]:.1f} % | {100 * hits[1]:.1f} % | {cosines.min():.5f} | {cosines.mean():.5f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

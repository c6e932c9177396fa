"""Measures the perplexity of a decoder by position in one long text, with its own rotary base and with a larger one. Shows whether the base extends the model's range.

    build/venv/bin/python tests/benchmark/perplexity.py --text FILE

SmolLM2-135M-Instruct is served with span vectors. Un-normalized one-token spans are its last hidden states. Multiplied by the tied embedding, they give the logits. Every
eighth token is evaluated. The first --tokens tokens of the text are one sequence. The model was trained on 8,192 tokens.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import grpc
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tests/integration"))
from generated_client import generate_client  # noqa: E402
from running_server import start_server  # noqa: E402

from model.export import sources  # noqa: E402

MODEL = "SmolLM2-135M-Instruct"
STEP = 8


def losses(stub, pb, ids: list[int], base: float, embedding: torch.Tensor) -> torch.Tensor:
    """Returns the loss of the token after every STEP-th token, in nats."""
    request = pb.EmbedRequest(options=pb.EmbedOptions(model=MODEL, output=pb.EmbedOptions.SPAN_VECTORS, normalize=False))
    request.options.extension.when = pb.Extension.ALWAYS
    request.options.extension.ntk.base = base  # With the model's own base, positions are plain, but without a length limit.
    request.options.spans.ranges.SetInParent()
    request.inputs.add().token_ids.ids.extend(ids)
    places = range(0, len(ids) - 1, STEP)
    for place in places:
        request.inputs[0].ranges.add(start=place, end=place + 1)
    result = stub.Embed(request, timeout=3600).results[0]
    hidden = torch.tensor([list(embedding.values) for embedding in result.embeddings])
    targets = torch.tensor([ids[place + 1] for place in places])
    return torch.cat([torch.nn.functional.cross_entropy(h @ embedding.T, t, reduction="none") for h, t in zip(hidden.split(256), targets.split(256))])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=12288)
    parser.add_argument("--bucket", type=int, default=2048)
    parser.add_argument("--bases", type=float, nargs="+", default=[100000, 400000])
    options = parser.parse_args()
    embedding = sources.find(MODEL).load().tensors["embed_tokens.weight"]
    with tempfile.TemporaryDirectory() as scratch:
        pb, pb_grpc = generate_client(Path(scratch))
        server = start_server(Path(scratch), [MODEL])
        try:
            with grpc.insecure_channel(f"127.0.0.1:{server.port}", options=[("grpc.max_receive_message_length", 1 << 30)]) as channel:
                stub = pb_grpc.EmbeddingServiceStub(channel)
                tokenized = stub.Tokenize(pb.TokenizeRequest(texts=[options.text.read_text()], add_special_tokens=False), timeout=600).results[0]
                ids = [token.id for token in tokenized.tokens][: options.tokens]
                if len(ids) < options.tokens:
                    sys.exit(f"{options.text} has only {len(ids)} tokens; give a longer one, or fewer --tokens.")
                buckets = range(0, len(ids), options.bucket)
                print("| rotary base | " + " | ".join(f"{start}-{min(start + options.bucket, len(ids))}" for start in buckets) + " |")
                print("|---" * (len(buckets) + 1) + "|")
                for base in options.bases:
                    parts = losses(stub, pb, ids, base, embedding).split(options.bucket // STEP)
                    print(f"| {base:,.0f} | " + " | ".join(f"{part.mean().exp():.1f}" for part in parts) + " |", flush=True)
        finally:
            server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Measures the peak memory of SelfExtend by length, on a random RoPE encoder of two layers, 12 heads and 768 components. It should grow in proportion to n.

    build/venv/bin/python tests/benchmark/self_extend_memory.py [--lengths 2048 4096 ...]

Each length runs in its own process. The output is the growth of its peak resident size over that of 16 tokens. A matrix of scores alone would take n * n * 12 * 4 bytes.
"""

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LENGTHS = [2048, 4096, 8192, 16384, 32768]

ONE_LENGTH = """
import re, sys, time
sys.path.insert(0, sys.argv[1])
import torch
from model.export import check, e5_rope
from transformers import BertConfig, BertModel

n, window, group = int(sys.argv[2]), 64, 1 + -(-int(sys.argv[2]) // 448)
config = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072, "num_hidden_layers": 2, "vocab_size": 1000}
weights = BertModel(BertConfig(**config), add_pooling_layer=False).state_dict()
graph = torch.jit.script(e5_rope.build({**config, "model_type": "e5rope", "max_position_embeddings": 512}, weights))

def encode(tokens, window):
    plain = check.rotations([tokens], 64, 10000.0)
    i = torch.arange(tokens)
    rows = [i, i // group, (i // group + window - window // group).clamp(max=tokens - 1)] if window else [i]
    rotary = torch.cat([plain[:, :, r] for r in rows])
    offsets = torch.tensor([0, tokens], dtype=torch.int32)
    return graph(torch.full((tokens,), 5, dtype=torch.int32), rotary, torch.ones(1), torch.tensor([window], dtype=torch.int32), offsets, offsets.view(1, 2))

peak = lambda: int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1]) / 1024  # ru_maxrss would hold the parent's.
with torch.inference_mode():
    encode(16, 0), encode(16, 4)
    before, started = peak(), time.monotonic()
    vector = encode(n, window)
    assert torch.isfinite(vector).all()
    print(f"{peak() - before:.1f} {time.monotonic() - started:.1f}")
"""


def measure(n: int) -> tuple[float, float]:
    """Returns MiB and seconds."""
    done = subprocess.run([sys.executable, "-c", ONE_LENGTH, str(ROOT), str(n)], capture_output=True, text=True, check=True)
    mib, seconds = map(float, done.stdout.split())
    return mib, seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    print("| n | peak, MiB | KiB a token | seconds | n * n scores alone, MiB |\n|---|---|---|---|---|")
    for n in parser.parse_args().lengths:
        mib, seconds = measure(n)
        print(f"| {n} | {mib:.0f} | {1024 * mib / n:.1f} | {seconds:.0f} | {n * n * 12 * 4 / 2**20:.0f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

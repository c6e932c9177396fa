"""Tiny checkpoints and made-up prose for the tests of model/train."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
for folder in (REPOSITORY, REPOSITORY / "tests/testing"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

import tiny_checkpoints  # noqa: E402

from model.train import checkpoint, corpus  # noqa: E402

STRIDE = 4


def tiny(folder: Path, kind: str = "bert", pooling: str = "mean") -> Path:
    """Saves a checkpoint of 32 trained positions, with its pooling and its prompts."""
    tiny_checkpoints.save(kind, folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode_mean_tokens": pooling == "mean", "pooling_mode_cls_token": pooling == "cls"}))
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": {"query": "q: ", "passage": "p: "}}))
    return folder


def prose(characters: int, seed: int = 1) -> str:
    """Returns paragraphs of sentences of random words, no two alike."""
    draw = random.Random(seed)
    paragraphs = []
    while sum(map(len, paragraphs)) < characters:
        words = ["".join(draw.choices("abcdefghijklmnopqrst", k=draw.randint(1, 4))) for _ in range(60)]
        paragraphs.append(" ".join(word + "." if i % 6 == 5 else word for i, word in enumerate(words)))
    return "\n\n".join(paragraphs)


def read(original: checkpoint.Original, characters: int = 20_000) -> corpus.Corpus:
    texts = [prose(2000, seed).split("\n\n") for seed in range(characters // 2000)]
    return corpus.build(texts, original.tokenizer, seed=0, least_tokens=1, most_tokens=10**6, advice="")

"""Runs a recipe: loads the checkpoint, reads the texts, trains, and writes the result."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from tokenizers import Tokenizer

from model.train import checkpoint, corpus, encoder, loop, texts
from model.train.errors import TrainError
from model.train.positions import Positions, Settings
from model.train.rotary import Rotary
from model.train.texts import DEBIAN_TEXTS

LEAST_TOKENS = 200_000
MOST_TOKENS = 4_000_000
INSTALL = "install packages with prose, such as debian-policy, developers-reference, debian-faq, debian-handbook, anarchism and git-doc"


def run(options: argparse.Namespace) -> None:
    source = Path(options.checkpoint)
    if source.is_dir() and options.out.resolve() == source.resolve():
        raise TrainError(f"--out {options.out} is the checkpoint itself, which would be overwritten; choose another folder.")
    torch.set_num_threads(options.threads)
    original = checkpoint.load(options.checkpoint)
    read = read_texts(options, original.tokenizer)
    loop.say(f"{read.tokens:,} tokens of {len(read.documents):,} texts")
    bfloat16 = encoder.fast_bfloat16()
    loop.say(f"{options.threads} threads, {'bfloat16' if bfloat16 else 'float32'}")
    recipe, own_request, export_flags = make(options, original, read, bfloat16)
    request = {
        "recipe": options.recipe, "checkpoint": original.identity, "texts": read.fingerprint(), "seed": options.seed,
        "learning_rate": options.learning_rate, **own_request,
    }  # fmt: skip
    budget = loop.Budget(steps=options.steps) if options.steps is not None else loop.Budget(minutes=options.minutes)
    steps = loop.train(recipe, budget, options.out / "training" / "state.pt", request)
    checkpoint.write(options.out, original, *recipe.finished())
    loop.say(f"{options.out} is ready after {steps} steps; export it with: python -m model.export {options.out} {export_flags}--out MODEL")


def make(options: argparse.Namespace, original: checkpoint.Original, read: corpus.Corpus, bfloat16: bool) -> tuple[loop.Recipe, dict, str]:
    """Returns the recipe, further parts of the request that its state belongs to, and the exporter's options for its result."""
    if options.recipe == "rotary":
        return Rotary(original, read, options.learning_rate, options.seed, bfloat16), {}, ""
    settings = Settings(stride=options.stride, learning_rate=options.learning_rate)
    return Positions(original, read, settings, options.seed, bfloat16), {"stride": options.stride}, f"--position-stride {options.stride} "


def read_texts(options: argparse.Namespace, tokenizer: Tokenizer) -> corpus.Corpus:
    named = options.texts
    if not named and not DEBIAN_TEXTS.is_dir():
        raise TrainError(f"{DEBIAN_TEXTS} is not there; name texts with --texts.")
    sources = named or [DEBIAN_TEXTS]
    loop.say(f"reading {', '.join(map(str, sources))}")
    found = texts.read(sources, english_only=options.english or not named)
    advice = "add texts with --texts" if named else f"{INSTALL}, or name texts with --texts"
    return corpus.build(found, tokenizer, options.seed, LEAST_TOKENS, MOST_TOKENS, advice)

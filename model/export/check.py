"""Compares the vectors of a written model directory with those that users of the checkpoint get for the same texts.

`reference.py` computes the users' vectors. `directory.py` computes the vectors of the directory, from its files only.
"""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from model.export import reference
from model.export.directory import Directory, Sample
from model.export.errors import ExportError
from model.export.packing import encode, positions_of, rotations, table_rows  # noqa: F401  Also used by callers of this module.

TEXTS = Path(__file__).with_name("texts.txt")
# Texts that an editor would change when saving that file, and texts that tokenizers treat specially.
ODD_TEXTS = (
    " ", "\t\n ", "  two blanks before", "two blanks after  ", "a  b   c\td\n\ne", "\u3000ideographic blanks\u00a0and others\u2003", "İstanbul DŽ ǅ ß ẞ ﬃ",
    "cafe\u0301 na\u00efve A\u030angstro\u0308m \u1e9b\u0323", "한국어 \u1112\u1161\u11ab 中文字abc漢字 カタカナ ｶﾀｶﾅ", "\ufeffbyte order mark", "zero\u200bwidth\u200djoiner\ufe0f",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466\U0001f3fd", "x" * 150, "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
    ".", "0", "1234567890 3.14159 1,000", "\x00\x07\x7f control \x1b[0m", "\ufffd", "<s> </s> <unk> <pad> <mask> <|endoftext|> [CLS] [SEP]", "<S>[cls]</S>",
)  # fmt: skip
PROMPTED_TEXTS = ("hello", "THE QUICK brown Fox", " a blank before")
LENGTHS = (16, 33, 64, 96, 128, 200, 256, 300, 384, 450, 500, 511, 512)  # Lengths of long samples, in tokens.
BATCH_SEQUENCES = 8  # Sequences in a random batch.
COMPARED_SEQUENCES = 24  # Sequences that are encoded alone and batched with others.
MIN_COSINE = 0.99999
MAX_BATCHED_DIFFERENCE = 1e-5  # For a component of unit vectors.
MODEL_POSITIONS = "the model's positions"  # Source of a trained window that neither files nor options set.
MAX_NORM_DIFFERENCE = 1e-3  # Relative to the norm, for vectors that the checkpoint does not normalize.


@dataclass(frozen=True)
class Report:
    """Measurements of the check. Differences are the maximum over all components of unit vectors."""

    by: str  # The library that the checkpoint's users load it with.
    through: str  # The program that computed the directory's vectors.
    texts: int
    longest: int  # In tokens.
    min_cosine: float
    worst: str  # The text of the lowest cosine.
    max_difference: float
    max_norm_difference: float
    max_batched_difference: float

    def __str__(self) -> str:
        return (
            f"{self.texts} texts of up to {self.longest} tokens through {self.through}: cosine to {self.by} >= {self.min_cosine:.8f}, largest difference "
            f"{self.max_difference:.1e}; alone against batched {self.max_batched_difference:.1e}"
        )


@dataclass(frozen=True)
class Expectation:
    """How users of the checkpoint load it. The fields are keys of `embed`'s request in reference_process.py."""

    folder: Path
    transformer_folder: Path
    splade: dict | None  # strategy and activation, if the checkpoint gives SPLADE's sparse vectors.
    dense_folders: list[str]  # Folders of the Dense modules after pooling, in order.
    with_modules: bool  # Whether sentence-transformers loads it.
    own_code: bool  # Whether transformers lacks the architecture, so that its module in model/export computes the reference.
    lower_case: bool  # Whether texts are lower-cased before the tokenizer's own normalizer.
    limit: int | None  # Limit in tokens for truncation; overrides the checkpoint.
    limit_in_files: int | None  # Limit in sentence-transformers' files, used when transformers loads the checkpoint.
    append_eos: bool | None  # None: as the tokenizer does it.
    eos: int | None


def check(directory: Directory, expectation: Expectation, longest: int) -> Report:
    """Raises ExportError unless `directory` gives the vectors of the checkpoint's own library, in any batch. `longest` is in tokens."""
    samples, stretches, theirs = compared(directory, expectation, longest)
    pairs = [(sample, answer["vector"]) for sample, answer in zip(samples, theirs["answers"]) if answer["vector"]]
    sequences = [directory.ids(sample) for sample, _ in pairs] + stretches
    raw = torch.cat([directory.vectors([sample for sample, _ in pairs]), directory.alone(stretches)])
    expected = torch.tensor([vector for _, vector in pairs] + [answer["vector"] for answer in theirs["answers"][len(samples) :]])
    if raw.shape != expected.shape:
        raise ExportError(
            f"{theirs['by']} gives vectors of {expected.shape[1]} dimensions, but the export gives {raw.shape[1]}; nothing was written, choose another checkpoint."
        )
    some = sequences[:: max(1, len(sequences) // COMPARED_SEQUENCES)]
    alone, batched = F.normalize(directory.alone(some)), F.normalize(torch.stack(encode_batched(directory.encode, some)))
    report = Report(
        by=theirs["by"],
        through=directory.through,
        texts=len(sequences),
        longest=max(map(len, sequences)),
        max_batched_difference=(alone - batched).abs().max().item(),
        **_differences(raw, expected, [sample.text for sample, _ in pairs]),
    )
    _refuse_difference(report)
    return report


def compared(directory: Directory, expectation: Expectation, longest: int, output: str = "dense") -> tuple[list[Sample], list[list[int]], dict]:
    """Returns (texts, token ids of exact lengths, the answers of the checkpoint's own library for both). Raises ExportError if limits or tokens differ.
    `output` is dense or sparse."""
    content = directory.content
    samples = samples_of(content["prompts"], content.get("default_prompt_name"), directory.special_spellings(), directory.long_text())
    stretches = _exact_length_ids(directory, longest)
    theirs = reference_answers(expectation, content, samples, stretches, output)
    refuse_other_limit(expectation, content, theirs["limit"])
    _refuse_other_ids(directory, samples, theirs)
    return samples, stretches, theirs


def _differences(raw: Tensor, expected: Tensor, texts: list[str]) -> dict:
    """Returns the differences of vectors as the model gives them. Rows are the texts, followed by the sequences of exact lengths."""
    alone, wanted = F.normalize(raw.double()), F.normalize(expected.double())
    cosines = (alone * wanted).sum(dim=1)
    worst = int(cosines.nan_to_num(-2.0).argmin())
    norms, wanted_norms = raw.norm(dim=1), expected.norm(dim=1)
    normalized = bool(((wanted_norms[: len(texts)] - 1).abs() < 1e-5).all())
    return {
        "min_cosine": cosines.min().item(),
        "worst": texts[worst] if worst < len(texts) else "a text of given length",
        "max_difference": (alone - wanted).abs().max().item(),
        "max_norm_difference": 0.0 if normalized else (norms / wanted_norms - 1).abs().max().item(),
    }


def lines() -> list[str]:
    return [line for line in TEXTS.read_text(encoding="utf-8").splitlines() if line]


def samples_of(prompts: dict[str, str], default_prompt_name: str | None, specials: list[str], long_text: str) -> list[Sample]:
    """Returns every text without a prompt name, and some texts with each prompt."""
    spelled = [f"a {special} b{special}c" for special in specials] + [f" {special} ".join("abc") for special in specials[:4]]
    samples = [Sample(text) for text in (*lines(), *ODD_TEXTS, *spelled, long_text)]
    names = [*prompts, *([""] if default_prompt_name else [])]
    return samples + [Sample(text, name) for name in names for text in PROMPTED_TEXTS]


def _exact_length_ids(directory: Directory, longest: int) -> list[list[int]]:
    """Returns token ids of exact lengths up to `longest`, which may be beyond the trained window if the model has positions there. A model that is shorter than
    all of LENGTHS gets one sequence of its own length."""
    specials = directory.content["special_tokens"]
    stream = [token for line in lines() for token in directory.tokenizer.encode(line, add_special_tokens=False).ids]
    stretches = []
    for i, length in enumerate([size for size in LENGTHS if size <= longest] or [longest]):
        start = i * 251 % max(1, len(stream) - length)
        room = length - len(specials["prefix"]) - len(specials["suffix"])
        stretches.append(specials["prefix"] + stream[start : start + room] + specials["suffix"])
    return [ids for ids in stretches if ids]


def reference_answers(
    expectation: Expectation, content: dict, samples: list[Sample], stretches: list[list[int]], output: str = "dense", layered: int = 0
) -> dict:
    """Returns the vectors of the checkpoint's own library for texts, and for token ids of exact lengths. `output` is dense, sparse or tokens. `layered` is for
    dense vectors: if above 0, only this number of samples get a vector, computed with one layer in memory at a time, and the others get only tokens. If 0, the
    whole model computes all vectors."""
    default = content.get("default_prompt_name")
    texts = [{"text": sample.text, "prompt": sample.prompt(content["prompts"], default), "unprompted": sample.prompt_name is None, "role": sample.prompt_name} for sample in samples]
    return reference.embed(
        {
            **{key: str(value) if isinstance(value, Path) else value for key, value in vars(expectation).items()},
            "pooling": content["pooling"], "window": content["trained_window"], "position_stride": content.get("position_stride", 1), "threads": torch.get_num_threads(),
            "longest_run": max(LENGTHS), "output": output, "layered": layered, "samples": texts + [{"ids": ids} for ids in stretches],
        }  # fmt: skip
    )


def refuse_other_limit(expectation: Expectation, content: dict, limit: int | None) -> None:
    """Raises ExportError if the trained window differs from the limit at which the checkpoint's users truncate, unless an option or the table of known
    checkpoints overrides the checkpoint. A position table ends its users' texts, too, but rotary positions go on beyond the model's positions."""
    window = content["trained_window"]
    if expectation.limit is not None or limit is None or min(limit, content.get("position_rows", limit)) == window:
        return
    beyond = limit > window and content["trained_window_source"] == MODEL_POSITIONS
    advice = f"add --trained-window {window} if longer texts may get other vectors" if beyond else "give the right one with --trained-window"
    raise ExportError(f"the checkpoint's users truncate at {limit} tokens, but this export would truncate at {window}; {advice}.")


def _refuse_other_ids(directory: Directory, samples: list[Sample], theirs: dict) -> None:
    for sample, answer in zip(samples, theirs["answers"]):
        ours = directory.ids(sample)
        if ours != answer["ids"]:
            first = next((i for i, (a, b) in enumerate(zip(ours, answer["ids"])) if a != b), min(len(ours), len(answer["ids"])))
            raise ExportError(
                f"the exported tokenizer gives different tokens than {theirs['by']} for {sample.text[:60]!r} (prompt {sample.prompt_name!r}): from token {first} on "
                f"{ours[first : first + 4]} of {len(ours)} instead of {answer['ids'][first : first + 4]} of {len(answer['ids'])}; nothing was written, "
                "choose a checkpoint whose tokenizer is a plain tokenizer.json."
            )


def encode_batched(encode_batch: Callable[[list[list[int]]], Iterable[Tensor]], samples: list[list[int]]) -> list[Tensor]:
    """Encodes every sample in a random batch with others. Returns the vectors in the order of `samples`."""
    rows: dict[int, Tensor] = {}
    for batch in _random_batches(list(map(len, samples))):
        rows.update(zip(batch, encode_batch([samples[i] for i in batch])))
    return [rows[i] for i in range(len(samples))]


def _random_batches(lengths: list[int]) -> Iterator[list[int]]:
    """Yields batches of indices, each index once. Every other batch is sorted by length, so that neighbors of equal length share one call of attention."""
    order = list(range(len(lengths)))
    random.Random(1).shuffle(order)
    for number, start in enumerate(range(0, len(order), BATCH_SEQUENCES)):
        batch = order[start : start + BATCH_SEQUENCES]
        yield sorted(batch, key=lengths.__getitem__) if number % 2 else batch


def _refuse_difference(report: Report) -> None:
    if not report.min_cosine >= MIN_COSINE:  # Also true for NaN.
        raise ExportError(
            f"the export differs from {report.by} (cosine {report.min_cosine:.6f} for {report.worst[:60]!r}); nothing was written. config.json, pooling or weights "
            "mean something that this exporter does not read; choose another checkpoint."
        )
    if not report.max_norm_difference <= MAX_NORM_DIFFERENCE:
        raise ExportError(
            f"the norms of the export's vectors differ from those of {report.by} (by {report.max_norm_difference:.1e}); nothing was written, choose another "
            "checkpoint."
        )
    if not report.max_batched_difference <= MAX_BATCHED_DIFFERENCE:
        raise ExportError(f"a vector depends on the rest of its batch ({report}); nothing was written, choose another checkpoint.")

"""Compares the token vectors of a written model directory with those that users of the checkpoint get for the same queries and documents."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from model.export import check
from model.export.directory import Directory, Sample
from model.export.errors import ExportError

ROLES = ("query", "document")  # Names of prompts, and of tasks in sentence-transformers.
MAX_BATCHED_DIFFERENCE = 1e-5  # For a component of unit vectors.


@dataclass(frozen=True)
class Report:
    """Measurements of the check over token vectors. Differences are the maximum over all components of unit vectors."""

    by: str  # The library that the checkpoint's users load it with.
    through: str  # The program that computed the directory's vectors.
    texts: int
    vectors: int
    min_cosine: float
    worst: str  # The text of the lowest cosine.
    max_batched_difference: float

    def __str__(self) -> str:
        return (
            f"token vectors: {self.texts} queries and documents, {self.vectors} vectors through {self.through}: cosine to {self.by} >= {self.min_cosine:.8f}; alone against "
            f"batched {self.max_batched_difference:.1e}"
        )


def check_tokens(directory: Directory, expectation: check.Expectation) -> Report:
    """Raises ExportError unless `directory` gives the token vectors of the checkpoint's own library, in any batch."""
    texts = [sample.text for sample in check.samples_of({}, None, directory.special_spellings(), directory.long_text())]
    samples = [Sample(text, role) for role in ROLES for text in texts]
    theirs = check.reference_answers(expectation, directory.content, samples, [], output="tokens")
    check.refuse_other_limit(expectation, directory.content, theirs["limit"])
    for sample, answer in zip(samples, theirs["answers"]):
        _refuse_other_tokens(directory, sample, answer, theirs["by"])
    ours = [F.normalize(vectors.double(), dim=1) for vectors in directory.token_vectors(samples)]
    cosines = []
    for sample, vectors, answer in zip(samples, ours, theirs["answers"]):
        expected = F.normalize(torch.tensor(answer["vectors"], dtype=torch.float64), dim=1)
        if vectors.shape != expected.shape:
            raise ExportError(
                f"{theirs['by']} gives {list(expected.shape)} components for the {sample.prompt_name} {sample.text[:60]!r}, but the export {list(vectors.shape)}; nothing was "
                "written, choose another checkpoint."
            )
        cosines.append((vectors * expected).sum(dim=1).min().item())
    worst = min(range(len(cosines)), key=lambda i: cosines[i] if cosines[i] == cosines[i] else -2.0)
    some = samples[:: max(1, len(samples) // check.COMPARED_SEQUENCES)]
    alone, batched = [directory.encode_tokens([sample])[0] for sample in some], directory.encode_tokens(some)
    report = Report(
        by=theirs["by"],
        through=directory.through,
        texts=len(samples),
        vectors=sum(map(len, ours)),
        min_cosine=cosines[worst],
        worst=samples[worst].text,
        max_batched_difference=max((F.normalize(a, dim=1) - F.normalize(b, dim=1)).abs().max().item() for a, b in zip(alone, batched)),
    )
    if not report.min_cosine >= check.MIN_COSINE:  # Also true for NaN.
        raise ExportError(
            f"the exported token vectors differ from those of {report.by} (cosine {report.min_cosine:.6f} for {report.worst[:60]!r}); nothing was written, choose another "
            "checkpoint."
        )
    if not report.max_batched_difference <= MAX_BATCHED_DIFFERENCE:
        raise ExportError(f"a token vector depends on the rest of its batch ({report}); nothing was written, choose another checkpoint.")
    return report


def _refuse_other_tokens(directory: Directory, sample: Sample, answer: dict, by: str) -> None:
    ours, kept = directory.token_ids(sample), directory.kept(sample)
    if ours != answer["ids"] or kept != answer["kept"]:
        what = "tokens" if ours != answer["ids"] else "tokens without a vector"
        raise ExportError(
            f"the export has different {what} than {by} for the {sample.prompt_name} {sample.text[:60]!r}: {ours[:6]}... ({len(ours)} tokens, {len(kept)} vectors) instead "
            f"of {answer['ids'][:6]}... ({len(answer['ids'])}, {len(answer['kept'])}); nothing was written, choose another checkpoint."
        )

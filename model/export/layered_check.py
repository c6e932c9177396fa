"""The check for checkpoints of which several copies do not fit into memory. It processes one layer at a time, in float32 like the whole check.

The users' vectors come from transformers' own class with the checkpoint's files (layered_reference.py), the directory's vectors from the streamed model
library. Tokens are compared for every text of the whole check. Vectors are compared for a few texts and for every prompt, and not batched with others.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from model.export import check
from model.export.directory import Directory, Sample
from model.export.errors import ExportError

# There are only a few texts, because all weights are read for each text.
TEXTS = ("The Nile is about 6,650 km long.", "Im Frühjahr 1648 – 條約 – тридцать лет; naïve café \U0001f466 def f(x): return x")


@dataclass(frozen=True)
class Report:
    by: str
    texts: int
    tokenized: int
    min_cosine: float
    max_difference: float

    def __str__(self) -> str:
        return (
            f"{self.texts} texts, one layer at a time, through the model library: cosine to {self.by} >= {self.min_cosine:.8f}, largest difference "
            f"{self.max_difference:.1e}; tokens of {self.tokenized} texts compared, none batched with others"
        )


def available_memory() -> int:
    """Returns the bytes of memory that this process and its children may still allocate."""
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(fields["MemAvailable"].split()[0]) * 1024
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (group / "memory.max").read_text().strip(), int((group / "memory.current").read_text())
    except OSError:
        return available
    return available if limit == "max" else min(available, int(limit) - used)


def check_by_layers(directory: Directory, expectation: check.Expectation) -> Report:
    """Raises ExportError unless `directory` gives the same vectors as the checkpoint's own library."""
    if expectation.own_code:
        raise ExportError("a checkpoint with code of its own is not checked layer by layer; give --check whole on a machine with more memory.")
    content = directory.content
    default = content.get("default_prompt_name")
    compared = [Sample(TEXTS[0], name) for name in (*content["prompts"], *([""] if default else []))] + [Sample(text) for text in TEXTS]
    samples = compared + check.samples_of(content["prompts"], default, directory.special_spellings(), directory.long_text())
    theirs = check.reference_answers(expectation, content, samples, [], layered=len(compared))
    check.refuse_other_limit(expectation, content, theirs["limit"])
    check._refuse_other_ids(directory, samples, theirs)
    expected = torch.tensor([answer["vector"] for answer in theirs["answers"][: len(compared)]])
    found = check._differences(directory.vectors(compared, streamed=True), expected, [sample.text for sample in compared])
    report = Report(theirs["by"], len(compared), len(samples), found["min_cosine"], found["max_difference"])
    if not report.min_cosine >= check.MIN_COSINE:  # Also true for NaN.
        raise ExportError(
            f"the export differs from {report.by} (cosine {report.min_cosine:.6f} for {found['worst'][:60]!r}); nothing was written. config.json, pooling or weights "
            "mean something that this exporter does not read; choose another checkpoint."
        )
    return report

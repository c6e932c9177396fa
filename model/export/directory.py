"""A written model directory. Computes the vectors of texts from the directory's files only, as the server does."""

import json
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Sequence

import torch
import yaml
from tokenizers import Tokenizer
from torch import Tensor

from model.export import manifest, packing
from model.export.errors import ExportError

PROGRAM = Path(__file__).resolve().parents[2] / "build/release/longembed-embed-texts"


@dataclass(frozen=True)
class Sample:
    """One text of a request. `prompt_name` is a prompt of the manifest, "" for no prompt, or None if the request does not set it."""

    text: str
    prompt_name: str | None = None

    def prompt(self, prompts: dict[str, str], default: str | None) -> str:
        name = default if self.prompt_name is None else self.prompt_name
        return prompts[name] if name else ""


class Directory:
    """A model directory. `program` is longembed-embed-texts, the model library in C++. If None, tokenizer.json and encoder.pt run in Python."""

    def __init__(self, folder: Path, program: Path | None = None):
        self.folder = folder
        self.content = yaml.safe_load((folder / manifest.FILE).read_text(encoding="utf-8"))
        self.tokenizer = Tokenizer.from_file(str(folder / manifest.TOKENIZER))
        self._positions = packing.positions_of(self.content)
        # The library truncates at the plain limit, which exceeds the trained window if the position table was tuned.
        self._program = program if self.content["plain_limit"] == self.content["trained_window"] else None
        self.through = "the model library" if self._program else "tokenizer.json and encoder.pt in Python"

    @cached_property
    def _graph(self) -> torch.jit.ScriptModule:
        return torch.jit.load(self.folder / manifest.ENCODER).float()

    @cached_property
    def _sparse_head(self) -> torch.jit.ScriptModule:
        return torch.jit.load(self.folder / manifest.SPARSE_HEAD)

    def ids(self, sample: Sample, limit: int | None = None) -> list[int]:
        """Returns the token ids of a text, special tokens and prompt included, truncated to the limit. The default limit is the trained window."""
        special = self.content["special_tokens"]
        room = (limit or self.content["trained_window"]) - len(special["prefix"]) - len(special["suffix"])
        prompt = sample.prompt(self.content["prompts"], self.content.get("default_prompt_name"))
        return special["prefix"] + self.tokenizer.encode(prompt + sample.text, add_special_tokens=False).ids[:room] + special["suffix"]

    def token_ids(self, sample: Sample) -> list[int]:
        """Returns the token ids of a query or document, depending on the prompt's name, for a model with token vectors."""
        settings = self.content["token_vectors"]
        if sample.prompt_name != "query":
            return self.ids(sample)
        ids = self.ids(sample, settings["query_tokens"])
        return ids + [settings.get("expansion_token")] * max(0, settings["expansion_tokens"] - len(ids))

    def kept(self, sample: Sample) -> list[int]:
        """Returns the indexes of those tokens that get a vector."""
        skipped = set() if sample.prompt_name == "query" else set(self.content["token_vectors"]["skipped_tokens"])
        return [i for i, token in enumerate(self.token_ids(sample)) if token not in skipped]

    def encode_tokens(self, samples: list[Sample]) -> list[Tensor]:
        """Returns the token vectors of texts that are encoded as one batch, each [vectors, H], not normalized."""
        sequences, kept = [self.token_ids(sample) for sample in samples], [self.kept(sample) for sample in samples]
        unattended = torch.tensor([-self._unattended(sample) for sample in samples], dtype=torch.int32)
        starts = torch.tensor([0, *map(len, sequences)]).cumsum(0).tolist()
        rows = torch.tensor([start + i for start, own in zip(starts, kept) for i in own], dtype=torch.int32)
        spans = torch.stack([rows, rows + 1], dim=1)
        with torch.inference_mode():
            found = packing.encode(lambda *batch: self._graph(*batch[:3], unattended, batch[4], spans), sequences, "MEAN", self._positions)
        return list(found.split([len(own) for own in kept]))

    def _unattended(self, sample: Sample) -> int:
        settings = self.content["token_vectors"]
        if sample.prompt_name != "query" or settings.get("expansion_attended", False):
            return 0
        return len(self.token_ids(sample)) - len(self.ids(sample, settings["query_tokens"]))

    def token_vectors(self, samples: list[Sample]) -> list[Tensor]:
        """Returns the token vectors of texts, each encoded as a batch of its own."""
        if self._program is None:
            return [self.encode_tokens([sample])[0] for sample in samples]
        return [torch.tensor(line["vectors"]) for line in self._run(samples, output="TOKEN_VECTORS")]

    def encode(self, sequences: list[list[int]]) -> Tensor:
        """Returns the vectors [sequences, H] of sequences that are encoded as one batch, not normalized."""
        with torch.inference_mode():
            return packing.encode(self._graph, sequences, self.content["pooling"], self._positions)

    def alone(self, sequences: list[list[int]]) -> Tensor:
        """Returns the vectors [sequences, H], with each sequence encoded as a batch of its own."""
        return torch.cat([self.encode([ids]) for ids in sequences])

    def sparse(self, sequences: list[list[int]]) -> list[Tensor]:
        """Returns the sparse vectors of sequences that are encoded as one batch, each [vocabulary]."""
        with torch.inference_mode():
            hidden = packing.encode(lambda *batch: self._graph(*batch[:-1], _each_token(len(batch[0]))), sequences, "MEAN", self._positions)
            ends = torch.tensor([len(ids) for ids in sequences]).cumsum(0)
            offsets = torch.cat([torch.zeros(1), ends]).to(torch.int32)
            tokens = torch.tensor([token for ids in sequences for token in ids], dtype=torch.int32)
            counts, indices, values = self._sparse_head(hidden, tokens, offsets)
        found = zip(indices.split(counts.tolist()), values.split(counts.tolist()))
        return [self._all_components(indices.long(), values) for indices, values in found]

    def sparse_alone(self, sequences: list[list[int]]) -> list[Tensor]:
        """Returns the sparse vectors, with each sequence encoded as a batch of its own."""
        return [self.sparse([ids])[0] for ids in sequences]

    def sparse_vectors(self, samples: list[Sample]) -> list[Tensor]:
        """Returns the sparse vectors of texts, each [vocabulary]."""
        if self._program is None:
            return self.sparse_alone([self.ids(sample) for sample in samples])
        return [self._all_components(torch.tensor(line["indices"], dtype=torch.int64), torch.tensor(line["values"])) for line in self._run(samples, output="SPARSE")]

    def _all_components(self, indices: Tensor, values: Tensor) -> Tensor:
        return torch.zeros(self.content["vocabulary_size"]).scatter(0, indices, values)

    def vectors(self, samples: list[Sample], streamed: bool = False) -> Tensor:
        """Returns the vectors [samples, H] of texts, not normalized. If `streamed`, the program has one layer in memory at a time and reads all layers for each
        text."""
        if streamed and self._program is None:
            raise ExportError("a model of this size is checked through the model library; build the target longembed-embed-texts, or give --check whole.")
        if self._program is None:
            return self.alone([self.ids(sample) for sample in samples])
        return torch.tensor([line["vector"] for line in self._run(samples, ["--streamed"] if streamed else [])])

    def _run(self, samples: list[Sample], flags: Sequence[str] = (), **more) -> list[dict]:
        """Returns the program's answer for each text."""
        requests = [{"text": sample.text, **({} if sample.prompt_name is None else {"prompt_name": sample.prompt_name}), **more} for sample in samples]
        lines = "".join(json.dumps(request) + "\n" for request in requests)
        done = subprocess.run([str(self._program), *flags, str(self.folder)], input=lines, capture_output=True, text=True)
        if done.returncode != 0:
            words = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1][:300]
            raise ExportError(f"{self._program.name} failed ({words}); build it again, or leave it out with --embed-texts ''.")
        return [json.loads(line) for line in done.stdout.splitlines()]

    def special_spellings(self) -> list[str]:
        """Returns texts of the tokenizer's added tokens, special or not: the first 12 and the last 4."""
        added = [token.content for token in self.tokenizer.get_added_tokens_decoder().values()]
        return added[:12] + added[12:][-4:]

    def long_text(self) -> str:
        """Returns a text with more tokens than the trained window."""
        words = "the tide at the old harbour rose by a millimeter and a half a year"
        return " ".join([words] * (2 + self.content["trained_window"] // 8))


def _each_token(tokens: int) -> Tensor:
    """Returns spans of one token each."""
    starts = torch.arange(tokens, dtype=torch.int32)
    return torch.stack([starts, starts + 1], dim=1)

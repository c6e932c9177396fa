"""A written model directory as the server reads it: text in, vector out, from its files alone."""

import json
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
import yaml
from tokenizers import Tokenizer
from torch import Tensor

from model.export import manifest, packing
from model.export.errors import ExportError

PROGRAM = Path(__file__).resolve().parents[2] / "build/release/longembed-embed-texts"


@dataclass(frozen=True)
class Sample:
    """One text of a request. `prompt_name` is a prompt of the manifest, "" for none, or None where the request says nothing of prompts."""

    text: str
    prompt_name: str | None = None

    def prompt(self, prompts: dict[str, str], default: str | None) -> str:
        name = default if self.prompt_name is None else self.prompt_name
        return prompts[name] if name else ""


class Directory:
    """`program` is longembed-embed-texts, the model library in C++; None: tokenizer.json and encoder.pt are run from here."""

    def __init__(self, folder: Path, program: Path | None = None):
        self.folder = folder
        self.content = yaml.safe_load((folder / manifest.FILE).read_text(encoding="utf-8"))
        self.tokenizer = Tokenizer.from_file(str(folder / manifest.TOKENIZER))
        self._positions = packing.positions_of(self.content)
        # The library truncates at the plain limit, which a tuned position table has beyond its trained window.
        self._program = program if self.content["plain_limit"] == self.content["trained_window"] else None
        self.through = "the model library" if self._program else "tokenizer.json and encoder.pt in Python"

    @cached_property
    def _graph(self) -> torch.jit.ScriptModule:
        return torch.jit.load(self.folder / manifest.ENCODER).float()

    def ids(self, sample: Sample) -> list[int]:
        """As the model sees them: within the trained window, special tokens and prompt included."""
        special = self.content["special_tokens"]
        room = self.content["trained_window"] - len(special["prefix"]) - len(special["suffix"])
        prompt = sample.prompt(self.content["prompts"], self.content.get("default_prompt_name"))
        return special["prefix"] + self.tokenizer.encode(prompt + sample.text, add_special_tokens=False).ids[:room] + special["suffix"]

    def encode(self, sequences: list[list[int]]) -> Tensor:
        """[sequences, H] of one batch of the graph, not normalised."""
        with torch.inference_mode():
            return packing.encode(self._graph, sequences, self.content["pooling"], self._positions)

    def alone(self, sequences: list[list[int]]) -> Tensor:
        """The same, each sequence as a batch of its own."""
        return torch.cat([self.encode([ids]) for ids in sequences])

    def vectors(self, samples: list[Sample], streamed: bool = False) -> Tensor:
        """[samples, H] from texts, not normalised. Streamed: by the program, which has one layer in memory at a time and reads all of them for each text."""
        if streamed and self._program is None:
            raise ExportError("a model of this size is checked through the model library; build the target longembed-embed-texts, or give --check whole.")
        if self._program is None:
            return self.alone([self.ids(sample) for sample in samples])
        requests = [{"text": sample.text, **({} if sample.prompt_name is None else {"prompt_name": sample.prompt_name})} for sample in samples]
        lines = "".join(json.dumps(request) + "\n" for request in requests)
        done = subprocess.run([str(self._program), *(["--streamed"] if streamed else []), str(self.folder)], input=lines, capture_output=True, text=True)
        if done.returncode != 0:
            words = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1][:300]
            raise ExportError(f"{self._program.name} failed ({words}); build it again, or leave it out with --embed-texts ''.")
        return torch.tensor([json.loads(line)["vector"] for line in done.stdout.splitlines()])

    def special_spellings(self) -> list[str]:
        """How the tokenizer's added tokens are spelled, special or not."""
        added = [token.content for token in self.tokenizer.get_added_tokens_decoder().values()]
        return added[:12] + added[12:][-4:]

    def long_text(self) -> str:
        """More tokens than the trained window takes."""
        words = "the tide at the old harbour rose by a millimetre and a half a year"
        return " ".join([words] * (2 + self.content["trained_window"] // 8))

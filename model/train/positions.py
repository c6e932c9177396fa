"""The recipe of E5-Base-4k, which trains only the new rows between the trained rows of a position table. Short texts use only the old rows."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.train import batches
from model.train.checkpoint import STRIDE_KEY, Original, full_config, without_buffers
from model.train.corpus import Corpus
from model.train.encoder import Sequence, TextWrapper, encode, log_scale, plain
from model.train.errors import TrainError
from model.train.loop import Outcome

CONTRAST = 0.01  # Temperature of the contrastive loss between vectors and the teacher's vectors; the same as E5's.
# Temperature of the contrastive loss between questions and texts. It is higher, because a sentence is farther from its text than a text from itself.
QUESTION_CONTRAST = 0.02
REMEMBERED = 64  # Number of teacher vectors of earlier long texts that serve as further negatives.
SIBLINGS = 4
KNOTS = 33


@dataclass(frozen=True)
class Settings:
    stride: int = 8
    learning_rate: float = 3e-4
    batch_tokens: int = 4096
    long_share: float = 0.4  # Fraction of steps with long texts.
    served_share: float = 0.75  # Fraction of long batches whose positions begin at row 0.
    log_scaled_share: float = 0.5  # Fraction of long batches with attention log-scaling. The rows are for use with and without it.


class Rows(nn.Module):
    """The new rows of a table [Lo, H] that is expanded to [stride * Lo, H]. Row stride * i is bitwise equal to old row i and is not trained.

    Training each row separately would need more texts than a CPU can process in an hour. Instead, all new rows are computed by the same linear map
    from two rows. One is the row at this place if the table is repeated, so that neighboring rows are as far apart as the encoder expects. The other
    is the row at this place if the table is stretched, which distinguishes distant places. A correction that is interpolated between KNOTS places is
    added. Before training, the new rows repeat the table.
    """

    def __init__(self, table: Tensor, stride: int):
        super().__init__()
        count, width = stride * len(table), table.size(1)
        self.repeated = nn.Parameter(torch.eye(width))
        self.stretched = nn.Parameter(torch.zeros(width, width))
        self.knots = nn.Parameter(torch.zeros(KNOTS, width))
        self.register_buffer("_repeated_rows", table.repeat(stride, 1))
        self.register_buffer("_stretched_rows", stretch(table, stride))
        self.register_buffer("_new", (torch.arange(count) % stride != 0).unsqueeze(1))

    def forward(self) -> Tensor:
        bend = F.interpolate(self.knots.T.unsqueeze(0), size=len(self._new), mode="linear", align_corners=True)[0].T
        grown = self._repeated_rows @ self.repeated + self._stretched_rows @ self.stretched + bend
        return torch.where(self._new, grown, self._stretched_rows)  # The mask stops gradients to old rows.


def stretch(table: Tensor, stride: int) -> Tensor:
    """[Lo, H] -> [stride * Lo, H]. Row stride * i is bitwise equal to row i, rows between are linear interpolations, and rows after the last one
    repeat it."""
    following = torch.cat([table[1:], table[-1:]])
    return torch.stack([torch.lerp(table, following, k / stride) for k in range(stride)], dim=1).flatten(0, 1)


class Positions:
    """Trains a position table. README.md describes the losses."""

    def __init__(self, original: Original, corpus: Corpus, settings: Settings, seed: int, bfloat16: bool):
        if settings.stride < 2:
            raise TrainError(f"--stride {settings.stride} adds no rows; give at least 2.")
        self._original, self._window, self._pooling = original, original.window, original.pooling
        self._corpus, self._settings, self._seed, self._bfloat16 = corpus, settings, seed, bfloat16
        self._text = TextWrapper(original.tokenizer, original.prompts)
        if self._text.room(self._window) < batches.SHORTEST_PIECE:
            raise TrainError(f"a trained window of {self._window} tokens leaves too little room next to the prompt.")
        self._plain, self._student = (original.architecture.build(original.config, original.tensors) for _ in range(2))
        table = self._plain.embeddings.position.detach()[: self._window]
        self._rows = Rows(table, settings.stride)
        del self._student.embeddings.position  # Removed, because it is a parameter, and the table of each step is a tensor.
        self._remembered = torch.zeros(0, table.size(1))
        self.parameters, self.learning_rate = list(self._rows.parameters()), settings.learning_rate

    @property
    def rows(self) -> int:
        return self._window * self._settings.stride

    def state(self) -> dict:
        return {"rows": {name: parameter.detach() for name, parameter in self._rows.named_parameters()}, "remembered": self._remembered}

    def restore(self, state: dict) -> None:
        self._rows.load_state_dict(state["rows"], strict=False)  # The state has no buffers, which are computed from the original.
        self._remembered = state["remembered"]

    def loss(self, step: int, done: float) -> Outcome:
        draw = random.Random(f"{self._seed} {step}")
        return self._long(draw) if draw.random() < self._settings.long_share else self._short(draw)

    def _short(self, draw: random.Random) -> Outcome:
        """Returns the loss of a batch of texts within the trained window, with positions scattered over all rows. It keeps their vectors equal to the
        plain ones, and distinguishes texts of the same family."""
        shortest = self._window - self._text.room(self._window) + batches.SHORTEST_PIECE
        n = max(shortest, round(self._window * 8 ** -draw.random()))
        families = max(2, self._settings.batch_tokens // (SIBLINGS * n))
        items = batches.siblings(self._corpus, draw, self._text.room(n), min(families, 12), SIBLINGS)
        tokens = [self._text.wrap(item.text, "passage") for item in items]
        teacher = self._teacher(tokens)
        student = self._student_vectors([Sequence(ids, batches.scattered(draw, len(ids), self.rows)) for ids in tokens])
        cosine = (student * teacher).sum(dim=1).mean()
        loss = 1 - cosine + contrast(student, teacher, CONTRAST)
        return Outcome(loss, "short", cosine.item(), sum(map(len, tokens)))

    def _long(self, draw: random.Random) -> Outcome:
        """Returns the loss of a batch of texts beyond the trained window. It moves their vectors to the mean of their windows' vectors, and makes
        each text the best match of its part."""
        n = max(self._window + 1, round(self._window * self._settings.stride ** (draw.random() ** 2)))
        count = min(6, max(2, round(self._settings.batch_tokens / n)))
        items = self._long_items(draw, self._text.room(n), count)
        teacher = torch.stack([self._mean_of_windows(item.text) for item in items])
        questions = self._teacher([self._text.wrap(item.part, "query") for item in items])
        student = self._student_vectors(self._long_sequences(draw, [self._text.wrap(item.text, "passage") for item in items]))
        cosine = (student * teacher).sum(dim=1).mean()
        found = contrast(student, torch.cat([teacher, self._remembered]), CONTRAST)
        asked = contrast(questions, torch.cat([student, self._remembered]), QUESTION_CONTRAST)
        loss = 1 - cosine + 0.5 * found + 0.5 * asked
        self._remembered = torch.cat([self._remembered, teacher])[-REMEMBERED:]
        return Outcome(loss, "long", cosine.item(), len(items) * n)

    def _long_items(self, draw: random.Random, tokens: int, count: int) -> list[batches.Item]:
        if draw.random() < 0.5:
            return batches.unrelated_texts(self._corpus, draw, tokens, count)
        return batches.siblings(self._corpus, draw, tokens, count // 2, 2)

    def _long_sequences(self, draw: random.Random, tokens: list[list[int]]) -> list[Sequence]:
        """Returns sequences with positions from row 0 on, as in serving, or scattered positions, which train the last rows."""
        scaled = draw.random() < self._settings.log_scaled_share
        served = draw.random() < self._settings.served_share
        return [
            Sequence(
                ids,
                torch.arange(len(ids), dtype=torch.float32) if served else batches.scattered(draw, len(ids), self.rows),
                log_scale(len(ids), self._window) if scaled else 1.0,
            )
            for ids in tokens
        ]

    def _mean_of_windows(self, text: list[int]) -> Tensor:
        room = self._text.room(self._window)
        windows = [text[start : start + room] for start in range(0, len(text), room)]
        vectors = self._teacher([self._text.wrap(window, "passage") for window in windows])
        return F.normalize(torch.tensor([float(len(window)) for window in windows]) @ vectors, dim=0)

    def _teacher(self, tokens: list[list[int]]) -> Tensor:
        with torch.no_grad():
            return encode(self._plain, plain(tokens), self._pooling, self._bfloat16)

    def _student_vectors(self, sequences: list[Sequence]) -> Tensor:
        self._student.embeddings.position = self._rows()
        return encode(self._student, sequences, self._pooling, self._bfloat16)


    def finished(self) -> tuple[dict, dict[str, Tensor]]:
        """Returns config.json and tensors of the original with the trained table."""
        original, table, stride = self._original, self._rows().detach(), self._settings.stride
        name = next(name for name in original.tensors if name.endswith("position_embeddings.weight"))
        rows = original.tensors[name].float()
        padding = rows.size(0) - original.architecture.longest_position(original.config, original.tensors)  # XLM-RoBERTa's table has rows before position 0.
        if not torch.equal(table[::stride], rows[padding : padding + self._window]):
            raise TrainError("a trained row of the position table has changed; this is a bug in the trainer; please report it.")
        full = torch.cat([rows[:padding], table])
        config = {**full_config(original), "max_position_embeddings": full.size(0), STRIDE_KEY: stride}
        return config, {**without_buffers(original.tensors), name: full}


def contrast(vectors: Tensor, candidates: Tensor, temperature: float) -> Tensor:
    """Returns the InfoNCE loss, in which candidate i is the positive of vector i, and all others are negatives."""
    return F.cross_entropy(vectors @ candidates.T / temperature, torch.arange(len(vectors)))

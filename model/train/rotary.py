"""The recipe of e5-small-rope: a BERT is distilled into a student that has rotary positions instead of a position table."""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn

from model.export import e5_rope
from model.export.check import rotations
from model.train.checkpoint import Original, full_config, without_buffers
from model.train.corpus import Corpus, joined
from model.train.encoder import Sequence, TextWrapper, encode, plain
from model.train.errors import TrainError
from model.train.loop import Outcome

ROPE_THETA = 10_000.0
BATCH_TOKENS = 4096
SHORTEST_TEXT = 16  # In tokens.
KINDS = ("query", "passage")
FADE = 0.25  # Fraction of the budget during which the position table is still added, with a weight that falls to 0.
# Parts of a layer in the graph -> names in the checkpoint.
LAYER_NAMES = {
    "attention_output": "attention.output.dense", "attention_norm": "attention.output.LayerNorm", "intermediate": "intermediate.dense",
    "output": "output.dense", "output_norm": "output.LayerNorm",
}  # fmt: skip


class Rotary:
    """Trains all weights except the word embeddings."""

    def __init__(self, original: Original, corpus: Corpus, learning_rate: float, seed: int, bfloat16: bool):
        if original.config["model_type"] != "bert":
            raise TrainError(f"a rotary student is made from a BERT, but this checkpoint is a {original.config['model_type']}; choose another checkpoint.")
        self._original, self._corpus, self._seed, self._bfloat16 = original, corpus, seed, bfloat16
        self._text = TextWrapper(original.tokenizer, original.prompts)
        self._plain = original.architecture.build(original.config, original.tensors)
        self._config = student_config(original)
        copied = {name: tensor.clone() for name, tensor in original.tensors.items()}  # A graph shares memory with the tensors that it is built from.
        self._student = Student(e5_rope.build(self._config, copied), self._plain.embeddings.position)
        sizes = e5_rope.sizes(self._config, original.tensors)
        self._turns = rotations([original.window], sizes["rotary_dim"], sizes["rotary_base"])
        self.parameters = [parameter for parameter in self._student.parameters() if parameter.requires_grad]
        self.learning_rate = learning_rate

    def state(self) -> dict:
        return {name: parameter.detach() for name, parameter in self._student.named_parameters() if parameter.requires_grad}

    def restore(self, state: dict) -> None:
        with torch.no_grad():
            for name, parameter in self._student.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(state[name])

    def loss(self, step: int, done: float) -> Outcome:
        draw = random.Random(f"{self._seed} {step}")
        texts = self._texts(draw)
        with torch.no_grad():
            teacher = encode(self._plain, plain(texts), self._original.pooling, self._bfloat16)
        self._student.table_share = max(0.0, 1.0 - done / FADE)
        student = self._student_vectors(texts)
        cosine = (student * teacher).sum(dim=1).mean()
        return Outcome(1 - cosine, "distillation", cosine.item(), sum(map(len, texts)))

    def _student_vectors(self, texts: list[list[int]]) -> Tensor:
        return encode(self._student, [Sequence(ids, self._turns[:, :, : len(ids)]) for ids in texts], self._original.pooling, self._bfloat16)

    def _texts(self, draw: random.Random) -> list[list[int]]:
        """Returns texts of equal length, so that attention is one call. The logarithm of the length is uniformly distributed."""
        most = self._original.window
        least = min(most, max(most - self._text.room(most, kind) for kind in KINDS) + SHORTEST_TEXT)
        n = round(least * (most / least) ** draw.random())
        kinds = [draw.choice(KINDS) for _ in range(max(4, BATCH_TOKENS // n))]
        return [self._text.wrap(joined(self._corpus.stretch(draw, n))[: self._text.room(n, kind)], kind) for kind in kinds]

    def finished(self) -> tuple[dict, dict[str, Tensor]]:
        kept = {name: tensor for name, tensor in without_buffers(self._original.tensors).items() if "position_embeddings" not in name}
        trained = self._student.named_tensors()
        return self._config, {e5_rope.spelling(name): trained.get(e5_rope.spelling(name), tensor) for name, tensor in kept.items()}


class Student(nn.Module):
    """E5-RoPE's graph with the old position embeddings added, multiplied by `table_share`. Sequences start at position 0."""

    def __init__(self, graph: nn.Module, table: Tensor):
        super().__init__()
        self.graph = graph
        self.table_share = 0.0
        self.register_buffer("table", table.detach())
        for name, parameter in graph.named_parameters():
            parameter.requires_grad_(name != "embeddings.word")

    def forward(
        self, tokens: Tensor, rotary: Tensor, query_scale: Tensor, neighbor_window: Tensor, sequence_offsets: Tensor, spans: Tensor
    ) -> Tensor:
        hidden = self._embed(tokens, sequence_offsets.long())
        for layer in self.graph.layers:
            hidden = layer(hidden, rotary, query_scale, neighbor_window, sequence_offsets)
        return self.graph.pooling(hidden, spans)

    def _embed(self, tokens: Tensor, offsets: Tensor) -> Tensor:
        embeddings = self.graph.embeddings
        rows = torch.arange(len(tokens)) - offsets[:-1].repeat_interleave(offsets.diff())
        summed = nn.functional.embedding(tokens, embeddings.word) + self.table_share * self.table[rows]
        return nn.functional.layer_norm(summed, embeddings.weight.shape, embeddings.weight, embeddings.bias, embeddings.epsilon)

    def named_tensors(self) -> dict[str, Tensor]:
        """Returns the trained weights with E5-RoPE's names."""
        named = {f"embeddings.LayerNorm.{kind}": getattr(self.graph.embeddings, kind) for kind in ("weight", "bias")}
        for i, layer in enumerate(self.graph.layers):
            for kind in ("weight", "bias"):
                parts = getattr(layer.qkv, kind).chunk(3)
                named |= {f"encoder.layer.{i}.attention.self.{part}.{kind}": tensor for part, tensor in zip(("query", "key", "value"), parts)}
                named |= {f"encoder.layer.{i}.{name}.{kind}": getattr(getattr(layer, part), kind) for part, name in LAYER_NAMES.items()}
        return {name: tensor.detach().clone() for name, tensor in named.items()}


def student_config(original: Original) -> dict:
    full = full_config(original)
    return {
        **{key: value for key, value in full.items() if key not in ("_name_or_path", "position_embedding_type", "torch_dtype", "dtype")},
        "architectures": ["E5RopeModel"], "model_type": "e5rope", "embedding_size": full["hidden_size"], "max_position_embeddings": original.window,
        "rope_theta": ROPE_THETA, "rotary_value": False,
    }  # fmt: skip

"""Writes a random Mistral checkpoint of any size, one shard at a time: bf16 safetensors with an index, and a byte-fallback BPE tokenizer trained
on this repository's texts."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors, trainers

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Shape:
    hidden: int
    layers: int
    heads: int
    key_value_heads: int
    inner: int
    vocabulary: int = 32000
    positions: int = 32768
    window: int = 4096

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads


E5_MISTRAL = Shape(hidden=4096, layers=32, heads=32, key_value_heads=8, inner=14336)
SMALL = Shape(hidden=128, layers=3, heads=8, key_value_heads=2, inner=384)


def save(folder: Path, shape: Shape, layers_in_shard: int = 8) -> Path:
    folder.mkdir(parents=True)
    _save_tokenizer(folder, shape)
    config = {
        "architectures": ["MistralModel"], "model_type": "mistral", "hidden_act": "silu", "hidden_size": shape.hidden, "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads, "num_key_value_heads": shape.key_value_heads, "vocab_size": shape.vocabulary,
        "max_position_embeddings": shape.positions, "sliding_window": shape.window, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "torch_dtype": "bfloat16",
        "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    numbers = _Numbers()
    first = [("embed_tokens.weight", (shape.vocabulary, shape.hidden)), ("norm.weight", (shape.hidden,))]
    shards = [first] + [
        [entry for layer in range(start, min(start + layers_in_shard, shape.layers)) for entry in _layer(layer, shape)]
        for start in range(0, shape.layers, layers_in_shard)
    ]
    weight_map = {}
    for number, entries in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        safetensors.torch.save_file({key: numbers.tensor(key, size) for key, size in entries}, folder / name, metadata={"format": "pt"})
        weight_map |= {key: name for key, _ in entries}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def _layer(number: int, shape: Shape) -> list[tuple[str, tuple[int, ...]]]:
    keys = shape.key_value_heads * shape.head_dim
    sizes = {
        "input_layernorm": (shape.hidden,), "self_attn.q_proj": (shape.hidden, shape.hidden), "self_attn.k_proj": (keys, shape.hidden),
        "self_attn.v_proj": (keys, shape.hidden), "self_attn.o_proj": (shape.hidden, shape.hidden), "post_attention_layernorm": (shape.hidden,),
        "mlp.gate_proj": (shape.inner, shape.hidden), "mlp.up_proj": (shape.inner, shape.hidden), "mlp.down_proj": (shape.hidden, shape.inner),
    }  # fmt: skip
    return [(f"layers.{number}.{name}.weight", size) for name, size in sizes.items()]


class _Numbers:
    """Random weights. They are slices of one pool from random places, because drawing billions of numbers takes minutes."""

    POOL = (1 << 25) - 39  # Not a multiple of the length of a row.

    def __init__(self):
        self._generator = torch.Generator().manual_seed(0)
        self._pool = torch.randn(self.POOL, generator=self._generator).to(torch.bfloat16)

    def tensor(self, name: str, size: tuple[int, ...]) -> torch.Tensor:
        """Returns a weight. Its scale keeps the size of products close to that of their inputs. Norms are around 1."""
        if "norm" in name:
            return (1 + 0.2 * torch.randn(size, generator=self._generator)).to(torch.bfloat16)
        scale = 1.0 if "embed" in name else 2.0 ** round(math.log2(size[1]) / -2)  # A power of two, so that multiplying by it is exact.
        start = int(torch.randint(self.POOL, (1,), generator=self._generator))
        count = math.prod(size)
        more = -(-max(0, start + count - self.POOL) // self.POOL)
        return (torch.cat([self._pool[start : start + count], *[self._pool] * more])[:count] * scale).view(size)


def _save_tokenizer(folder: Path, shape: Shape) -> None:
    """Saves a tokenizer like Mistral's: SentencePiece's BPE with one token per byte, a mark at the start of each word, and BOS before a text."""
    specials = ["<unk>", "<s>", "</s>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(vocab_size=min(shape.vocabulary, 4000), special_tokens=specials + [f"<0x{byte:02X}>" for byte in range(256)], show_progress=False)
    words = " ".join(file.read_text(encoding="utf-8") for file in sorted(ROOT.glob("*/*/README.md"))).split()
    tokenizer.train_from_iterator(words, trainer)
    # The tokenizer must treat the trainer's special tokens as ordinary ones, because a text may contain them.
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] in specials]
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in specials])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))

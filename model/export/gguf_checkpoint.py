"""Reads a Llama model from a llama.cpp file (GGUF): dequantized weights with transformers' names, the configuration and the tokenizer."""

import json
from pathlib import Path

import torch
from gguf import GGUFReader, dequantize

from model.export.errors import ExportError

NAMES = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
CONTROL = 3  # The token type of special tokens.


def read(file: Path) -> dict:
    """Returns config, tensors and tokenizer, in the form of folder.Checkpoint."""
    reader = GGUFReader(file)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    if fields["general.architecture"] != "llama" or fields.get("tokenizer.ggml.pre") != "smollm":
        raise ExportError(f"{file.name} is not a Llama with SmolLM's tokenizer, the only kind of GGUF file that is supported; give a Hugging Face checkpoint.")
    config = {
        "model_type": "llama",
        "hidden_size": fields["llama.embedding_length"],
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": fields["llama.attention.head_count"],
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "max_position_embeddings": fields["llama.context_length"],
        "rms_norm_eps": fields["llama.attention.layer_norm_rms_epsilon"],
        "rope_theta": fields["llama.rope.freq_base"],
        "vocab_size": len(fields["tokenizer.ggml.tokens"]),
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
    }
    tensors = dict(_tensor(item, config) for item in reader.tensors if item.name != "output.weight")
    return {"config": config, "tensors": tensors, "tokenizer": _tokenizer(fields)}


def _tensor(item, config: dict) -> tuple[str, torch.Tensor]:
    weight = torch.from_numpy(dequantize(item.data, item.tensor_type).copy()).to(torch.float32)
    if item.name == "token_embd.weight":
        return "embed_tokens.weight", weight
    if item.name == "output_norm.weight":
        return "norm.weight", weight
    _, layer, kind, _ = item.name.split(".")
    if kind == "attn_q":
        weight = _halves(weight, config["num_attention_heads"])
    if kind == "attn_k":
        weight = _halves(weight, config["num_key_value_heads"])
    return f"layers.{layer}.{NAMES[kind]}.weight", weight


def _halves(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Restores the order of rows in each head. llama.cpp rotates neighboring components and reorders the rows for it."""
    rows, columns = weight.shape
    return weight.view(heads, rows // heads // 2, 2, columns).transpose(1, 2).reshape(rows, columns)


def _tokenizer(fields: dict) -> str:
    """Returns tokenizer.json: byte-level BPE after separating every digit."""
    words = fields["tokenizer.ggml.tokens"]
    special = [
        {"id": i, "content": words[i], "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        for i, kind in enumerate(fields["tokenizer.ggml.token_type"])
        if kind == CONTROL
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return json.dumps(
        {
            "version": "1.0",
            "added_tokens": special,
            "normalizer": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level]},
            "post_processor": byte_level,
            "decoder": byte_level,
            "model": {
                "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False,
                "byte_fallback": False, "vocab": {word: i for i, word in enumerate(words)}, "merges": fields["tokenizer.ggml.merges"],
            },
        },  # fmt: skip
        ensure_ascii=False,
    )

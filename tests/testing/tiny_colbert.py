"""Small random ColBERT checkpoints, in the formats of sentence-transformers, PyLate and Stanford's ColBERT."""

import json
import string
from pathlib import Path

import safetensors.torch
import tiny_checkpoints
import torch
from tiny_sparse import write
from tokenizers import AddedToken, Tokenizer

QUERY_LENGTH, DOCUMENT_LENGTH, SIZE = 9, 20, 24
PYLATE = {
    "model_type": "ColBERT", "query_prefix": "[Q] ", "document_prefix": "[D] ", "query_length": QUERY_LENGTH, "document_length": DOCUMENT_LENGTH,
    "attend_to_expansion_tokens": False, "do_query_expansion": True, "skiplist_words": list(string.punctuation), "prompts": {}, "similarity_fn_name": "MaxSim",
}  # fmt: skip
IDENTITY = "torch.nn.modules.linear.Identity"


def save_pylate(folder: Path, kind: str = "bert", residual: bool = False, **changes) -> Path:
    """Saves [Transformer, Dense] with PyLate's settings files. "[Q] " and "[D] " are tokens of their own."""
    _save(kind, folder, ["[Q] ", "[D] "])
    tail = ["sentence_transformers.models.Transformer", "pylate.models.Dense.Dense"]
    write(folder / "modules.json", [{"idx": i, "name": str(i), "path": ["", "1_Dense"][i], "type": name} for i, name in enumerate(tail)])
    write(folder / "1_Dense" / "config.json", {"in_features": 64, "out_features": SIZE, "bias": False, "activation_function": IDENTITY, "use_residual": residual})
    extra = {"residual.weight": _weight(2)} if residual else {}
    safetensors.torch.save_file({"linear.weight": _weight(1), **extra}, folder / "1_Dense" / "model.safetensors")
    content = {key: value for key, value in (PYLATE | changes).items() if value is not ...}
    write(folder / "config_sentence_transformers.json", content)
    return folder


def save_native(folder: Path, kind: str = "bert", expansion: dict | None = None, mask: dict | None = None, **settings) -> Path:
    """Saves [Transformer, Dense, MultiVectorMask, Normalize], with plain-text prompts."""
    _save(kind, folder, [])
    kinds = [
        ("", "base.modules.transformer.Transformer"), ("1_Dense", "base.modules.dense.Dense"), ("2_MultiVectorMask", "multi_vector_encoder.modules.MultiVectorMask"),
        ("3_Normalize", "base.modules.normalize.Normalize"),
    ]  # fmt: skip
    write(folder / "modules.json", [{"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.{kind}"} for i, (path, kind) in enumerate(kinds)])
    write(folder / "sentence_bert_config.json", {"query_expansion": expansion, **settings})
    write(folder / "1_Dense" / "config.json", {"in_features": 64, "out_features": SIZE, "bias": True, "activation_function": "torch.nn.modules.activation.Tanh", "module_input_name": "token_embeddings"})  # fmt: skip
    safetensors.torch.save_file({"linear.weight": _weight(1), "linear.bias": _weight(3)[:, 0].clone()}, folder / "1_Dense" / "model.safetensors")
    write(folder / "2_MultiVectorMask" / "config.json", {"skiplist_words": ["the", ".", "a"], **(mask or {})})
    write(folder / "3_Normalize" / "config.json", {"module_input_name": "token_embeddings"})
    write(folder / "config_sentence_transformers.json", {"model_type": "MultiVectorEncoder", "prompts": {"query": "q: ", "document": "d: "}})
    return folder


def save_stanford(folder: Path, metadata: dict | None = None) -> Path:
    """Saves a BertModel under `bert.`, linear.weight, and artifact.metadata."""
    _save("bert", folder, ["[unused0]", "[unused1]"], registered=False)
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    tensors = {f"bert.{name}": tensor for name, tensor in tensors.items()} | {"linear.weight": _weight(1)}
    safetensors.torch.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    write(folder / "config.json", config | {"architectures": ["HF_ColBERT"]})
    content = {"query_maxlen": QUERY_LENGTH, "doc_maxlen": DOCUMENT_LENGTH, "mask_punctuation": True, "attend_to_mask_tokens": False}
    write(folder / "artifact.metadata", content | (metadata or {}))
    return folder


def _weight(seed: int) -> torch.Tensor:
    return torch.randn(SIZE, 64, generator=torch.Generator().manual_seed(seed))


def _save(kind: str, folder: Path, markers: list[str], registered: bool = True) -> None:
    """Saves the network and its tokenizer, which has a mask token and the markers. If `registered`, markers are added tokens that a lower-casing
    tokenizer does not find. Otherwise they are words of the vocabulary."""
    tiny_checkpoints.save(kind, folder)
    content = json.loads(tiny_checkpoints.tiny_tokenizer().to_str())
    vocabulary = content["model"]["vocab"]
    for word in ("[MASK]", *([] if registered else markers)):
        vocabulary[word] = len(vocabulary)
    tokenizer = Tokenizer.from_str(json.dumps(content))
    if registered:
        tokenizer.add_tokens([AddedToken(marker, normalized=True) for marker in markers])
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]", "model_max_length": tiny_checkpoints.WINDOW}
    write(folder / "tokenizer_config.json", tiny_checkpoints.TOKENIZER_CONFIG | special)

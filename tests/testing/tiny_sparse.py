"""Small random checkpoints with sparse heads, in the formats of sentence-transformers, transformers and FlagEmbedding."""

import json
from pathlib import Path

import tiny_checkpoints
import torch
import transformers

# Maps the key of a network in tiny_checkpoints to the masked language model that is built on it.
MASKED = {
    "bert": "BertForMaskedLM", "distilbert": "DistilBertForMaskedLM", "roberta": "RobertaForMaskedLM", "xlm-roberta": "XLMRobertaForMaskedLM",
    "camembert": "CamembertForMaskedLM", "mpnet": "MPNetForMaskedLM", "modernbert": "ModernBertForMaskedLM",
}  # fmt: skip
MODULES = [("0", "", "sentence_transformers.base.modules.transformer.Transformer"), ("1", "1_SpladePooling", "sentence_transformers.sparse_encoder.modules.SpladePooling")]


def save_splade(kind: str, folder: Path, strategy: str = "max", activation: str = "relu", modules: bool = True, tied: bool = True) -> Path:
    """Saves a masked language model. With `modules`, adds the files that make it a SparseEncoder. About half of all logits are positive."""
    torch.manual_seed(1)
    folder.mkdir(parents=True, exist_ok=True)
    network, template = (tiny_checkpoints.KINDS | tiny_checkpoints.FAMILIES)[kind]()
    network.config.tie_word_embeddings = tied
    model = getattr(transformers, MASKED[kind])(network.config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name.lower() or name.endswith("bias"):
                parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    _save_tokenizer(folder, template)
    if modules:
        entries = [{"idx": int(name), "name": name, "path": path, "type": kind} for name, path, kind in MODULES]
        write(folder / "modules.json", entries)
        modality = {"text": {"method": "forward", "method_output_name": "logits"}}
        write(folder / "sentence_bert_config.json", {"transformer_task": "fill-mask", "modality_config": modality, "module_output_name": "token_embeddings"})
        write(folder / "1_SpladePooling" / "config.json", {"pooling_strategy": strategy, "activation_function": activation, "embedding_dimension": 300})
        write(folder / "config_sentence_transformers.json", {"model_type": "SparseEncoder", "prompts": {"query": "q: ", "document": ""}, "similarity_fn_name": "dot"})
    return folder


def save_bge_m3(folder: Path) -> Path:
    """Saves an XLM-R with CLS pooling, and the linear layer of bge-m3's sparse vectors next to its weights."""
    tiny_checkpoints.save("xlm-roberta", folder)
    _save_tokenizer(folder, "[CLS] $A [SEP]")
    generator = torch.Generator().manual_seed(2)
    torch.save({"weight": 0.3 * torch.randn(1, 64, generator=generator), "bias": torch.tensor([0.1])}, folder / "sparse_linear.pt")
    write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": 64, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False})
    kinds = [("", "models.Transformer"), ("1_Pooling", "models.Pooling"), ("2_Normalize", "models.Normalize")]
    write(folder / "modules.json", [{"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.{kind}"} for i, (path, kind) in enumerate(kinds)])
    return folder


def _save_tokenizer(folder: Path, template: str) -> None:
    tiny_checkpoints.tiny_tokenizer(template).save(str(folder / "tokenizer.json"))
    special = {"cls_token": "[CLS]", "sep_token": "[SEP]", "eos_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]", "model_max_length": tiny_checkpoints.WINDOW}
    write(folder / "tokenizer_config.json", tiny_checkpoints.TOKENIZER_CONFIG | special)


def write(file: Path, content) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))

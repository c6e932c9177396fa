"""Small random checkpoints of every architecture, saved in Hugging Face's format. Their weights are large enough for every mistake to show."""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import safetensors.torch  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors  # noqa: E402

WINDOW = 32  # The trained window, Lo.
COMMON = {"hidden_size": 64, "num_hidden_layers": 3, "intermediate_size": 96, "vocab_size": 300, "initializer_range": 0.25}


# Makes transformers use tokenizer.json as it is, instead of building a tokenizer for the model type from its vocabulary.
TOKENIZER_CONFIG = {"tokenizer_class": "PreTrainedTokenizerFast"}


def tiny_tokenizer(template: str = "[CLS] $A [SEP]") -> Tokenizer:
    """Returns a tokenizer with one token per printable character. Its special tokens do not have BERT's usual ids (1 is the padding token, as in
    XLM-R). It has truncation and padding settings, which the exporter must strip."""
    words = ["[UNK]", "[PAD]", "[SEP]", "[CLS]"] + [chr(code) for code in range(33, 127)] + ["##" + chr(code) for code in range(33, 127)]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if template != "$A":
        tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=[("[CLS]", 3), ("[SEP]", 2)])
    tokenizer.enable_truncation(16)
    tokenizer.enable_padding(length=16)
    return tokenizer


def save(kind: str, folder: Path) -> Path:
    """Saves a checkpoint. `kind` is a key of KINDS or FAMILIES. Norms and biases are random too, because ones and zeros would hide swapped
    tensors."""
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    model, template = (KINDS | FAMILIES)[kind]()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name.lower() or name.endswith("bias"):
                parameter.add_(0.2 * torch.randn_like(parameter))
    if kind == "e5rope":
        save_e5_rope(model, folder)
    else:
        model.save_pretrained(folder)
    tiny_tokenizer(template).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG))
    return folder


def expand_positions(folder: Path, stride: int) -> Path:
    """Replaces the position table of a saved BERT by one with `stride` rows per original row, like a tuned table. Rows between the original ones
    are random."""
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith("position_embeddings.weight"))
    rows, width = tensors[name].shape
    expanded = torch.randn(stride * rows, width, generator=torch.Generator().manual_seed(1))
    expanded[::stride] = tensors[name]
    safetensors.torch.save_file({**tensors, name: expanded}, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": stride * rows}))
    return folder


def save_e5_rope(bert: torch.nn.Module, folder: Path) -> None:
    """Saves an E5-RoPE checkpoint, which transformers does not support. Its tensors have BERT's names, without the position table."""
    config = {
        "model_type": "e5rope", "num_attention_heads": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "max_position_embeddings": WINDOW,
        "rope_theta": 10000.0, "rotary_value": False, "embedding_size": 64, **COMMON,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {name: tensor for name, tensor in bert.state_dict().items() if "position_embeddings" not in name}
    safetensors.torch.save_file(tensors, folder / "model.safetensors")


def _bert():
    config = transformers.BertConfig(num_attention_heads=4, max_position_embeddings=WINDOW, **COMMON)
    return transformers.BertModel(config, add_pooling_layer=False), "[CLS] $A [SEP]"


def _bert_variant(name: str, **more):
    """Returns a RoBERTa, CamemBERT, XLM-R or MPNet. Their position tables begin with the row of the padding token and one more unused row."""
    config = getattr(transformers, name + "Config")(num_attention_heads=4, max_position_embeddings=WINDOW + 2, pad_token_id=1, **COMMON, **more)
    return getattr(transformers, name + "Model")(config, add_pooling_layer=False), "[CLS] $A [SEP]"


def _electra():
    config = transformers.ElectraConfig(num_attention_heads=4, max_position_embeddings=WINDOW, embedding_size=64, pad_token_id=1, **COMMON)
    return transformers.ElectraModel(config), "[CLS] $A [SEP]"


def _distilbert():
    config = transformers.DistilBertConfig(
        dim=64, n_layers=3, hidden_dim=96, n_heads=4, vocab_size=300, initializer_range=0.25, max_position_embeddings=WINDOW, pad_token_id=1
    )
    return transformers.DistilBertModel(config), "[CLS] $A [SEP]"


def _nomic_bert():
    rope = {"rope_type": "default", "rope_theta": 1000.0}
    config = transformers.NomicBertConfig(num_attention_heads=2, max_position_embeddings=WINDOW, rope_parameters=rope, **COMMON)
    return transformers.NomicBertModel(config, add_pooling_layer=False), "[CLS] $A [SEP]"


def _decoder(config_class, model_class, template, **more):
    settings = {
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": WINDOW, "eos_token_id": 2, "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, **COMMON,
    }  # fmt: skip
    return model_class(config_class(**settings | more)), template


def _two_bases(base: float) -> dict:
    return {"full_attention": {"rope_type": "default", "rope_theta": base}, "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}


def _modernbert(**more):
    config = transformers.ModernBertConfig(
        num_attention_heads=2, max_position_embeddings=WINDOW, local_attention=16, layer_types=["full_attention", "sliding_attention", "full_attention"],
        rope_parameters=_two_bases(160000.0), pad_token_id=1, **COMMON, **more,
    )  # fmt: skip
    return transformers.ModernBertModel(config), "[CLS] $A [SEP]"


def _gte():
    rope = {"rope_type": "default", "rope_theta": 160000.0}
    config = transformers.GteConfig(num_attention_heads=2, max_position_embeddings=WINDOW, rope_parameters=rope, pad_token_id=1, **COMMON)
    return transformers.GteModel(config), "[CLS] $A [SEP]"


def _gemma3():
    config = transformers.Gemma3TextConfig(
        num_attention_heads=4, num_key_value_heads=2, head_dim=24, max_position_embeddings=WINDOW, sliding_window=16, use_bidirectional_attention=True,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"], rope_parameters=_two_bases(1e6), query_pre_attn_scalar=10,
        pad_token_id=1, **COMMON,
    )  # fmt: skip
    return transformers.Gemma3TextModel(config), "[CLS] $A [SEP]"


def _bidirectional(config_class, model_class, **more):
    """Returns a model trained with bidirectional attention. transformers >= 5.2 honors `is_causal`."""
    model, template = _decoder(config_class, model_class, "[CLS] $A [SEP]", **more)
    model.config.is_causal = False
    return model, template


KINDS = {
    "bert": _bert,
    "xlm-roberta": lambda: _bert_variant("XLMRoberta", type_vocab_size=1),
    "e5rope": _bert,
    "nomic_bert": _nomic_bert,
    "llama": lambda: _decoder(transformers.LlamaConfig, transformers.LlamaModel, "$A [SEP]"),
    "mistral": lambda: _decoder(transformers.MistralConfig, transformers.MistralModel, "$A", sliding_window=WINDOW),
}
# Further networks. Each shares most of its parts with one of KINDS.
FAMILIES = {
    "roberta": lambda: _bert_variant("Roberta"),
    "camembert": lambda: _bert_variant("Camembert", type_vocab_size=1),
    "distilbert": _distilbert,
    "electra": _electra,
    "mpnet": lambda: _bert_variant("MPNet"),
    "qwen2": lambda: _decoder(transformers.Qwen2Config, transformers.Qwen2Model, "$A [SEP]"),
    "qwen3": lambda: _decoder(transformers.Qwen3Config, transformers.Qwen3Model, "[CLS] $A [SEP]", head_dim=24),
    "biased-llama": lambda: _decoder(transformers.LlamaConfig, transformers.LlamaModel, "$A", attention_bias=True, mlp_bias=True),
    "bidirectional-llama": lambda: _bidirectional(transformers.LlamaConfig, transformers.LlamaModel),
    "bidirectional-mistral": lambda: _bidirectional(transformers.MistralConfig, transformers.MistralModel, sliding_window=None),
    "bidirectional-qwen2": lambda: _bidirectional(transformers.Qwen2Config, transformers.Qwen2Model),
    "eurobert": lambda: _decoder(
        transformers.EuroBertConfig, transformers.EuroBertModel, "[CLS] $A [SEP]", pad_token_id=1, bos_token_id=3, mask_token_id=0
    ),
    "modernbert": _modernbert,
    "biased-modernbert": lambda: _modernbert(norm_bias=True, attention_bias=True, mlp_bias=True),
    "gte": _gte,
    "gemma3_text": _gemma3,
}

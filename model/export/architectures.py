"""Maps architectures to the modules that export them. README.md describes the interface of such a module."""

import importlib
from types import ModuleType

from model.export.errors import ExportError

# transformers' model_type -> module of this package. Modules are imported when needed, because each imports torch.
MODULES = {
    "bert": "bert",
    "camembert": "roberta",
    "distilbert": "distilbert",
    "e5rope": "e5_rope",
    "electra": "electra",
    "eurobert": "eurobert",
    "gemma3_text": "gemma",
    "gte": "gte",
    "llama": "decoder",
    "mistral": "decoder",
    "modernbert": "modernbert",
    "mpnet": "mpnet",
    "new": "gte",
    "nomic_bert": "nomic_bert",
    "qwen2": "decoder",
    "qwen3": "decoder",
    "roberta": "roberta",
    "xlm-roberta": "xlm_roberta",
}


def find(config: dict) -> ModuleType:
    """Returns the module for a checkpoint's config.json. Raises ExportError if the config has anything that the module cannot export."""
    model_type = config.get("model_type", "none")
    if model_type not in MODULES:
        raise ExportError(f"architecture {model_type!r} is not supported (known: {', '.join(sorted(MODULES))}); choose another checkpoint.")
    name = MODULES[model_type]
    if name == "decoder" and config.get("is_causal") is False:
        name = "bidirectional_decoder"
    module = importlib.import_module(f"model.export.{name}")
    module.refuse_unsupported(config)
    return module

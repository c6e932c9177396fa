"""Which module exports which architecture. README.md says what such a module has to offer."""

import importlib
from types import ModuleType

from model.export.errors import ExportError

# transformers' model_type -> module of this package, imported when needed because each brings torch along.
MODULES = {
    "bert": "bert", "xlm-roberta": "xlm_roberta", "e5rope": "e5_rope", "nomic_bert": "nomic_bert", "llama": "decoder", "mistral": "decoder",
}  # fmt: skip


def find(config: dict) -> ModuleType:
    """The module for a checkpoint's config.json, after it has looked through the config for anything that it cannot export."""
    model_type = config.get("model_type", "none")
    if model_type not in MODULES:
        raise ExportError(f"architecture {model_type!r} is not one that this exporter knows ({', '.join(sorted(MODULES))}); choose another checkpoint.")
    module = importlib.import_module(f"model.export.{MODULES[model_type]}")
    module.refuse_unsupported(config)
    return module

"""Refuses quantized weights, and settings that the architecture's module does not support: the checkpoint's own code, scaled rotations, `is_causal`.

An architecture's module declares what it supports with these optional names:
`OWN_CODE` (bool): the module reproduces the code in the checkpoint's auto_map;
`ROPE_TYPES` (tuple of rope_type): the supported scalings of rotary positions besides "default";
`ROPE_BY_LAYER_TYPE` (bool): the module reads rope_parameters per kind of layer;
`is_causal(config)`: returns whether attention is causal.
"""

import json
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Iterator

from model.export.errors import ExportError

if TYPE_CHECKING:
    from torch import Tensor

OWN_CODE_TYPES = ("nomic_bert", "e5rope")  # Modules of these types reproduce the published code without declaring OWN_CODE.
QUANTIZATION_KEYS = ("quantization_config", "compression_config", "quantization")
QUANTIZATION_FILES = ("quantize_config.json", "quant_config.json", "hf_quant_config.json", "quanto_qmap.json")
# Names of tensors that accompany a quantized weight: FP8, compressed-tensors, GPTQ, AWQ, bitsandbytes, HQQ.
QUANTIZATION_TENSORS = (
    ".weight_scale", ".weight_scale_inv", ".weight_zero_point", ".weight_packed", ".input_scale", ".qweight", ".qzeros", ".scales", ".g_idx", ".SCB",
    ".absmax", ".quant_map", ".quant_state.bitsandbytes__nf4", ".quant_state.bitsandbytes__fp4", ".weight_format", ".W_q",
)  # fmt: skip
SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size", "max_position_embeddings")
OPTIONAL_SIZES = ("num_key_value_heads", "head_dim", "sliding_window", "type_vocab_size")
MAY_BE_ZERO = ("type_vocab_size",)  # gte without token types.
NUMBERS = ("layer_norm_eps", "layer_norm_epsilon", "rms_norm_eps", "rope_theta")


def refuse_form(config: dict) -> None:
    """Raises ExportError for invalid values in config.json, before an architecture's module reads them, and for quantized weights."""
    _refuse_wrong_types(config)
    for path, value in _nested(config):
        if path.rsplit(".", 1)[-1] in QUANTIZATION_KEYS and value not in (None, {}, [], False):
            raise ExportError(
                f"the checkpoint is quantized (config.json: {path}, method {_method(value)}), but only plain float weights are exported; "
                "export the checkpoint that it was made from, or dequantize and save it."
            )


def refuse_config(config: dict, architecture: ModuleType) -> None:
    """Raises ExportError for settings of config.json that change vectors and that `architecture` does not support."""
    auto_map = config.get("auto_map")
    if auto_map and not has_own_code(config, architecture):
        raise ExportError(
            f"config.json names the checkpoint's own modeling code (auto_map = {json.dumps(auto_map)[:120]}), which may compute other vectors than "
            f"transformers' {config.get('model_type')}; choose a checkpoint without it."
        )
    if config.get("transformers_weights"):
        raise ExportError("config.json names its own weights file (transformers_weights), which is not followed; rename that file to model.safetensors.")
    if config.get("is_causal") is False and architecture.CAUSAL and not hasattr(architecture, "is_causal"):
        raise ExportError(
            f"config.json says is_causal = false, but {config.get('model_type')} is exported with causal attention only; choose another checkpoint."
        )
    _refuse_rope(config, architecture)


def has_own_code(config: dict, architecture: ModuleType) -> bool:
    """Returns whether `architecture` computes the same as the checkpoint's published code."""
    return getattr(architecture, "OWN_CODE", config.get("model_type") in OWN_CODE_TYPES)


def refuse_weights(tensors: dict[str, "Tensor"], folder: Path | None) -> None:
    """Raises ExportError for weights that are not floating-point numbers."""
    for name, tensor in tensors.items():
        quantized = name.endswith(QUANTIZATION_TENSORS)
        stored = str(tensor.dtype).removeprefix("torch.")
        if quantized or stored.startswith("float8") or name.endswith((".weight", ".bias")) and not tensor.is_floating_point():
            raise ExportError(
                f"the checkpoint is quantized (tensor {name}, {stored}), but only plain float weights are exported; export the checkpoint that it was made "
                "from, or dequantize and save it."
            )
    for name in QUANTIZATION_FILES if folder else ():
        if (folder / name).is_file():
            raise ExportError(
                f"the checkpoint is quantized ({name} is next to its weights), but only plain float weights are exported; export the checkpoint that it was "
                "made from."
            )


def _refuse_wrong_types(config: dict) -> None:
    for key in (*SIZES, *OPTIONAL_SIZES):
        value = config.get(key)
        least = 0 if key in MAY_BE_ZERO else 1
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= least
        if key in config and not whole and not (value is None and key in OPTIONAL_SIZES):
            raise ExportError(f"config.json says {key} = {json.dumps(value)[:80]}, which must be a whole number from {least} on; correct it.")
    for key in NUMBERS:
        value = config.get(key)
        if key in config and (isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0):
            raise ExportError(f"config.json says {key} = {json.dumps(value)[:80]}, which must be a number above 0; correct it.")
    if not isinstance(config.get("model_type", ""), str):
        raise ExportError(f"config.json says model_type = {json.dumps(config['model_type'])[:80]}, which must be an architecture's name; correct it.")
    classes = config.get("architectures") or []
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ExportError(f"config.json says architectures = {json.dumps(classes)[:80]}, which must be an array of names; correct it.")
    for key in ("rope_parameters", "rope_scaling"):
        if not isinstance(config.get(key, {}), (dict, type(None))):
            raise ExportError(f"config.json says {key} = {json.dumps(config[key])[:80]}, which must be an object; correct it.")
    hidden, heads = config.get("hidden_size"), config.get("num_attention_heads")
    if hidden and heads and not config.get("head_dim") and hidden % heads:
        raise ExportError(
            f"config.json says num_attention_heads = {heads}, which does not divide hidden_size = {hidden}; take it from the original checkpoint."
        )


def _refuse_rope(config: dict, architecture: ModuleType) -> None:
    allowed = ("default", *getattr(architecture, "ROPE_TYPES", ()))
    for key in ("rope_parameters", "rope_scaling"):
        rope = config.get(key)
        if rope is None:
            continue
        by_layer = [name for name, value in rope.items() if isinstance(value, dict)]
        if by_layer and not getattr(architecture, "ROPE_BY_LAYER_TYPE", False):
            raise ExportError(
                f"config.json gives each kind of layer its own rotary positions ({key}.{by_layer[0]}), which is not exported for {config.get('model_type')}; "
                "choose another checkpoint."
            )
        for scaling in [rope[name] for name in by_layer] or [rope]:
            kind = scaling.get("rope_type", scaling.get("type", "default"))
            if kind not in allowed:
                raise ExportError(
                    f"config.json scales its rotary positions ({key}: {json.dumps(kind)}), which is not exported; export the model that it was made from, and set the "
                    "scaling in requests."
                )


def _nested(config: dict, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yields every key of a configuration with its path and value, including nested configurations."""
    for key, value in config.items():
        yield prefix + str(key), value
        if isinstance(value, dict):
            yield from _nested(value, f"{prefix}{key}.")


def _method(quantization) -> str:
    found = quantization.get("quant_method") or quantization.get("quant_type") if isinstance(quantization, dict) else None
    return str(found or "unknown")

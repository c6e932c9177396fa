"""Builds transformers' own model of a checkpoint, which is the oracle of the check."""

import inspect

from torch import Tensor, nn

from model.export.weights import load_reference

# Keys that do not affect the computation.
STORAGE = ("dtype", "torch_dtype", "auto_map", "architectures", "transformers_version")


def transformers_model(config: dict, tensors: dict[str, Tensor], **changes) -> nn.Module:
    """Returns a model of transformers' class for the config's model_type, with these weights in float32. `changes` override the config."""
    from transformers import CONFIG_MAPPING, MODEL_MAPPING

    settings = {key: value for key, value in {**config, **changes}.items() if key not in STORAGE}
    model_config = CONFIG_MAPPING[settings.pop("model_type")].from_dict(settings, attn_implementation="eager")
    model_class = MODEL_MAPPING[type(model_config)]
    without_pooler = {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(model_class).parameters else {}
    model = model_class(model_config, **without_pooler)
    prefix = model.base_model_prefix + "."
    return load_reference(model, {name.removeprefix(prefix): tensor.float() for name, tensor in tensors.items() if tensor.is_floating_point()})

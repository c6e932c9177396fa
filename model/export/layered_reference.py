"""Runs a checkpoint as its users do, with transformers' class in float32, but with the weights of one layer in memory at a time. Needs safetensors files.

Runs in the process of reference_process.py, for checkpoints with billions of weights. All texts go through a layer together, as one padded batch.
"""

import inspect
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

import torch
from torch import Tensor, nn

from model.export import files


@contextmanager
def _without_memory() -> Iterator[None]:
    """Creates modules with their weights on the meta device. Tables that are not weights are created in memory."""
    register = nn.Module.register_parameter

    def on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        register(module, name, parameter if parameter is None else nn.Parameter(parameter.to("meta"), requires_grad=False))

    nn.Module.register_parameter = on_meta
    try:
        yield
    finally:
        nn.Module.register_parameter = register


class _Weights:
    """The checkpoint's tensors, by their names in the model class."""

    def __init__(self, folder: Path, model: nn.Module):
        prefix = model.base_model_prefix + "."
        self._names = {name.removeprefix(prefix): (file, name) for name, file in files.locate_tensors(folder).items()}
        self._of = {id(parameter): name for name, parameter in model.named_parameters()}
        if missing := sorted(set(self._of.values()) - set(self._names)):
            raise ValueError(f"no file holds {missing[0]}, which {type(model).__name__} needs")

    def read(self, meta: nn.Parameter) -> nn.Parameter:
        from safetensors import safe_open

        file, name = self._names[self._of[id(meta)]]
        with safe_open(file, framework="pt") as shard:
            tensor = shard.get_tensor(name).to(torch.float32, copy=True)
        if tensor.shape != meta.shape:
            raise ValueError(f"{name} is {tuple(tensor.shape)} instead of {tuple(meta.shape)}")
        return nn.Parameter(tensor, requires_grad=False)


def load(folder: str) -> nn.Module:
    """Returns a model of the class that AutoModel would choose. Layers read their weights when they run and drop them afterwards. The other weights are read at
    once."""
    from transformers import MODEL_MAPPING, AutoConfig

    config = AutoConfig.from_pretrained(folder, attn_implementation="eager")
    model_class = MODEL_MAPPING[type(config)]
    no_pooler = {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(model_class).parameters else {}
    with _without_memory():
        model = model_class(config, **no_pooler).eval()
    weights = _Weights(Path(folder), model)
    layers = [layer for module in model.modules() if isinstance(module, nn.ModuleList) for layer in module]
    in_layers = {id(parameter) for layer in layers for parameter in layer.parameters()}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and id(parameter) not in in_layers:
                module._parameters[name] = weights.read(parameter)
    for layer in layers:
        _read_when_it_runs(layer, weights)
    return model


def _read_when_it_runs(layer: nn.Module, weights: _Weights) -> None:
    places = [(module, name, parameter) for module in layer.modules() for name, parameter in module._parameters.items() if parameter is not None]

    def read(*_) -> None:
        for module, name, meta in places:
            module._parameters[name] = weights.read(meta)

    def drop(*_) -> None:
        for module, name, meta in places:
            module._parameters[name] = meta

    layer.register_forward_pre_hook(read)
    layer.register_forward_hook(drop)


def hidden_states(model: nn.Module, sequences: list[list[int]]) -> list[Tensor]:
    """Returns the hidden states [tokens, H] of the last layer for each sequence."""
    longest = max(map(len, sequences))
    ids = torch.tensor([sequence + [0] * (longest - len(sequence)) for sequence in sequences])
    mask = torch.tensor([[1] * len(sequence) + [0] * (longest - len(sequence)) for sequence in sequences])
    hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
    return [rows[: len(sequence)] for rows, sequence in zip(hidden, sequences)]

"""Looks up tensors by uniform names, whatever prefix or old spelling a file uses."""

from typing import Callable

import torch
from torch import Tensor

from model.export.errors import ExportError
from model.export.graph import Linear, LinearNoBias, ResidualNorm


class Weights:
    def __init__(self, tensors: dict[str, Tensor], spelling: Callable[[str], str], epsilon: float = 0.0):
        self._tensors = {spelling(name): tensor for name, tensor in tensors.items()}
        self._epsilon = epsilon

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._tensors:
            raise ExportError(f"the checkpoint has no tensor {name}; check that its weights belong to its config.json.")
        return self._tensors[name].to(torch.float32)

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def count(self, ending: str) -> int:
        """Returns the number of tensors whose names end with `ending`. For a name that each layer has once, this is the number of layers."""
        return sum(name.endswith(ending) for name in self._tensors)

    def linear(self, name: str) -> Linear:
        return Linear(self[name + ".weight"], self[name + ".bias"])

    def linear_no_bias(self, *names: str) -> LinearNoBias:
        """Returns one layer for several layers without biases, with their outputs side by side."""
        for name in names:
            if name + ".bias" in self:
                raise ExportError(f"the checkpoint has a bias {name}.bias, which this architecture does not have; choose another checkpoint.")
        return LinearNoBias(torch.cat([self[name + ".weight"] for name in names]))

    def fused(self, prefix: str, names: tuple[str, ...]) -> Linear:
        """Returns one layer for several layers with the same input, with their outputs side by side."""
        return Linear(*(torch.cat([self[f"{prefix}{name}.{kind}"] for name in names]) for kind in ("weight", "bias")))

    def norm(self, name: str) -> ResidualNorm:
        return ResidualNorm(self[name + ".weight"], self[name + ".bias"], self._epsilon)

    def all_float32(self) -> dict[str, Tensor]:
        return {name: tensor.to(torch.float32) for name, tensor in self._tensors.items() if tensor.is_floating_point()}


def load_reference(model: torch.nn.Module, tensors: dict[str, Tensor]) -> torch.nn.Module:
    """Loads these weights into transformers' model, in float32. Raises ExportError if one of the model's weights is missing."""
    model = model.to(torch.float32)
    outcome = model.load_state_dict(tensors, strict=False)
    if outcome.missing_keys:
        raise ExportError(f"the checkpoint lacks {outcome.missing_keys[0]}; check that its weights belong to its config.json.")
    return model.eval()

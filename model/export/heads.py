"""Dense layers after pooling, as in sentence-transformers (LaBSE: one with tanh; EmbeddingGemma: two). They become part of the graph's pooling.

They apply to every pooled vector, whether its span is a sequence, a window or a few tokens. The server aggregates windows afterwards.
"""

import torch
from torch import Tensor, nn

from model.export.errors import ExportError
from model.export.layers import linear
from model.export.weights import Weights

ACTIVATIONS = {
    "torch.nn.modules.linear.Identity": nn.Identity,
    "torch.nn.modules.activation.Tanh": nn.Tanh,
    "torch.nn.modules.activation.ReLU": nn.ReLU,
    "torch.nn.modules.activation.GELU": nn.GELU,
}


class Dense(nn.Module):
    """[P, in] -> [P, out]: activation(linear(vectors))."""

    def __init__(self, linear: nn.Module, activation: nn.Module):
        super().__init__()
        self.linear = linear
        self.activation = activation

    def forward(self, vectors: Tensor) -> Tensor:
        return self.activation(self.linear(vectors))


class ResidualDense(nn.Module):
    """[P, in] -> [P, out]: activation(linear(vectors)) + residual(vectors). `residual` is the identity or a linear layer."""

    def __init__(self, linear: nn.Module, activation: nn.Module, residual: nn.Module):
        super().__init__()
        self.linear = linear
        self.activation = activation
        self.residual = residual

    def forward(self, vectors: Tensor) -> Tensor:
        return self.activation(self.linear(vectors)) + self.residual(vectors)


class DensePooling(nn.Module):
    """A pooling followed by Dense layers: hidden [T, H], spans int32 [P, 2] -> [P, size of the last layer]."""

    def __init__(self, pooling: nn.Module, heads: list[nn.Module]):
        super().__init__()
        self.pooling = pooling
        self.heads = nn.ModuleList(heads)

    def forward(self, hidden: Tensor, spans: Tensor) -> Tensor:
        vectors = self.pooling(hidden, spans)
        for head in self.heads:
            vectors = head(vectors)
        return vectors


def dense(name: str, config: dict, tensors: dict[str, Tensor], of: str = "sentence_embedding") -> nn.Module:
    """Returns the module in a checkpoint's folder `name`, from its config.json and weights. `config` may lack keys that older versions did not write. `of` is
    the module's input, in sentence-transformers' terms."""
    for key in ("module_input_name", "module_output_name"):
        if config.get(key) not in (None, of):
            raise ExportError(f"{name} has {key} = {config[key]!r} but only {of!r} is exported here; choose another checkpoint.")
    kind = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    if kind not in ACTIVATIONS:
        raise ExportError(f"{name} has the activation {kind}, which is not one of {', '.join(ACTIVATIONS)}; choose another checkpoint.")
    residual = bool(config.get("use_residual"))
    if strange := sorted(set(tensors) - {"linear.weight", "linear.bias", *(["residual.weight"] if residual else [])}):
        raise ExportError(f"{name} has a tensor {strange[0]}, which no Dense module of sentence-transformers has; choose another checkpoint.")
    layer = linear(Weights(tensors, str), "linear")
    sizes = {"in_features": layer.weight.size(1), "out_features": layer.weight.size(0), "bias": "linear.bias" in tensors}
    for key, size in sizes.items():
        if config.get(key, size) != size:
            raise ExportError(f"{name}/config.json says {key} = {config[key]}, but its tensors are for {size}; the checkpoint is incomplete.")
    if not residual:
        return Dense(layer, ACTIVATIONS[kind]())
    through = nn.Identity() if layer.weight.size(0) == layer.weight.size(1) else linear(Weights(tensors, str), "residual")
    return ResidualDense(layer, ACTIVATIONS[kind](), through)


def vector_size(hidden_size: int, heads: list[nn.Module]) -> int:
    """Returns the size of vectors after these layers, which is the manifest's vector_size."""
    size = hidden_size
    for number, head in enumerate(heads, 1):
        if head.linear.weight.size(1) != size:
            raise ExportError(f"Dense module {number} takes vectors of {head.linear.weight.size(1)} dimensions but gets {size}; the modules do not belong together.")
        size = head.linear.weight.size(0)
    return size


def attach(graph: nn.Module, heads: list[nn.Module]) -> None:
    """Adds these layers after the graph's pooling, in order."""
    graph.pooling = DensePooling(graph.pooling, heads)

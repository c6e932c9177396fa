"""Reads the weights of a transformers encoder from its ONNX file, with transformers' names."""

import onnx
import torch
from onnx import numpy_helper

ANONYMOUS = "onnx::"


def read(data: bytes) -> dict[str, torch.Tensor]:
    """Returns the initializers by name.

    A linear layer's weight is stored transposed and without a name. Its name is derived from the bias that is added to its product.
    """
    graph = onnx.load_model_from_string(data).graph
    initializers = {item.name: item for item in graph.initializer}
    tensors = {name: _tensor(item) for name, item in initializers.items() if not name.startswith(ANONYMOUS)}
    products = {node.output[0]: node.input[1] for node in graph.node if node.op_type == "MatMul" and node.input[1] in initializers}
    for node in graph.node:
        if node.op_type != "Add":
            continue
        product = next((name for name in node.input if name in products), None)
        bias = next((name for name in node.input if name.endswith(".bias")), None)
        if product and bias:
            tensors[bias.removesuffix("bias") + "weight"] = _tensor(initializers[products[product]]).t().contiguous()
    return tensors


def _tensor(item: onnx.TensorProto) -> torch.Tensor:
    return torch.from_numpy(numpy_helper.to_array(item).copy())

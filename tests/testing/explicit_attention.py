"""Runs transformers' networks under context extensions that transformers does not support. This is the oracle for extensions of every family.

Rotary families keep transformers' network, but its rotations and its attention kernel are replaced by the attention of explicit_model.py, in
float64. In families with a position table, the rows of the table are moved to the positions of the extension, and queries are multiplied by its
scale."""

import itertools
import sys
from unittest.mock import patch

import numpy as np
import torch
from torch import nn
from transformers import AttentionInterface

from explicit_model import Geometry, Shape, calibration, geometry, products, query_scale

QUERIES = ("self.query.", "q_lin.", "attn.q.")  # Names of the query layers in RoBERTa, DistilBERT and MPNet.


class Rows(nn.Module):
    """Replaces a position table. Returns rows [n, H] for n tokens, whatever their ids are."""

    def __init__(self, rows: np.ndarray):
        super().__init__()
        self.rows = torch.tensor(rows, dtype=torch.float32)

    def forward(self, position_ids: torch.Tensor) -> torch.Tensor:
        return self.rows.unsqueeze(0)


@torch.inference_mode()
def hidden_states(reference: nn.Module, ids: list[int], extension: dict, shape: Shape, pooling: str = "mean") -> np.ndarray:
    """Returns the hidden states of the last layer, [n, H]. `pooling` matters only for calibration in rotary families. `reference` is transformers'
    eager model, and is modified."""
    where, scale = geometry(extension, len(ids), shape), query_scale(extension, len(ids), shape.window)
    if where.rows is None:
        where.calibration = calibration(extension, pooling, len(ids))
        return with_rotations(reference, ids, where, scale, shape)
    table = reference.embeddings.position_embeddings.weight[shape.first_row :].double().numpy()
    rows = [np.interp(where.rows, np.arange(len(table)), column) for column in table.T]
    reference.embeddings.position_embeddings = Rows(np.stack(rows, axis=1))
    for name, parameter in reference.named_parameters():
        if any(part in name for part in QUERIES):
            parameter.mul_(scale)
    return last_hidden_state(reference, ids, position_ids=torch.zeros(1, len(ids), dtype=torch.long))


def with_rotations(reference: nn.Module, ids: list[int], where: Geometry, scale: float, shape: Shape) -> np.ndarray:
    distance = np.subtract.outer(np.arange(len(ids)), np.arange(len(ids)))
    j = np.arange(shape.rotary_dim // 2)
    local = Geometry(theta=shape.local_base ** (-2.0 * j / shape.rotary_dim), relative=distance.astype(np.float64))

    layers = itertools.count()  # Each layer calls attend once.

    def attend(module, query, key, value, attention_mask, scaling, sliding_window=None, **more):
        is_local, number = sliding_window is not None, next(layers)
        hidden = np.abs(distance) > shape.reach if is_local else (distance < 0) & shape.causal
        shared = query.size(1) // key.size(1)
        queries, keys, values = query[0], key[0].repeat_interleave(shared, 0), value[0].repeat_interleave(shared, 0)
        outputs = []
        for q, k, v in zip(*(part.double().numpy() for part in (queries, keys, values))):
            logits = products(q, k, local if is_local else where) * scaling * (1 if is_local else scale)
            weights = np.exp(np.where(hidden, -np.inf, logits - logits.max(axis=1, keepdims=True)))
            weights = weights / weights.sum(axis=1, keepdims=True)
            if where.calibration is not None and not is_local and where.calibration.applies(number, reference.config.num_hidden_layers):
                weights = np.stack([where.calibration.of_row(row, i) for i, row in enumerate(weights)])
            outputs.append(weights @ v)
        return torch.tensor(np.stack(outputs, axis=1)).to(query.dtype).unsqueeze(0), None

    AttentionInterface.register("explicit", attend)
    reference.config._attn_implementation = "explicit"
    with patch.object(sys.modules[type(reference).__module__], "apply_rotary_pos_emb", lambda q, k, *more, **named: (q, k)):
        return last_hidden_state(reference, ids)


def last_hidden_state(reference: nn.Module, ids: list[int], **more) -> np.ndarray:
    return reference(input_ids=torch.tensor([ids]), **more).last_hidden_state[0].double().numpy()

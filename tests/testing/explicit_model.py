"""Implements the networks and the context extensions directly from their formulas, in float64 and without regard to speed. This is the oracle of
tests. It shares no code with the server, the exporter or transformers.

Rotary attention is one complex product per pair of tokens: Re sum_k q_k conj(k_k) exp(i theta_k r(i, j)), with the n * n matrix r of relative
positions. Every method is a choice of theta, r and an amplitude. There are no tables of cos and sin."""

import math
from dataclasses import dataclass, field
from functools import cache, cached_property

import numpy as np
import torch


@dataclass
class Calibration:
    """Attention calibration (arXiv 2601.16934) in the last ceil(share layers) layers. It applies to the row of the pooled special token, or to
    every row if there is none."""

    strength: float = 0.5
    basket: int = 128
    share: float = 0.5
    special: int | None = None

    def applies(self, layer: int, layers: int) -> bool:
        return layer >= layers - math.ceil(self.share * layers)

    def of_row(self, row: np.ndarray, i: int) -> np.ndarray:
        """Calibrates `row` [n], the attention of query i. Entries are 0 for tokens that the query cannot see."""
        if self.special not in (None, i):
            return row
        counted = row > 0
        if self.special is not None:
            counted[self.special] = False
        sums = np.add.reduceat(np.where(counted, row, 0.0), np.arange(0, len(row), self.basket))
        seen = sums > 0
        rest = 1.0 if self.special is None else 1.0 - row[self.special]
        of_basket = np.divide(rest / max(1, seen.sum()), sums, out=np.zeros_like(sums), where=seen)
        even = np.where(counted, row * np.repeat(of_basket, self.basket)[: len(row)], row)
        return self.strength * even + (1 - self.strength) * row


@dataclass
class Geometry:
    """The positions of one sequence. APE: real-valued rows. RoPE: frequencies [R/2], relative positions [n, n], and a factor for the logits."""

    rows: np.ndarray | None = None
    theta: np.ndarray | None = None
    relative: np.ndarray | None = None
    logit_factor: float = 1.0
    calibration: Calibration | None = None

    @cached_property
    def turns(self) -> np.ndarray:
        """The rotations [R/2, n, n], complex: how far each pair of components turns between every two tokens."""
        return np.exp(1j * self.theta[:, None, None] * self.relative)


@dataclass
class Shape:
    """The parameters of a model that a formula needs."""

    kind: str
    window: int
    rotary_dim: int = 0
    base: float = 0.0
    heads: int = 0
    key_value_heads: int = 0
    epsilon: float = 0.0
    factor: float = 1.0  # Divides all rotary frequencies.
    causal: bool = False
    first_row: int = 0  # The row of the position table that the first token uses.
    reach: int = 0  # Local layers: how many tokens they see on either side. local_base is their rotary base.
    local_base: float = 10000.0
    tensors: dict = field(default_factory=dict)


def shape_of(kind: str, checkpoint, window: int) -> Shape:
    config = checkpoint.config
    heads = config["num_attention_heads"]
    base = config.get("rope_theta") or (config.get("rope_parameters") or {}).get("rope_theta") or 0.0
    head_dim = (config.get("head_dim") or config["hidden_size"] // heads) if base else 0
    epsilon = config.get("rms_norm_eps", config.get("layer_norm_eps", 1e-12))
    tensors = {name.removeprefix("model."): tensor.double().numpy() for name, tensor in checkpoint.tensors.items()}
    return Shape(kind, window, head_dim, float(base), heads, config.get("num_key_value_heads") or heads, epsilon, tensors=tensors)


# --------------------------------------------------------------------------------------------------------------------------------- methods


def geometry(extension: dict, n: int, shape: Shape) -> Geometry:
    """Returns the positions of a sequence of n tokens under an extension without windows."""
    lo, p = shape.window, np.arange(n)
    if shape.base == 0:
        return Geometry(rows=moved(extension, p, n, lo))
    d, b = shape.rotary_dim, shape.base
    j = np.arange(d // 2)
    s = max(1.0, n / lo)
    amplitude = 1.0
    if "ntk" in extension:
        b = extension["ntk"].get("base") or b * extension["ntk"]["factor"] ** (d / (d - 2))
    if "ntk_dynamic" in extension and n > lo:
        f = extension["ntk_dynamic"].get("factor", 1)
        b = b * (f * n / lo - (f - 1)) ** (d / (d - 2))
    theta = b ** (-2.0 * j / d) / shape.factor
    if "interpolation" in extension:
        theta = theta / extension["interpolation"].get("factor", s)
    for name in ("ntk_by_parts", "yarn"):
        if name in extension:
            asked = extension[name]
            factor = asked.get("factor", s)
            theta = by_parts(theta, factor, d, b, lo / shape.factor, asked.get("beta_fast", 32), asked.get("beta_slow", 1))
            if name == "yarn":
                amplitude = 0.1 * math.log(factor) + 1
    if extension.get("resonance"):
        theta = 2 * np.pi / np.round(2 * np.pi / theta)
    q = p if "interpolation" in extension else moved(extension, p, n, lo)  # theta / s already includes the interpolation.
    relative = q[:, None] - q[None, :]
    if "self_extend" in extension:
        relative = self_extended(n, *group_and_window(extension["self_extend"], n, lo))
    if "dual_chunk" in extension:
        relative = dual_chunked(n, *chunk_and_window(extension["dual_chunk"], n, lo))
    if "shifted_rotary" in extension:
        relative = string_distances(n, extension["shifted_rotary"], lo)
    return Geometry(theta=theta, relative=relative.astype(np.float64), logit_factor=amplitude**2)


def moved(extension: dict, p: np.ndarray, n: int, lo: int) -> np.ndarray:
    if "grouped" in extension:
        return p // extension["grouped"].get("factor", math.ceil(n / lo))
    if "recurrent" in extension:
        return p % lo
    if "interpolation" in extension:
        return p / extension["interpolation"].get("factor", max(1.0, n / lo))
    return p.astype(np.float64)


def by_parts(theta, s, d, b, lo, fast, slow):
    def dim(r):
        return d * math.log(lo / (2 * math.pi * r)) / (2 * math.log(b))

    low, high = max(math.floor(dim(fast)), 0), min(math.ceil(dim(slow)), d - 1)
    if low == high:
        high += 0.001
    ramp = np.clip((np.arange(len(theta)) - low) / (high - low), 0, 1)
    return theta / s * ramp + theta * (1 - ramp)


def group_and_window(asked: dict, n: int, lo: int) -> tuple[int, int]:
    g, w = asked.get("group"), asked.get("neighbor_window")
    if g is not None and w is not None:
        return g, w
    if n <= lo:
        return 1, lo
    if g is not None:
        return g, (g * lo - n) // (g - 1)
    if w is not None:
        return -(-(n - w) // (lo - w)), w
    s = -(-n // lo)
    return s + 1, lo // s


@cache
def self_extended(n: int, g: int, w: int) -> np.ndarray:
    relative = np.zeros((n, n), dtype=np.int64)
    for i in range(n):
        for j in range(n):
            if abs(i - j) < w:
                relative[i, j] = i - j
            elif i > j:
                relative[i, j] = (i // g + w - w // g) - j // g
            else:
                relative[i, j] = i // g - (j // g + w - w // g)
    return relative


def chunk_and_window(asked: dict, n: int, lo: int) -> tuple[int, int]:
    s, w = asked.get("chunk"), asked.get("local_window")
    if (s is None or w is None) and n <= lo:
        return n, 1
    if s is None:
        s = 3 * lo // 4 if w is None else lo - w
    return s, lo - s if w is None else w


@cache
def dual_chunked(n: int, s: int, w: int) -> np.ndarray:
    """Returns the distances of arXiv 2402.17463, section 3, and their mirror image for keys to the right."""
    relative = np.zeros((n, n), dtype=np.int64)
    for i in range(n):
        for j in range(i + 1):
            away = i // s - j // s
            query = i % s if away == 0 else s + min(i % s, w - 1) if away == 1 else s + w - 1
            relative[i, j] = query - j % s
            relative[j, i] = -relative[i, j]
    return relative


def string_distances(n: int, asked: dict, lo: int) -> np.ndarray:
    """Returns the distances of arXiv 2410.18745, in both directions: from S on, d becomes d - S + W."""
    s = asked.get("shift_from", lo // 3)
    w = asked.get("local_window", min(128, s // 2))
    d = np.arange(n)[:, None] - np.arange(n)[None, :]
    return np.where(np.abs(d) < s, d, np.sign(d) * (np.abs(d) - s + w))


def query_scale(extension: dict, n: int, lo: int) -> float:
    scale = max(1.0, math.log(n) / math.log(lo)) if extension.get("attention_log_scaling") else 1.0
    return scale / extension.get("attention_temperature", 1.0)


def calibration(extension: dict, pooling: str, n: int) -> Calibration | None:
    """`pooling` is mean, cls or last. Use mean also for spans and token vectors."""
    asked = extension.get("attention_calibration")
    if asked is None:
        return None
    named = {{"layers": "share"}.get(name, name): value for name, value in asked.items()}
    return Calibration(**named, special={"mean": None, "cls": 0, "last": n - 1}[pooling])


# -------------------------------------------------------------------------------------------------------------------------------- networks


def hidden_states(shape: Shape, ids: list[int], where: Geometry, scale: float) -> np.ndarray:
    """Returns the hidden states of the last layer, [n, H] float64."""
    network = {"llama": decoder, "mistral": decoder, "nomic_bert": nomic_bert}.get(shape.kind, bert)
    return network(shape, ids, where, scale)


def sequence_vector(shape: Shape, ids: list[int], extension: dict, pooling: str) -> np.ndarray:
    """Returns the pooled, un-normalized vector of one sequence under an extension without windows. `pooling` is mean, cls or last."""
    where = geometry(extension, len(ids), shape)
    where.calibration = calibration(extension, pooling, len(ids))
    hidden = hidden_states(shape, ids, where, query_scale(extension, len(ids), shape.window))
    return pooled(hidden, pooling)


def pooled(hidden: np.ndarray, pooling: str) -> np.ndarray:
    return {"mean": hidden.mean(axis=0), "cls": hidden[0], "last": hidden[-1]}[pooling]


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def bert(shape: Shape, ids: list[int], where: Geometry, scale: float) -> np.ndarray:
    t = shape.tensors
    x = t["embeddings.word_embeddings.weight"][ids] + t["embeddings.token_type_embeddings.weight"][0]
    if where.rows is not None:
        table = t["embeddings.position_embeddings.weight"][2 if shape.kind == "xlm-roberta" else 0 :]
        rows = np.minimum(where.rows, len(table) - 1)
        x = x + np.stack([np.interp(rows, np.arange(len(table)), column) for column in table.T], axis=1)
    x = layer_norm(shape, x, "embeddings.LayerNorm")
    layers = count(t, "attention.self.query.weight")
    for i in range(layers):
        p = f"encoder.layer.{i}."
        q, k, v = (linear(t, x, f"{p}attention.self.{name}") for name in ("query", "key", "value"))
        x = layer_norm(shape, linear(t, attend(shape, q, k, v, where, scale, (i, layers)), p + "attention.output.dense") + x, p + "attention.output.LayerNorm")
        inner = torch.nn.functional.gelu(torch.from_numpy(linear(t, x, p + "intermediate.dense"))).numpy()
        x = layer_norm(shape, linear(t, inner, p + "output.dense") + x, p + "output.LayerNorm")
    return x


def nomic_bert(shape: Shape, ids: list[int], where: Geometry, scale: float) -> np.ndarray:
    t = shape.tensors
    x = t["embeddings.word_embeddings.weight"][ids] + t["embeddings.token_type_embeddings.weight"][0]
    x = layer_norm(shape, x, "emb_ln")
    layers = count(t, "attn.Wqkv.weight")
    for i in range(layers):
        p = f"encoder.layers.{i}."
        q, k, v = np.split(x @ t[p + "attn.Wqkv.weight"].T, 3, axis=1)
        x = layer_norm(shape, attend(shape, q, k, v, where, scale, (i, layers)) @ t[p + "attn.out_proj.weight"].T + x, p + "norm1")
        inner = (x @ t[p + "mlp.fc11.weight"].T) * silu(x @ t[p + "mlp.fc12.weight"].T)
        x = layer_norm(shape, inner @ t[p + "mlp.fc2.weight"].T + x, p + "norm2")
    return x


def decoder(shape: Shape, ids: list[int], where: Geometry, scale: float) -> np.ndarray:
    t = shape.tensors
    x = t["embed_tokens.weight"][ids]
    layers = count(t, "self_attn.q_proj.weight")
    for i in range(layers):
        p = f"layers.{i}."
        y = rms_norm(shape, x, p + "input_layernorm")
        q, k, v = (y @ t[f"{p}self_attn.{name}_proj.weight"].T for name in "qkv")
        x = x + attend(shape, q, k, v, where, scale, (i, layers), causal=True) @ t[p + "self_attn.o_proj.weight"].T
        y = rms_norm(shape, x, p + "post_attention_layernorm")
        x = x + (silu(y @ t[p + "mlp.gate_proj.weight"].T) * (y @ t[p + "mlp.up_proj.weight"].T)) @ t[p + "mlp.down_proj.weight"].T
    return rms_norm(shape, x, "norm")


def attend(shape: Shape, q, k, v, where: Geometry, scale: float, layer: tuple[int, int], *, causal: bool = False) -> np.ndarray:
    """`layer` is the pair (number of the layer, number of layers)."""
    d = q.shape[1] // shape.heads
    shared = shape.heads // shape.key_value_heads
    outputs = []
    for head in range(shape.heads):
        own, kept = slice(head * d, (head + 1) * d), slice(head // shared * d, (head // shared + 1) * d)
        logits = products(q[:, own], k[:, kept], where) * scale / math.sqrt(d)
        if causal:
            logits[np.triu_indices(len(q), 1)] = -np.inf
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        weights = weights / weights.sum(axis=1, keepdims=True)
        if where.calibration is not None and where.calibration.applies(*layer):
            weights = np.stack([where.calibration.of_row(row, i) for i, row in enumerate(weights)])
        outputs.append(weights @ v[:, kept])
    return np.concatenate(outputs, axis=1)


def products(q, k, where: Geometry) -> np.ndarray:
    if where.rows is not None:
        return q @ k.T
    half = q.shape[1] // 2
    queries, keys = q[:, :half] + 1j * q[:, half:], k[:, :half] + 1j * k[:, half:]
    return np.einsum("ip,jp,pij->ij", queries, keys.conj(), where.turns).real * where.logit_factor


def count(tensors: dict, ending: str) -> int:
    return sum(name.endswith(ending) for name in tensors)


def linear(tensors: dict, x, name: str):
    return x @ tensors[name + ".weight"].T + tensors[name + ".bias"]


def layer_norm(shape: Shape, x, name: str):
    centered = x - x.mean(axis=1, keepdims=True)
    return centered / np.sqrt((centered**2).mean(axis=1, keepdims=True) + shape.epsilon) * shape.tensors[name + ".weight"] + shape.tensors[name + ".bias"]


def rms_norm(shape: Shape, x, name: str):
    return x / np.sqrt((x**2).mean(axis=1, keepdims=True) + shape.epsilon) * shape.tensors[name + ".weight"]


def silu(x):
    return x / (1 + np.exp(-x))

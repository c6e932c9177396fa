"""Reads settings of a checkpoint's config.json that several architectures have."""

from dataclasses import dataclass

from model.export import rotary_scaling
from model.export.errors import ExportError


def require(kind: str, config: dict, values: dict) -> None:
    """Raises ExportError if a key of the config has another value than in `values`. A missing key is accepted."""
    for key, value in values.items():
        if config.get(key, value) != value:
            raise ExportError(f"this {kind} has {key} = {config[key]!r} but only {value!r} is exported; choose another checkpoint.")


@dataclass(frozen=True)
class Rope:
    """Rotary frequencies, theta_j = base^(-2j/d) / factor for j = 0..d/2-1, and the kind of scaling that they come from. `pairs` holds further divisors for
    each pair."""

    base: float
    factor: float = 1.0
    scaling: str = "default"
    pairs: rotary_scaling.RotaryScaling | None = None

    def sizes(self) -> dict:
        """Returns the manifest's keys."""
        factor = {"rotary_factor": self.factor} if self.factor != 1 else {}
        return {"rotary_base": self.base, **factor, **({"rotary_scaling": self.pairs.content()} if self.pairs else {})}


def rope_settings(config: dict, default_base: float = 10000.0) -> dict:
    """Returns the settings of rotary positions as one mapping. Older versions of transformers have two keys in the config instead."""
    return {"rope_theta": config.get("rope_theta") or default_base, **(config.get("rope_parameters") or {}), **_scaling(config)}


def read_rope(kind: str, config: dict) -> Rope:
    """Reads rotary positions with a constant scaling of all frequencies, or with one from rotary_scaling.py."""
    settings = rope_settings(config)
    scaling = settings.get("rope_type")
    by_pair = scaling in rotary_scaling.KINDS
    rope = rope_of(kind, {**settings, "rope_type": "default"} if by_pair else settings)
    refuse_two_ropes(config)
    return Rope(rope.base, 1.0, scaling, rotary_scaling.read(kind, config, settings)) if by_pair else rope


def rope_of(kind: str, settings: dict) -> Rope:
    """Reads one mapping with rope_theta."""
    scaling = settings.get("rope_type", "default")
    if settings.get("partial_rotary_factor", 1.0) != 1.0:
        raise ExportError(f"this {kind} has partial_rotary_factor = {settings['partial_rotary_factor']!r} but only 1.0 is exported; choose another checkpoint.")
    if scaling not in ("default", "linear"):
        raise ExportError(f"this {kind} scales its rotary positions ({scaling}); export the model that it was made from, and set the scaling in requests.")
    return Rope(float(settings["rope_theta"]), float(settings["factor"]) if scaling == "linear" else 1.0, scaling)


def rope_of_layers(kind: str, config: dict, layers: str, key: str, default_base: float, scaled: bool = True) -> Rope:
    """Reads the rotary positions of full_attention or sliding_attention layers, for models in which these differ. `key` holds the base in older configs. If
    `scaled`, rope_scaling applies to these layers."""
    if config.get(key, default_base) is None:
        raise ExportError(f"this {kind} has {key} = null; write the base of its rotary positions there.")
    named = (config.get("rope_parameters") or {}).get(layers)
    rope = rope_of(kind, {"rope_theta": config.get(key, default_base), **(named or {}), **(_scaling(config) if scaled else {})})
    refuse_two_ropes(config)
    return rope


def refuse_two_ropes(config: dict) -> None:
    """Raises ExportError if the config has both rope_parameters and rope_scaling, because versions of transformers differ in which one they read."""
    if config.get("rope_scaling") and config.get("rope_parameters"):
        raise ExportError("config.json has both rope_parameters and rope_scaling; remove the one that its users' version of transformers does not read.")


def _scaling(config: dict) -> dict:
    """Returns rope_scaling with rope_type, which older configs call `type`."""
    scaling = dict(config.get("rope_scaling") or {})
    return {"rope_type": scaling["type"], **scaling} if "type" in scaling else scaling


def refuse_scaled_local_layers(kind: str, rope: Rope) -> None:
    if rope.scaling != "default":
        raise ExportError(f"this {kind} scales the rotary positions of its local layers ({rope.scaling}), which is not exported; choose another checkpoint.")


def layer_kinds(kind: str, config: dict, otherwise: list[str]) -> list[str]:
    """Returns full_attention or sliding_attention for each layer; `otherwise` if the config has no layer_types."""
    kinds = config.get("layer_types") or otherwise
    if strange := sorted(set(kinds) - {"full_attention", "sliding_attention"}):
        raise ExportError(f"this {kind} has layers of type {strange[0]!r} (layer_types), which are not exported; choose another checkpoint.")
    return kinds


def local_sizes(kinds: list[str], window: int) -> dict:
    """Returns the manifest's keys for layers that see `window` tokens on either side, or none if there is no such layer."""
    count = kinds.count("sliding_attention")
    return {"local_layers": count, "local_window": window} if count else {}

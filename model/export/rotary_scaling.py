"""A checkpoint's own scaling of its rotary frequencies, pair by pair: Llama 3.1's, YaRN's (arXiv 2309.00071) and LongRoPE's (arXiv 2402.13753).

A scaling is converted to divisors of the frequencies base^(-2j/d), j = 0..d/2-1, and a factor of cos and sin: the manifest's `rotary_scaling`. transformers
reads the same settings; the export check compares with it.
"""

import math
from dataclasses import asdict, dataclass, field

from model.export.errors import ExportError

KINDS = ("llama3", "yarn", "longrope")


@dataclass(frozen=True)
class RotaryScaling:
    """Divisors `factors` [d/2]. LongRoPE has `long_factors` for sequences of more than `long_from` tokens."""

    kind: str
    factors: list[float]
    long_factors: list[float] = field(default_factory=list)
    long_from: int = 0
    amplitude: float = 1.0

    def content(self) -> dict:
        """Returns the manifest's keys, without empty lists and zeros."""
        return {key: value for key, value in asdict(self).items() if value not in ([], 0)}


class Settings:
    """A mapping with rope_type in a config."""

    def __init__(self, kind: str, config: dict, settings: dict):
        self.kind, self.settings, self.scaling = kind, settings, settings["rope_type"]
        self.base = float(settings["rope_theta"])
        self.dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        self.longest = config["max_position_embeddings"]
        # Phi-3 has it outside of the mapping, and that value has precedence.
        self.original = config.get("original_max_position_embeddings") or settings.get("original_max_position_embeddings") or self.longest
        if isinstance(self.original, bool) or not isinstance(self.original, int) or self.original < 1:
            raise self.wrong("original_max_position_embeddings", self.original, "a whole number above 0")

    def wrong(self, key: str, value, wanted: str) -> ExportError:
        return ExportError(f"this {self.kind} scales its rotary positions by {self.scaling} with {key} = {str(value)[:60]}, which must be {wanted}; correct its config.json.")

    def number(self, key: str, otherwise: float | None = None, least: float = 0.0) -> float:
        value = self.settings.get(key)
        if value is None and otherwise is not None:
            return float(otherwise)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= least:
            raise self.wrong(key, value, f"a number above {least:g}")
        return float(value)

    def numbers(self, key: str) -> list[float]:
        value = self.settings.get(key)
        pairs = self.dim // 2
        good = isinstance(value, list) and len(value) == pairs and all(isinstance(v, (int, float)) and not isinstance(v, bool) and v > 0 for v in value)
        if not good:
            raise self.wrong(key, value, f"a list of {pairs} numbers above 0")
        return [float(v) for v in value]

    def wavelengths(self) -> list[float]:
        return [2 * math.pi * self.base ** (2 * j / self.dim) for j in range(self.dim // 2)]


def read(kind: str, config: dict, settings: dict) -> RotaryScaling:
    """Reads a scaling. `settings` has rope_theta, and rope_type is one of KINDS."""
    return {"llama3": _llama3, "yarn": _yarn, "longrope": _longrope}[settings["rope_type"]](Settings(kind, config, settings))


def _llama3(settings: Settings) -> RotaryScaling:
    """Reads Llama 3.1's scaling. Frequencies with wavelengths above original / low_freq_factor are divided by the factor, those with wavelengths below original
    / high_freq_factor are kept, and those between are blended."""
    factor, low, high = settings.number("factor"), settings.number("low_freq_factor"), settings.number("high_freq_factor")
    if low >= high:
        raise settings.wrong("low_freq_factor", low, f"a number below high_freq_factor ({high:g})")

    def divisor(wavelength: float) -> float:
        turns = settings.original / wavelength
        kept = min(max((turns - low) / (high - low), 0.0), 1.0)
        return 1 / ((1 - kept) / factor + kept)

    return RotaryScaling("llama3", [divisor(wavelength) for wavelength in settings.wavelengths()])


def _yarn(settings: Settings) -> RotaryScaling:
    """Reads YaRN's scaling. The ramp is linear in the pair's index, between the pairs that turn beta_fast and beta_slow times within the original window."""
    factor = settings.number("factor", otherwise=settings.longest / settings.original)
    dim, base = settings.dim, settings.base

    def pair_that_turns(rotations: float) -> float:
        return dim * math.log(settings.original / (2 * math.pi * rotations)) / (2 * math.log(base))

    low, high = pair_that_turns(settings.number("beta_fast", 32)), pair_that_turns(settings.number("beta_slow", 1))
    if settings.settings.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    if low == high:
        high += 0.001
    shares = [min(max((j - low) / (high - low), 0.0), 1.0) for j in range(dim // 2)]
    return RotaryScaling("yarn", [1 / (share / factor + 1 - share) for share in shares], amplitude=_yarn_amplitude(settings, factor))


def _yarn_amplitude(settings: Settings, factor: float) -> float:
    """Returns 0.1 ln s + 1, or with DeepSeek's mscale, the quotient of two such values."""

    def amplitude(mscale: float) -> float:
        return 0.1 * mscale * math.log(factor) + 1 if factor > 1 else 1.0

    ours, all_dim = settings.settings.get("mscale"), settings.settings.get("mscale_all_dim")
    otherwise = amplitude(settings.number("mscale")) / amplitude(settings.number("mscale_all_dim")) if ours and all_dim else amplitude(1)
    return settings.number("attention_factor", otherwise)


def _longrope(settings: Settings) -> RotaryScaling:
    factor = settings.number("factor", otherwise=settings.longest / settings.original)
    amplitude = math.sqrt(1 + math.log(factor) / math.log(settings.original)) if factor > 1 and settings.original > 1 else 1.0
    return RotaryScaling(
        "longrope", settings.numbers("short_factor"), settings.numbers("long_factor"), settings.original, settings.number("attention_factor", amplitude)
    )

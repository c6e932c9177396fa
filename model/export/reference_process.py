"""Runs a checkpoint as its users do, in a separate process: with sentence-transformers if the request's `with_modules` says so, else with transformers.

Reads one JSON request per line from stdin, and answers each with one line on stdout; `reference.py` is the client. An error is answered as {"error": sentence}.
Does not use the exporter, except for architectures that transformers lacks, where `reference` of the architecture's module is used.
"""

import importlib
import importlib.util
import inspect
import json
import os
import sys
from pathlib import Path


class TransformersReference:
    """AutoTokenizer, AutoModel and the requested pooling."""

    def __init__(self, request: dict):
        import torch

        self._torch, self._request = torch, request
        folder = request["transformer_folder"]
        self.tokenizer = load_tokenizer(folder)
        if request["lower_case"]:
            lower_case(self.tokenizer)
        self.model = _own_reference(folder) if request["own_code"] else self._auto_model(folder)
        self.by = "transformers" if not request["own_code"] else "the published code's formulas on transformers' parts"
        if request["with_modules"]:
            self.by += " with the pooling of modules.json (sentence-transformers is not installed)"
        # sentence-transformers has this limit for a checkpoint without its files.
        self.limit = request["limit_in_files"] or min(self.tokenizer.model_max_length, getattr(self.model.config, "max_position_embeddings", 1 << 31))

    def _auto_model(self, folder: str):
        from transformers import AutoModel

        return AutoModel.from_pretrained(folder, dtype=self._torch.float32, attn_implementation="eager").eval()

    def ids(self, text: str) -> list[int]:
        """Returns the tokens of a text with its prompt, truncated to the limit, with EOS added or removed if requested."""
        limit = self._request["limit"] or min(self.limit, self._request["window"])
        wanted, end = self._request["append_eos"], self._request["eos"]
        has_one = wanted is not None and self._cut("", limit)[-1:] == [end]
        if wanted and not has_one:
            return self._cut(text, limit - 1) + [end]
        return self._cut(text, limit + 1)[:-1] if has_one and not wanted else self._cut(text, limit)

    def _cut(self, text: str, limit: int) -> list[int]:
        given = self.tokenizer(text, truncation=True, max_length=limit)
        if any(given.get("token_type_ids", ())) and "token_type_ids" in inspect.signature(self.model.forward).parameters:
            raise ValueError("its tokenizer gives token types other than 0, which are not exported")
        return list(given["input_ids"])

    def run(self, ids: list[int]):
        positions = self._torch.arange(len(ids)).unsqueeze(0)
        stride = self._request["position_stride"]
        given = {"position_ids": positions * stride} if stride > 1 else {}
        if self.spells_padding(ids):
            given = {"position_ids": positions + self.padding_id() + 1}
        return self.model(input_ids=self._torch.tensor([ids]), **given)

    def hidden(self, ids: list[int]):
        return self.run(ids).last_hidden_state[0]

    def padding_id(self) -> int | None:
        return getattr(getattr(self.model.base_model, "embeddings", None), "padding_idx", None)

    def spells_padding(self, ids: list[int]) -> bool:
        """Returns whether RoBERTa and related models would treat a token of the text as padding without a position. Here every token has a position, as in the
        graph."""
        return self.padding_id() in ids

    def pooled(self, ids: list[int]):
        return self.pool(self.hidden(ids))

    def pool(self, hidden):
        vector = {"CLS": hidden[0], "LAST": hidden[-1], "MEAN": hidden.mean(dim=0)}[self._request["pooling"]]
        for folder in self._request["dense_folders"]:
            vector = self._through_dense(Path(folder), vector)
        return vector

    def _through_dense(self, folder: Path, vector):
        """Computes sentence-transformers' Dense: a linear layer, then the activation, whose class is in config.json, then the residual if there is one."""
        import safetensors.torch

        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        module, name = config.get("activation_function", "torch.nn.modules.activation.Tanh").rsplit(".", 1)
        safe = folder / "model.safetensors"
        tensors = safetensors.torch.load_file(safe) if safe.is_file() else self._torch.load(folder / "pytorch_model.bin", weights_only=True)
        outcome = self._torch.nn.functional.linear(vector, tensors["linear.weight"].float(), tensors["linear.bias"].float() if "linear.bias" in tensors else None)
        outcome = getattr(importlib.import_module(module), name)()(outcome)
        if not config.get("use_residual"):
            return outcome
        return outcome + (self._torch.nn.functional.linear(vector, tensors["residual.weight"].float()) if "residual.weight" in tensors else vector)

    def vector(self, sample: dict, ids: list[int]):
        return self.pooled(ids)


class LayeredReference(TransformersReference):
    """TransformersReference with one layer's weights in memory at a time, for all texts together."""

    def __init__(self, request: dict):
        super().__init__(request)
        self.by += f", {type(self.model).__name__} layer by layer"

    def _auto_model(self, folder: str):
        from model.export import layered_reference

        return layered_reference.load(folder)

    def all_pooled(self, sequences: list[list[int]]) -> list:
        from model.export import layered_reference

        return [self.pool(hidden) for hidden in layered_reference.hidden_states(self.model, sequences)]


class SentenceTransformersReference(TransformersReference):
    """SentenceTransformer.encode. Only samples that are token ids, and texts that spell the padding token, are pooled here."""

    def __init__(self, request: dict):
        import torch
        from sentence_transformers import SentenceTransformer, __version__

        self._torch, self._request = torch, request
        arguments = {"dtype": torch.float32, "attn_implementation": "eager"}
        self._sentences = SentenceTransformer(request["folder"], device="cpu", model_kwargs=arguments, local_files_only=True)
        self.limit = self._sentences.max_seq_length or 1 << 31
        # The limit is at most the model's number of positions, because the library would fail beyond them.
        self._sentences.max_seq_length = request["limit"] or min(self.limit, request["window"])
        self.tokenizer = self._sentences.tokenizer
        self.model = self._sentences[0].auto_model
        self._normalizes = any(type(module).__name__ == "Normalize" for module in self._sentences)
        self.by = f"sentence-transformers {__version__}"

    def vector(self, sample: dict, ids: list[int]):
        # For a request without a prompt name, the library itself adds its default prompt, if there is one.
        prompt = None if sample["unprompted"] else sample["prompt"]
        if self.spells_padding(ids):
            vector = self.pooled(ids)
            return self._torch.nn.functional.normalize(vector, dim=0) if self._normalizes else vector
        return self._sentences.encode(sample["text"], prompt=prompt, convert_to_tensor=True, show_progress_bar=False)


class TokenWeightsReference(TransformersReference):
    """bge-m3's sparse vectors by the formula of its published code (FlagEmbedding), in float64: relu(linear(h)), with the maximum over equal ids, without four
    special tokens."""

    def __init__(self, request: dict):
        super().__init__(request)
        self._linear = self._torch.load(Path(request["transformer_folder"]) / "sparse_linear.pt", weights_only=True)
        self._unused = {id for role, id in special_ids(self.tokenizer).items() if role in ("cls", "eos", "pad", "unk")}
        self.by = "FlagEmbedding's formula on transformers' hidden states"

    def pooled(self, ids: list[int]):
        weights = self.hidden(ids).double() @ self._linear["weight"].double()[0] + self._linear["bias"].double()[0]
        found: dict[int, float] = {}
        for id, weight in zip(ids, weights.tolist()):
            if id not in self._unused and weight > found.get(id, 0.0):
                found[id] = weight
        return sparse(list(found), list(found.values()))


class MaskedLanguageModelReference(TransformersReference):
    """SPLADE's formula (arXiv 2109.10086) in float64, applied to AutoModelForMaskedLM's logits."""

    def __init__(self, request: dict):
        super().__init__(request)
        self.by = "SPLADE's formula on transformers' masked language model"

    def _auto_model(self, folder: str):
        from transformers import AutoModelForMaskedLM

        return AutoModelForMaskedLM.from_pretrained(folder, dtype=self._torch.float32, attn_implementation="eager").eval()

    def pooled(self, ids: list[int]):
        settings = self._request["splade"]
        weights = self._torch.log1p(self.run(ids).logits[0].double().clamp(min=0))
        if settings["activation"] == "log1p_relu":
            weights = self._torch.log1p(weights)
        return all_weights(weights.sum(dim=0) if settings["strategy"] == "sum" else weights.amax(dim=0))


class SparseEncoderReference(MaskedLanguageModelReference):
    """SparseEncoder.encode. Only samples that are token ids, and texts that spell the padding token, use the formula."""

    def __init__(self, request: dict):
        import torch
        from sentence_transformers import SparseEncoder, __version__

        self._torch, self._request = torch, request
        arguments = {"dtype": torch.float32, "attn_implementation": "eager"}
        self._encoder = SparseEncoder(request["folder"], device="cpu", model_kwargs=arguments, local_files_only=True)
        self.limit = self._encoder.max_seq_length or 1 << 31
        self._encoder.max_seq_length = request["limit"] or min(self.limit, request["window"])
        self.tokenizer = self._encoder.tokenizer
        self.model = self._encoder[0].auto_model
        self.by = f"sentence-transformers {__version__} (SparseEncoder)"

    def vector(self, sample: dict, ids: list[int]):
        prompt = None if sample["unprompted"] else sample["prompt"]
        if self.spells_padding(ids):
            return self.pooled(ids)
        return all_weights(self._encoder.encode(sample["text"], prompt=prompt, convert_to_sparse_tensor=False, show_progress_bar=False))


class MultiVectorReference(TransformersReference):
    """MultiVectorEncoder.encode, which also loads checkpoints of PyLate and of Stanford's ColBERT."""

    def __init__(self, request: dict):
        import torch
        from sentence_transformers import MultiVectorEncoder, __version__

        arguments = {"dtype": torch.float32, "attn_implementation": "eager"}
        self._encoder = MultiVectorEncoder(request["folder"], device="cpu", model_kwargs=arguments, local_files_only=True)
        transformer = self._encoder[0]
        self.limit = transformer.document_length or self._encoder.max_seq_length or 1 << 31
        transformer.document_length = request["limit"] or min(self.limit, request["window"])
        self.by = f"sentence-transformers {__version__} (MultiVectorEncoder)"

    def answer(self, sample: dict) -> dict:
        features = self._encoder.encode([sample["text"]], prompt=sample["prompt"], task=sample["role"], output_value=None, show_progress_bar=False)[0]
        kept = features["attention_mask"].bool()
        return {"ids": features["input_ids"].tolist(), "kept": kept.nonzero().flatten().tolist(), "vectors": features["token_embeddings"][kept].tolist()}


def sparse(indices: list[int], values: list[float]) -> dict:
    return {"indices": indices, "values": values}


def all_weights(weights) -> dict:
    indices = weights.nonzero().flatten()
    return sparse(indices.tolist(), weights[indices].tolist())


def special_ids(tokenizer) -> dict[str, int | None]:
    return {role: getattr(tokenizer, f"{role}_token_id") for role in ("cls", "eos", "pad", "unk", "mask")}


def load_tokenizer(folder: str):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise ValueError(f"its tokenizer class {type(tokenizer).__name__} cannot be written as tokenizer.json")
    return tokenizer


def lower_case(tokenizer) -> None:
    """Lower-cases every text before the tokenizer's own normalizers, unless one of them does, as sentence-transformers does for do_lower_case."""
    from tokenizers import normalizers

    own = tokenizer.backend_tokenizer.normalizer
    parts = list(own) if isinstance(own, normalizers.Sequence) else [] if own is None else [own]
    if not any(isinstance(part, normalizers.Lowercase) for part in parts):
        tokenizer.backend_tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *parts])


def _own_reference(folder: str):
    from model.export import architectures
    from model.export.folder import read_directory

    checkpoint = read_directory(Path(folder))
    return architectures.find(checkpoint.config).reference(checkpoint.config, checkpoint.tensors)


def tokenizer_of(request: dict) -> dict:
    import transformers

    tokenizer = load_tokenizer(request["folder"])
    config = json.loads((Path(request["folder"]) / "config.json").read_text(encoding="utf-8"))
    architectures = config.get("architectures") or []
    return {
        "tokenizer": tokenizer.backend_tokenizer.to_str(),
        "eos": tokenizer.eos_token_id,
        "special_ids": special_ids(tokenizer),
        "class": type(tokenizer).__name__,
        "model_type_is_known": config.get("model_type") in transformers.models.auto.configuration_auto.CONFIG_MAPPING,
        "unknown_architectures": [name for name in architectures if not hasattr(transformers, str(name))],
    }


def reference_class(request: dict, with_modules: bool) -> type[TransformersReference]:
    if request["output"] == "tokens":
        return MultiVectorReference
    if request["output"] == "dense":
        return SentenceTransformersReference if with_modules else TransformersReference
    if request["splade"] is None:
        return TokenWeightsReference
    return SparseEncoderReference if with_modules else MaskedLanguageModelReference


def embed_by_layers(request: dict) -> dict:
    """Answers like `embed`, but only the first request["layered"] samples get vectors."""
    import torch

    torch.set_num_threads(request["threads"])
    reference = LayeredReference(request)
    ids = [reference.ids(sample["prompt"] + sample["text"]) for sample in request["samples"]]
    with torch.inference_mode():
        vectors = [vector.tolist() for vector in reference.all_pooled(ids[: request["layered"]])]
    answers = [{"ids": own, "vector": vectors[i] if i < len(vectors) else None} for i, own in enumerate(ids)]
    return {"by": reference.by, "limit": reference.limit if reference.limit < 1 << 31 else None, "answers": answers}


def embed(request: dict) -> dict:
    import torch

    if request["layered"]:
        return embed_by_layers(request)
    torch.set_num_threads(request["threads"])
    with_modules = request["with_modules"] and importlib.util.find_spec("sentence_transformers") is not None
    reference = reference_class(request, with_modules)(request)
    answers = []
    with torch.inference_mode():
        for sample in request["samples"]:
            if request["output"] == "tokens":
                answers.append(reference.answer(sample))
                continue
            ids = sample.get("ids") or reference.ids(sample["prompt"] + sample["text"])
            vector = None
            if ids and len(ids) <= request["longest_run"]:
                vector = reference.pooled(ids) if "ids" in sample else reference.vector(sample, ids)
            answers.append({"ids": ids, "vector": vector if vector is None or isinstance(vector, dict) else vector.tolist()})
    limit = reference.limit if reference.limit < 1 << 31 else None
    return {"by": reference.by, "limit": limit, "answers": answers}


def answer(line: str) -> dict:
    request = json.loads(line)
    try:
        return {"tokenizer": tokenizer_of, "embed": embed}[request["do"]](request)
    except Exception as error:  # Libraries raise errors of any type for files that they cannot read. The message is shown to the user.
        words = " ".join(str(error).split())
        return {"error": f"{type(error).__name__}: {words[:300]}"}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # Output of libraries goes to stderr, because stdout is for answers.
    import torch  # noqa: F401  Imported before the first request, while the exporter reads the checkpoint.
    import transformers

    transformers.AutoModel, transformers.AutoTokenizer
    for line in sys.stdin:
        answers.write(json.dumps(answer(line)) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()

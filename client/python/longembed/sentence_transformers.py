"""An encoder with the methods of sentence-transformers' SentenceTransformer. It runs no model but calls a server. sentence-transformers need not be installed.

    from longembed import Options
    from longembed.sentence_transformers import LongEmbedModel

    model = LongEmbedModel("127.0.0.1:50051", document=Options(extension={"windows": {}}))
    scores = model.similarity(model.encode_query(["how long is the Nile?"]), model.encode_document(texts))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from longembed.client import Client
from longembed.options import Options
from longembed.sides import DOCUMENT, QUERY, Sides


class LongEmbedModel:
    """encode_query and encode_document have separate options. encode uses `options`, and the model's default prompt, if it has one, unless one is named.

    client: a Client or HOST:PORT. None: the environment variable LONGEMBED_SERVER, otherwise the default address.
    query, document: options for queries and for documents. Options that set no prompt get the matching input type, if the model has it. prompt=""
    requests no prompt."""

    similarity_fn_name = "cosine"

    def __init__(
        self, client: Client | str | None = None, *, query: Options | None = None, document: Options | None = None, options: Options | None = None
    ):
        self.sides = Sides(client, query, document)
        self._options = options or Options()
        if self._options.output not in (None, "ONE_VECTOR"):
            raise ValueError(f"options: output is {self._options.output}; it must be ONE_VECTOR here")

    def encode_query(self, inputs: str | Sequence[str], **arguments: Any) -> Any:
        """Works like encode, with the options and prompt for queries."""
        return self._encode(inputs, self.sides.options(QUERY), **arguments)

    def encode_document(self, inputs: str | Sequence[str], **arguments: Any) -> Any:
        """Works like encode, with the options and prompt for documents."""
        return self._encode(inputs, self.sides.options(DOCUMENT), **arguments)

    def encode(self, inputs: str | Sequence[str], **arguments: Any) -> Any:
        """Returns float32 [n, d], or [d] for one str. The arguments are those of SentenceTransformer.encode:

        prompt_name, prompt: used instead of the prompt of the options.
        show_progress_bar: show a tqdm bar (extra "progress"). batch_size: has no effect, because the server forms the batches.
        convert_to_tensor: return a torch.Tensor. convert_to_numpy=False: return a list of vectors.
        normalize_embeddings: True sets options.normalize, which is the server's default. truncate_dim: sets options.dimensions.
        """
        return self._encode(inputs, self._options, **arguments)

    def _encode(
        self,
        inputs: str | Sequence[str],
        options: Options,
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
    ) -> Any:
        if prompt_name is not None or prompt is not None:
            options = options.with_changes(prompt_name=prompt_name, prompt=prompt, input_type=None)
        if normalize_embeddings:
            options = options.with_changes(normalize=True)
        if truncate_dim is not None:
            options = options.with_changes(dimensions=truncate_dim)
        texts = [inputs] if isinstance(inputs, str) else inputs
        answers = self.sides.embed_with(options, texts, bool(show_progress_bar))
        matrix = np.concatenate([answer.float32() for answer in answers]) if answers else np.zeros((0, self._dimensions(options)), np.float32)
        vectors = matrix[0] if isinstance(inputs, str) else matrix
        if convert_to_tensor:
            return _tensor(vectors)
        return vectors if convert_to_numpy or isinstance(inputs, str) else list(vectors)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Returns the cosines [n, m] of vectors [n, d] and [m, d] (or [d]). The result is a torch.Tensor if `embeddings1` is one."""
        a, b = (np.atleast_2d(_unit(embeddings)) for embeddings in (embeddings1, embeddings2))
        return _like(embeddings1, a @ b.T)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Returns the cosines [n] of the pairs of vectors [n, d] and [n, d]."""
        a, b = (np.atleast_2d(_unit(embeddings)) for embeddings in (embeddings1, embeddings2))
        if a.shape != b.shape:
            raise ValueError(f"embeddings1 is {a.shape} and embeddings2 {b.shape}; pairs need equal shapes")
        return _like(embeddings1, (a * b).sum(axis=1))

    @property
    def prompts(self) -> dict[str, str]:
        """Returns the model's prompts by name."""
        return dict(self._model().prompts)

    @property
    def max_seq_length(self) -> int:
        """Returns the most tokens of a text without an extension."""
        return self._model().plain_limit

    def get_embedding_dimension(self) -> int:
        return self._dimensions(self._options)

    def get_sentence_embedding_dimension(self) -> int:
        """The older name of get_embedding_dimension."""
        return self.get_embedding_dimension()

    def _dimensions(self, options: Options) -> int:
        return options.dimensions or self.sides.client.model(options.model).dimensions

    def _model(self) -> Any:
        return self.sides.client.model(self._options.model)


def _unit(embeddings: Any) -> np.ndarray:
    """Scales each vector to length 1, as float32. A vector of length 0 is not changed."""
    vectors = np.asarray(embeddings.detach().cpu() if hasattr(embeddings, "detach") else embeddings, np.float32)
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def _like(embeddings: Any, values: np.ndarray) -> Any:
    return _tensor(values) if hasattr(embeddings, "detach") else values


def _tensor(values: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(values))

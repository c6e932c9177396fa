"""An encoder with the methods of sentence-transformers' SentenceTransformer that runs no model: it asks a server. Needs no sentence-transformers.

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
    """encode_query and encode_document embed each under options of their own; encode under `options`, and without a prompt unless one is named.

    client: a Client or HOST:PORT; None: the environment's LONGEMBED_SERVER, else the default address.
    query, document: options of each side. One that names no prompt gets the side's input type where the model has it; prompt="" asks for none.
    """

    similarity_fn_name = "cosine"

    def __init__(
        self, client: Client | str | None = None, *, query: Options | None = None, document: Options | None = None, options: Options | None = None
    ):
        self.sides = Sides(client, query, document)
        self._options = options or Options()
        if self._options.output not in (None, "ONE_VECTOR"):
            raise ValueError(f"options: output is {self._options.output}; it must be ONE_VECTOR here")

    def encode_query(self, inputs: str | Sequence[str], **arguments: Any) -> Any:
        """As encode, with the query's options and prompt."""
        return self._encode(inputs, self.sides.options(QUERY), **arguments)

    def encode_document(self, inputs: str | Sequence[str], **arguments: Any) -> Any:
        """As encode, with the document's options and prompt."""
        return self._encode(inputs, self.sides.options(DOCUMENT), **arguments)

    def encode(self, inputs: str | Sequence[str], **arguments: Any) -> Any:
        """float32 [n, d]; [d] for one str. Arguments, as SentenceTransformer.encode has them:

        prompt_name, prompt: instead of the options' prompt.
        show_progress_bar: a tqdm bar (extra "progress"). batch_size: has no effect, since the server forms the batches.
        convert_to_tensor: a torch.Tensor. convert_to_numpy=False: a list of vectors.
        normalize_embeddings: True sets options.normalize, which is the server's default anyway. truncate_dim: options.dimensions.
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
        texts = [inputs] if isinstance(inputs, str) else list(inputs)
        answers = self.sides.embed_with(options, texts, bool(show_progress_bar))
        matrix = np.concatenate([answer.float32() for answer in answers]) if answers else np.zeros((0, self.get_embedding_dimension()), np.float32)
        vectors = matrix[0] if isinstance(inputs, str) else matrix
        if convert_to_tensor:
            return _tensor(vectors)
        return vectors if convert_to_numpy or isinstance(inputs, str) else list(vectors)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Cosines [n, m] of vectors [n, d] and [m, d] (or [d]); a torch.Tensor where the first are one."""
        a, b = (np.atleast_2d(_unit(embeddings)) for embeddings in (embeddings1, embeddings2))
        return _like(embeddings1, a @ b.T)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Cosines [n] of the pairs of vectors [n, d] and [n, d]."""
        a, b = (np.atleast_2d(_unit(embeddings)) for embeddings in (embeddings1, embeddings2))
        if a.shape != b.shape:
            raise ValueError(f"embeddings1 is {a.shape} and embeddings2 {b.shape}; pairs need equal shapes")
        return _like(embeddings1, (a * b).sum(axis=1))

    @property
    def prompts(self) -> dict[str, str]:
        """The model's prompts by name."""
        return dict(self._model().prompts)

    @property
    def max_seq_length(self) -> int:
        """The most tokens without an extension."""
        return self._model().plain_limit

    def get_embedding_dimension(self) -> int:
        return self._options.dimensions or self._model().dimensions

    def get_sentence_embedding_dimension(self) -> int:
        """The older name of get_embedding_dimension."""
        return self.get_embedding_dimension()

    def _model(self) -> Any:
        return self.sides.client.model(self._options.model)


def _unit(embeddings: Any) -> np.ndarray:
    """float32, each vector of length 1; one of length 0 stays as it is."""
    vectors = np.asarray(embeddings.detach().cpu() if hasattr(embeddings, "detach") else embeddings, np.float32)
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def _like(embeddings: Any, values: np.ndarray) -> Any:
    return _tensor(values) if hasattr(embeddings, "detach") else values


def _tensor(values: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(values))

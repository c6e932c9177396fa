"""Client of longembed-server: text embeddings, where each request chooses how a text longer than the model's window is encoded.

    from longembed import Client

    with Client("127.0.0.1:50051") as client:
        answer = client.embed([long_text], input_type="DOCUMENT", extension={"windows": {}})
        print(answer.matrix().shape, answer[0].tokens, answer[0].truncated_tokens, answer.recipe)
"""

from longembed import maxsim, sparse
from longembed.aio import AsyncClient
from longembed.channel import TLS
from longembed.client import Client
from longembed.errors import DeadlineExceeded, InvalidArgument, LongEmbedError, NotFound, Overloaded, Unauthenticated, Unavailable
from longembed.options import Input, Options
from longembed.results import Embedding, Embeddings, SparseVector, Timing, Tokens
from longembed.retriever import Hit, Retriever

__all__ = [
    "TLS", "AsyncClient", "Client", "DeadlineExceeded", "Embedding", "Embeddings", "Hit", "Input", "InvalidArgument", "LongEmbedError", "NotFound",
    "Options", "Overloaded", "Retriever", "SparseVector", "Timing", "Tokens", "Unauthenticated", "Unavailable", "maxsim", "sparse",
]  # fmt: skip

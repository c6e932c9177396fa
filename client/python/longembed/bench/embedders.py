"""Sources of vectors: a longembed server, an endpoint with OpenAI's API, or a sentence-transformers model in this process."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from longembed import Client, Options
from longembed.channel import is_local

from .store import Vectors, excerpt


class EmbedderError(RuntimeError):
    """An embedder cannot do what a row requires."""


class ServerEmbedder:
    """A longembed server. The server's recipe identifies it: model files, precision, extension, truncation and everything else that affects
    vectors."""

    def __init__(self, client: Client, options: Options):
        self.client, self.options = client, options.with_changes(priority="BULK")
        self._described: dict = {}

    def describe(self) -> dict:
        explained = self.client.explain(["a"], self.options)
        self._described = {
            "kind": "longembed",
            "model": explained.model,
            "recipe": explained.recipe,
            "prompt": explained.prompt,
            "options": {key: value for key, value in self.options.to_dict().items() if key != "priority"},
        }
        return self._described

    def embed(self, texts: Sequence[str]) -> Iterator[tuple[int, Vectors]]:
        """Raises EmbedderError if the server answers by another recipe than it had described, as after a restart with another model."""
        described = self._described or self.describe()
        for answer in self.client.embed_stream(texts, self.options):
            if answer.error is not None:
                raise answer.error.about(f"the text {excerpt(texts[answer.id])}")
            for name in ("model", "prompt", "recipe"):
                if getattr(answer, name) != described[name]:
                    raise EmbedderError(f"the server's {name} changed from {described[name]!r} to {getattr(answer, name)!r}; run the same command again")
            values = answer.float32()
            lengths = [sequence.tokens for sequence in answer.sequences]
            if len(lengths) != len(values):  # There is one vector for several windows, or there are several vectors from one pass.
                lengths = [answer.tokens] * len(values)
            yield answer.id, Vectors(values, np.array(lengths, np.int64), answer.tokens, answer.truncated_tokens)


class OpenAIEmbedder:
    """Calls POST URL/embeddings with the API of text-embedding-ada-002 and its successors. The key is read from the environment and never written
    anywhere."""

    def __init__(
        self, url: str, model: str, key_env: str = "OPENAI_API_KEY", prompt: str = "", dimensions: int | None = None, batch: int = 16, timeout: float = 120.0
    ):
        self.url, self.model, self.prompt, self.dimensions, self.batch, self.timeout = url.rstrip("/"), model, prompt, dimensions, batch, timeout
        self.key = os.environ.get(key_env, "")
        self.attempts = 5
        # A proxy from the environment could not reach this machine.
        local = is_local(urllib.parse.urlsplit(self.url).hostname or "")
        self._opener = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if local else []))

    def describe(self) -> dict:
        return {"kind": "openai", "url": self.url, "model": self.model, "prompt": self.prompt, "dimensions": self.dimensions}

    def embed(self, texts: Sequence[str]) -> Iterator[tuple[int, Vectors]]:
        for start in range(0, len(texts), self.batch):
            part = texts[start : start + self.batch]
            body = {"model": self.model, "input": [self.prompt + text for text in part]} | ({"dimensions": self.dimensions} if self.dimensions else {})
            answer = self._post(body)
            vectors = self._vectors(answer, len(part))
            characters = sum(map(len, part))
            tokens = (answer.get("usage") or {}).get("prompt_tokens") or 0
            for number in range(len(part)):  # The answer counts the tokens of the whole batch. They are distributed over the texts by characters.
                values = vectors[number][None]
                share = round(tokens * len(part[number]) / max(1, characters))
                yield start + number, Vectors(values, np.array([share], np.int64), share, 0)

    def _vectors(self, answer: object, count: int) -> dict[int, np.ndarray]:
        """Returns {number of the input: its vector}."""
        try:
            vectors = {item["index"]: np.array(item["embedding"], np.float32) for item in answer["data"]}
        except (KeyError, TypeError, ValueError) as error:
            raise EmbedderError(f"{self.url}: the answer is not a list of embeddings: {json.dumps(answer)[:200]}") from error
        if sorted(vectors) != list(range(count)):
            raise EmbedderError(f"{self.url}: {count} inputs were sent, and {len(vectors)} embeddings came back")
        if any(vector.ndim != 1 or not vector.size for vector in vectors.values()):
            raise EmbedderError(f"{self.url}: an embedding is not a list of numbers; its shape is {next(iter(vectors.values())).shape}")
        return vectors

    def _post(self, body: dict) -> dict:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        request = urllib.request.Request(f"{self.url}/embeddings", json.dumps(body).encode(), headers)
        for attempt in range(self.attempts):
            try:
                with self._opener.open(request, timeout=self.timeout) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                if error.code not in (429, 500, 502, 503) or attempt == self.attempts - 1:
                    raise EmbedderError(f"{self.url}: HTTP {error.code}: {error.read(500).decode(errors='replace')}") from error
                time.sleep(_retry_after(error.headers.get("Retry-After"), attempt))
            except urllib.error.URLError as error:
                raise EmbedderError(f"{self.url}: {error.reason}") from error
            except (OSError, ValueError, http.client.HTTPException) as error:  # The answer stops in the middle, or is not JSON.
                raise EmbedderError(f"{self.url}: {error}") from error
        raise AssertionError("the last attempt returns or raises")


def _retry_after(header: str | None, attempt: int) -> float:
    try:
        return min(60.0, float(header))
    except (TypeError, ValueError):
        return 2.0**attempt


class SentenceTransformersEmbedder:
    """A model that sentence-transformers loads from a folder or from the hub, in this process. Texts beyond its max_seq_length are cut, as
    sentence-transformers always does."""

    def __init__(self, path: str, prompt: str = "", device: str | None = None, max_seq_length: int | None = None, batch: int = 8):
        self.path, self.prompt, self.device, self.max_seq_length, self.batch = path, prompt, device, max_seq_length, batch
        self._model = None

    def describe(self) -> dict:
        return {"kind": "sentence_transformers", "path": self.path, "files": self._files(), "prompt": self.prompt, "max_seq_length": self.max_seq_length}

    def _files(self) -> str:
        """Identifies the model's files: by a digest of the folder, or by the commit of the hub, which is known once the model has been loaded."""
        if Path(self.path).is_dir():
            return _digest(Path(self.path))
        config = getattr(getattr(next(iter(self.model()), None), "auto_model", None), "config", None)
        return getattr(config, "_commit_hash", None) or ""

    def model(self):
        if self._model is None:
            try:
                from sentence_transformers import SentenceTransformer
            except ImportError as error:
                raise EmbedderError("a row of sentence_transformers needs the package sentence-transformers: pip install sentence-transformers") from error
            self._model = SentenceTransformer(self.path, device=self.device)
            if self.max_seq_length:
                self._model.max_seq_length = self.max_seq_length
        return self._model

    def embed(self, texts: Sequence[str]) -> Iterator[tuple[int, Vectors]]:
        model = self.model()
        for start in range(0, len(texts), self.batch):
            part = [self.prompt + text for text in texts[start : start + self.batch]]
            # The texts have the row's prompt. An empty one here leaves out the model's default prompt, which would be the same on both sides.
            vectors = model.encode(part, prompt="", batch_size=self.batch, convert_to_numpy=True, show_progress_bar=False)
            counts = [len(ids) for ids in model.tokenizer(part, truncation=False)["input_ids"]]
            most = model.max_seq_length or max(counts)
            for number, (vector, count) in enumerate(zip(vectors, counts)):
                tokens = min(count, most)
                yield start + number, Vectors(np.asarray(vector, np.float32)[None], np.array([tokens], np.int64), tokens, count - tokens)


def _digest(folder: Path) -> str:
    """Returns a hash of the names, sizes and times of a folder's files."""
    stats = [(str(file.relative_to(folder)), file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(folder.rglob("*")) if file.is_file()]
    return hashlib.sha256(json.dumps(stats).encode()).hexdigest()


def first_tokens(client: Client, texts: Sequence[str], count: int, prompt: str, model: str | None = None) -> list[str]:
    """Returns the texts, cut so that each has at most `count` tokens with `prompt` and the model's special tokens. LongEmbed cuts at 4,096 in the
    same way. Raises EmbedderError if `count` leaves no token to the text."""
    beside = len(client.tokenize([prompt or "a"], model=model)[0].ids) - (0 if prompt else 1)
    if count <= beside:
        raise EmbedderError(f"first is {count}, but prompt and special tokens alone are {beside}")
    return [_cut(client, text, count - beside, model) for text in texts]


def _cut(client: Client, text: str, kept: int, model: str | None) -> str:
    """Cuts one text. Only a beginning that is long enough is tokenized, since a token of prose rarely has more than 8 characters."""
    characters = 8 * kept
    while True:
        tokens = client.tokenize([text[:characters]], model=model, add_special_tokens=False)[0]
        if len(tokens.ids) > kept + 8 or characters >= len(text):
            return text[: int(tokens.ranges[kept - 1][1])] if len(tokens.ids) > kept else text
        characters *= 2

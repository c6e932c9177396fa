"""Calls a real server with widely used client libraries. Prints a Markdown table with a row for each call, and a column each for a model without
and with a profile.

A call passes if its vectors equal those of POST /longembed/v1/embed: for a short text with the plain model, and for a text beyond the model's
window with the profile model. Errors are checked once, in the first column."""

import argparse
import asyncio
import base64
import contextlib
import http.client
import importlib
import importlib.metadata
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

os.environ.update(HAYSTACK_TELEMETRY_ENABLED="False", LANGSMITH_TRACING="false", LITELLM_LOCAL_MODEL_COST_MAP="True")
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/integration"))

from running_server import Server, start_server  # noqa: E402

MODEL = "e5-small-v2"
PROFILE = "{windows: {tokens: 128}}"
KEY, SMALL_KEY = "clients-key", "clients-small-key"
SHORT = ["how long is the Nile?", "The Nile is about 6,650 km long."]
LONG = ["river stone house water light " * 150, "night green table paper horse " * 150]  # 752 tokens each, where the model accepts at most 512.
BEGIN, END = "<!-- the table, by clients.py -->", "<!-- its end -->"


@dataclass
class Target:
    """The arguments of a call."""

    http: str
    grpc: str
    model: str
    texts: list[str]
    vectors: list[list[float]]
    keyed: str  # The address of a server that requires keys.

    def check(self, found) -> None:
        found = [[float(value) for value in vector] for vector in found]
        assert len(found) == len(self.vectors), f"{len(found)} vectors instead of {len(self.vectors)}"
        for one, other in zip(found, self.vectors):
            assert len(one) == len(other), f"{len(one)} numbers instead of {len(other)}"
            # Some clients do not request vectors of length 1.
            cosine = sum(a * b for a, b in zip(one, other)) / math.sqrt(sum(a * a for a in one) * sum(b * b for b in other))
            assert cosine > 0.99999, f"cosine {cosine}"


class Skip(Exception):
    """A package is not installed."""


def load(module: str):
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Skip(f"no {module}: {error}") from error


def post(url: str, body: dict, **headers: str):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json", **headers})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def expect(kind: type[Exception], call: Callable, *words: str) -> Exception:
    try:
        call()
    except kind as error:
        for word in words:
            assert word in str(error), f"{word!r} is not in: {error}"
        return error
    raise AssertionError(f"no {kind.__name__}")


def gather(call: Callable, texts: list[str]) -> list:
    async def all_of_them():
        return await asyncio.gather(*[call(text) for text in texts])

    return asyncio.run(all_of_them())


def stub_tiktoken() -> None:
    """Replaces tiktoken, which would download its vocabulary."""

    class Encoding:
        def encode(self, text, **_):
            return [9906, 1917]

        encode_ordinary = encode

    tiktoken = load("tiktoken")
    tiktoken.encoding_for_model = tiktoken.get_encoding = lambda _: Encoding()


@contextlib.contextmanager
def busy(target: Target):
    """Within the context, the key "small", which allows one call at a time, has a call in progress. On exit the call is cancelled."""
    connection = http.client.HTTPConnection(target.keyed.removeprefix("http://"))
    body = json.dumps({"input": [LONG[0] * 40] * 8, "extension": {"windows": {"tokens": 512}}})
    connection.request("POST", "/v1/embeddings", body, {"content-type": "application/json", "x-api-key": SMALL_KEY})
    time.sleep(0.5)
    try:
        yield
    finally:
        connection.close()


ROWS: list[tuple[str, str, str, Callable[[Target], None], bool]] = []


def client(package: str, called: str, once: bool = False):
    """Registers a call. `once` marks calls that do not depend on the model."""

    def add(call: Callable[[Target], None]) -> Callable[[Target], None]:
        ROWS.append((package, call.__name__, called, call, once))
        return call

    return add


# ------------------------------------------------------------------------------------------------------------------------ OpenAI


def openai_client(target: Target, kind: str = "OpenAI", **options):
    return getattr(load("openai"), kind)(**{"base_url": f"{target.http}/v1", "api_key": "none", **options})


@client("openai", "embeddings.create (base64, its default)")
def openai_default(target):
    answer = openai_client(target).embeddings.create(model=target.model, input=target.texts)
    target.check([item.embedding for item in answer.data])
    assert answer.model == target.model and answer.usage.total_tokens > 10


@client("openai", 'embeddings.create(encoding_format="float")')
def openai_float(target):
    target.check([item.embedding for item in openai_client(target).embeddings.create(model=target.model, input=target.texts, encoding_format="float").data])


@client("openai", "AsyncOpenAI, 8 at once")
def openai_async(target):
    async def calls():
        async with openai_client(target, "AsyncOpenAI") as sdk:
            return await asyncio.gather(*[sdk.embeddings.create(model=target.model, input=target.texts) for _ in range(8)])

    for answer in asyncio.run(calls()):
        target.check([item.embedding for item in answer.data])


@client("openai", "token arrays of the model's tokenizer", once=True)
def openai_tokens(target):
    ids = [[token["id"] for token in text["tokens"]] for text in post(f"{target.http}/longembed/v1/tokenize", {"texts": target.texts})["results"]]
    target.check([item.embedding for item in openai_client(target).embeddings.create(model=target.model, input=ids).data])


@client("openai", "token arrays of another tokenizer: BadRequestError", once=True)
def openai_foreign_tokens(target):
    sdk = openai_client(target)
    error = expect(load("openai").BadRequestError, lambda: sdk.embeddings.create(model=target.model, input=[[9906, 1917]]), "check_embedding_ctx_length=False")
    assert (error.code, error.param) == ("FOREIGN_TOKENS", "input[0]")


@client("openai", "extra_body: extension, prompt_name", once=True)
def openai_extra_body(target):
    def ask(text, **extra):
        return openai_client(target).embeddings.create(model=target.model, input=text, extra_body=extra).data[0].embedding

    windows = {"windows": {"tokens": 128}}
    body = {"inputs": [{"text": LONG[0]}], "options": {"extension": windows, "prompt_name": "passage"}}
    expected = [post(f"{target.http}/longembed/v1/embed", body)["results"][0]["embeddings"][0]["values"]]
    Target(**{**vars(target), "vectors": expected}).check([ask(LONG[0], extension=windows, prompt_name="passage")])


@client("openai", "the snippet of docs/calling.md", once=True)
def openai_readme(target):
    load("openai")
    [snippet] = re.findall(r"```python\n(from openai .*?)```", (ROOT / "docs/calling.md").read_text(), re.DOTALL)
    variables = {}
    exec(snippet.replace("http://127.0.0.1:8080", target.http), variables)
    assert len(variables["answer"].data[0].embedding) == len(target.vectors[0])


@client("openai", "models.list, models.retrieve")
def openai_models(target):
    sdk = openai_client(target)
    assert target.model in [model.id for model in sdk.models.list()]
    assert sdk.models.retrieve(target.model).id == target.model


@client("openai", "a text that is too long, an unknown model: BadRequestError, NotFoundError", once=True)
def openai_errors(target):
    openai, sdk = load("openai"), openai_client(target)
    error = expect(openai.BadRequestError, lambda: sdk.embeddings.create(model=target.model, input=LONG[0]), "752", "512")
    assert (error.code, error.param, error.type) == ("INPUT_TOO_LONG", "input", "invalid_request_error")
    expect(openai.NotFoundError, lambda: sdk.embeddings.create(model="text-embedding-3-small", input="x"), target.model)
    expect(openai.NotFoundError, lambda: sdk.models.retrieve("gpt-5"), target.model)
    expect(openai.NotFoundError, lambda: sdk.chat.completions.create(model=target.model, messages=[]), "/v1/chat/completions")


@client("openai", "no key: AuthenticationError; a key: passes", once=True)
def openai_keys(target):
    ask = {"model": target.model, "input": target.texts}
    keyed = {"base_url": f"{target.keyed}/v1"}
    error = expect(load("openai").AuthenticationError, lambda: openai_client(target, **keyed, api_key="other").embeddings.create(**ask))
    assert (error.code, error.type) == ("UNKNOWN_API_KEY", "authentication_error")
    target.check([item.embedding for item in openai_client(target, **keyed, api_key=KEY).embeddings.create(**ask).data])


@client("openai", "overload: two retries after Retry-After, then RateLimitError", once=True)
def openai_overload(target):
    httpx, sent = load("httpx"), []
    hooks = httpx.Client(event_hooks={"request": [lambda request: sent.append(time.monotonic())]})
    sdk = openai_client(target, base_url=f"{target.keyed}/v1", api_key=SMALL_KEY, http_client=hooks, max_retries=2)
    with busy(target):
        error = expect(load("openai").RateLimitError, lambda: sdk.embeddings.create(model=target.model, input=SHORT))
    least = int(error.response.headers["retry-after-ms"]) / 1000
    assert len(sent) == 3, f"{len(sent)} requests"
    assert all(later - earlier >= 0.9 * least for earlier, later in zip(sent, sent[1:])), (sent, least)
    assert (error.code, error.type) == ("CONCURRENT_CALLS", "rate_limit_error")


# ------------------------------------------------------------------------------------------------------------------- frameworks


@client("langchain-openai", "OpenAIEmbeddings(check_embedding_ctx_length=False): embed_documents, aembed_query")
def langchain_openai(target):
    kind = load("langchain_openai").OpenAIEmbeddings
    embedder = kind(model=target.model, base_url=f"{target.http}/v1", api_key="none", check_embedding_ctx_length=False)
    target.check(embedder.embed_documents(target.texts))
    target.check(gather(embedder.aembed_query, target.texts))


@client("langchain-openai", "OpenAIEmbeddings with its default: the error names check_embedding_ctx_length", once=True)
def langchain_openai_default(target):
    stub_tiktoken()
    embedder = load("langchain_openai").OpenAIEmbeddings(model=target.model, base_url=f"{target.http}/v1", api_key="none")
    expect(load("openai").BadRequestError, lambda: embedder.embed_documents(target.texts), "check_embedding_ctx_length=False")


@client("langchain-huggingface", "HuggingFaceEndpointEmbeddings, given InferenceClient(URL): embed_documents, aembed_query")
def langchain_tei(target):
    """The library's `model` does not accept a URL any more, but its clients can be replaced."""
    hub = load("huggingface_hub")
    embedder = load("langchain_huggingface").HuggingFaceEndpointEmbeddings(huggingfacehub_api_token="none", model_kwargs={"normalize": True})
    embedder.client, embedder.async_client = hub.InferenceClient(target.http), hub.AsyncInferenceClient(target.http)
    target.check(embedder.embed_documents(target.texts))
    target.check(gather(embedder.aembed_query, target.texts))


@client("llama-index-embeddings-openai-like", "OpenAILikeEmbedding: batch, aget_query_embedding")
def llama_index_openai(target):
    kind = load("llama_index.embeddings.openai_like").OpenAILikeEmbedding
    embedder = kind(model_name=target.model, api_base=f"{target.http}/v1", api_key="none")
    target.check(embedder.get_text_embedding_batch(target.texts))
    target.check(gather(embedder.aget_query_embedding, target.texts))


@client("llama-index-embeddings-text-embeddings-inference", "TextEmbeddingsInference: batch")
def llama_index_tei(target):
    kind = load("llama_index.embeddings.text_embeddings_inference").TextEmbeddingsInference
    embedder = kind(model_name=target.model, base_url=target.http, text_instruction=" ", query_instruction=" ", truncate_text=False)
    target.check(embedder.get_text_embedding_batch(target.texts))


@client("haystack-ai", "OpenAITextEmbedder(api_base_url)")
def haystack_openai(target):
    secret = load("haystack.utils").Secret.from_token("none")
    embedder = load("haystack.components.embedders").OpenAITextEmbedder(api_key=secret, model=target.model, api_base_url=f"{target.http}/v1")
    target.check([embedder.run(text)["embedding"] for text in target.texts])


def haystack_embedder(target, **options):
    kind = load("haystack_integrations.components.embedders.huggingface_api").HuggingFaceAPITextEmbedder
    return kind(api_type="text_embeddings_inference", truncate=False, normalize=True, token=None, **options)


@client("huggingface-api-haystack", "HuggingFaceAPITextEmbedder over HTTP")
def haystack_http(target):
    embedder = haystack_embedder(target, api_params={"url": target.http})
    target.check([embedder.run(text)["embedding"] for text in target.texts])


@client("huggingface-api-haystack", "HuggingFaceAPIDocumentEmbedder over HTTP")
def haystack_documents(target):
    kind = load("haystack_integrations.components.embedders.huggingface_api").HuggingFaceAPIDocumentEmbedder
    embedder = kind(api_type="text_embeddings_inference", api_params={"url": target.http}, truncate=False, normalize=True, token=None, progress_bar=False)
    documents = [load("haystack").Document(content=text) for text in target.texts]
    target.check([document.embedding for document in embedder.run(documents)["documents"]])


@client("huggingface-api-haystack", "HuggingFaceAPITextEmbedder(use_grpc=True)")
def haystack_grpc(target):
    embedder = haystack_embedder(target, api_params={"url": target.grpc}, use_grpc=True)
    target.check([embedder.run(text)["embedding"] for text in target.texts])


@client("huggingface-hub", "InferenceClient(URL).feature_extraction")
def hub_client(target):
    hub = load("huggingface_hub").InferenceClient(target.http)
    target.check(hub.feature_extraction(target.texts, normalize=True, truncate=False))


@client("litellm", 'embedding(model="openai/NAME")')
def litellm_openai(target):
    answer = load("litellm").embedding(model=f"openai/{target.model}", input=target.texts, api_base=f"{target.http}/v1", api_key="none")
    target.check([item["embedding"] for item in answer.data])


@client("litellm", "a text that is too long: BadRequestError; overload: RateLimitError", once=True)
def litellm_errors(target):
    litellm, name = load("litellm"), f"openai/{target.model}"
    expect(litellm.BadRequestError, lambda: litellm.embedding(model=name, input=LONG, api_base=f"{target.http}/v1", api_key="none"), "752")
    ask = {"model": name, "input": SHORT, "api_base": f"{target.keyed}/v1", "api_key": SMALL_KEY, "max_retries": 0}
    with busy(target):
        expect(litellm.RateLimitError, lambda: litellm.embedding(**ask), "its key allows 1")


@client("mteb", "its wrapper of OpenAI, given OpenAI(base_url)")
def mteb_wrapper(target):
    wrapper = load("mteb.models.model_implementations.openai_models").OpenAIModel
    stub_tiktoken()
    model = wrapper(target.model, max_tokens=8191, embed_dim=len(target.vectors[0]), client=openai_client(target))
    target.check(model.encode([{"text": target.texts}], task_metadata=None, hf_split="", hf_subset=""))


@client("cohere", "ClientV2.embed: float, int8, uint8, binary, ubinary, base64")
def cohere_embed(target):
    sdk = load("cohere").ClientV2(api_key="none", base_url=target.http)
    types = ["float", "int8", "uint8", "binary", "ubinary", "base64"]
    answer = sdk.embed(texts=target.texts, model=target.model, input_type="classification", truncate="NONE", embedding_types=types)
    target.check(answer.embeddings.float_)
    assert all(len(vector) == len(target.vectors[0]) for vector in answer.embeddings.int8 + answer.embeddings.uint8)
    assert all(8 * len(vector) == len(target.vectors[0]) for vector in answer.embeddings.binary + answer.embeddings.ubinary)
    assert len(base64.b64decode(answer.embeddings.base64[0])) == 4 * len(target.vectors[0])
    assert answer.texts == target.texts and answer.id and answer.meta.billed_units.input_tokens > 10


@client("cohere", "ClientV2.embed(priority=1, max_tokens, output_dimension)", once=True)
def cohere_options(target):
    sdk = load("cohere").ClientV2(api_key="none", base_url=target.http)
    ask = {"model": target.model, "texts": LONG, "input_type": "search_query", "embedding_types": ["float"], "max_tokens": 64}
    assert len(sdk.embed(**ask, priority=1, output_dimension=384).embeddings.float_) == 2


@client("cohere", "errors: BadRequestError, NotFoundError, UnauthorizedError, TooManyRequestsError", once=True)
def cohere_errors(target):
    cohere = load("cohere")
    ask = {"model": target.model, "texts": LONG, "input_type": "classification", "embedding_types": ["float"], "truncate": "NONE"}
    sdk = cohere.ClientV2(api_key="none", base_url=target.http)
    error = expect(cohere.BadRequestError, lambda: sdk.embed(**ask))
    assert "752" in error.body["message"], error.body
    expect(cohere.NotFoundError, lambda: sdk.embed(**{**ask, "model": "embed-v4.0"}))
    expect(cohere.UnauthorizedError, lambda: cohere.ClientV2(api_key="other", base_url=target.keyed).embed(**ask))
    small = cohere.ClientV2(api_key=SMALL_KEY, base_url=target.keyed)
    with busy(target):
        expect(cohere.TooManyRequestsError, lambda: small.embed(**{**ask, "texts": SHORT}, request_options={"max_retries": 0}))


# --------------------------------------------------------------------------------------------------------------------- raw calls


@client("curl", "POST /v1/embeddings")
def curl(target):
    body = json.dumps({"input": target.texts, "model": target.model})
    try:
        out = subprocess.check_output(["curl", "-sS", "--fail-with-body", f"{target.http}/v1/embeddings", "-H", "Content-Type: application/json", "-d", body])
    except FileNotFoundError as error:
        raise Skip("no curl") from error
    target.check([item["embedding"] for item in json.loads(out)["data"]])


@client("open-webui's request", "POST BASE/embeddings with its headers")
def open_webui(target):
    headers = {"Authorization": "Bearer none", "X-OpenWebUI-User-Name": "Somebody", "X-OpenWebUI-User-Role": "user"}
    answer = post(f"{target.http}/v1/embeddings", {"input": target.texts, "model": target.model}, **headers)
    target.check([item["embedding"] for item in answer["data"]])


# ----------------------------------------------------------------------------------------------------------------------- the run


def start(folder: Path, extra: str = "") -> Server:
    folder.mkdir()
    (folder / "keys.yaml").write_text(f"keys:\n  - {{name: clients, key: {KEY}}}\n  - {{name: small, key: {SMALL_KEY}, max_concurrent_calls: 1}}\n")
    return start_server(folder, [MODEL], extra=f"http_listen: 127.0.0.1:0\nprofiles: {{long: {PROFILE}}}\n{extra}")


def target_of(server: Server, keyed: Server, model: str, texts: list[str], options: dict) -> Target:
    http = f"http://127.0.0.1:{server.http_port}"
    body = {"inputs": [{"text": text} for text in texts], "options": options}
    vectors = [result["embeddings"][0]["values"] for result in post(f"{http}/longembed/v1/embed", body)["results"]]
    return Target(http, f"127.0.0.1:{server.port}", model, texts, vectors, f"http://127.0.0.1:{keyed.http_port}")


def outcome(call: Callable[[Target], None], target: Target) -> str:
    try:
        call(target)
    except Skip as skip:
        return f"skipped: {skip}"
    except Exception as error:  # noqa: BLE001 - a library may raise anything.
        return f"FAILED: {type(error).__name__}: {str(error)[:300]}".replace("\n", " ").replace("|", "\\|")
    return "yes"


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def table(plain: Target, profile: Target, only: str) -> tuple[str, int]:
    lines, failed = ["| client | version | call | plain model | profile model |", "|---|---|---|---|---|"], 0
    for package, name, called, call, once in ROWS:
        if only not in f"{package} {name}":
            continue
        results = [outcome(call, plain), "" if once else outcome(call, profile)]
        failed += sum(result.startswith("FAILED") for result in results)
        lines.append(f"| {package} | {version(package)} | {called} | {results[0]} | {results[1]} |")
        print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines), failed


def write(lines: str) -> None:
    page = ROOT / "tests/clients/README.md"
    before, _, rest = page.read_text().partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n\nRun on {date.today().isoformat()}.\n\n{lines}\n\n{END}{rest.partition(END)[2]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into tests/clients/README.md")
    parser.add_argument("--only", default="", help="clients whose name has this in it")
    arguments = parser.parse_args()
    servers: list[Server] = []
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        try:
            for name, extra in (("plain", ""), ("profile", "tei: {profile: long}\n"), ("keyed", "api_keys: keys.yaml\nreflection: false\n")):
                try:
                    servers.append(start(Path(folder) / name, extra))
                except RuntimeError as error:
                    print(f"the server {name!r} did not start, and the first one is used instead: {error}", file=sys.stderr)
                    servers.append(servers[0])
            plain = target_of(servers[0], servers[2], MODEL, SHORT, {})
            profile = target_of(servers[1], servers[2], f"{MODEL}:long", LONG, {"extension": {"profile": "long"}})
            lines, failed = table(plain, profile, arguments.only)
        finally:
            for server in servers:
                server.stop()
    print(lines)
    if arguments.write:
        write(lines)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""The routes of HTTP, and the requests and answers of the dialects that have their own: OpenAI's, TEI's and Cohere's. openapi.py makes openapi.json of it.

Beside the C++ that it describes: openai.cc, tei.cc, cohere.cc, proto_json.cc, health_route.cc. openapi_test.cc compares both.
"""


def said(description: str) -> dict:
    return {"description": description} if description else {}


def text(description: str = "", **more) -> dict:
    return {"type": "string"} | said(description) | more


def flag(description: str, default: bool) -> dict:
    return {"type": "boolean", "description": description, "default": default}


def count(description: str = "", **more) -> dict:
    return {"type": "integer", "minimum": 0, "maximum": 2**32 - 1} | said(description) | more


def choice(description: str, values: list[str], **more) -> dict:
    return {"type": "string", "enum": values} | said(description) | more


def items(schema: dict, description: str = "", **more) -> dict:
    return {"type": "array", "items": schema} | said(description) | more


def record(properties: dict, description: str = "", required: list[str] | None = None) -> dict:
    """An answer: every field is there unless `required` says otherwise."""
    return {"type": "object"} | said(description) | {"properties": properties, "required": list(properties) if required is None else required}


def ref(name: str) -> dict:
    return {"$ref": f"#/components/schemas/{name}"}


TEXT = {"type": "string"}
NUMBER = {"type": "number"}
TOKEN_IDS = items({"type": "integer", "minimum": 0, "maximum": 2**32 - 1}, "Token ids of the model's own tokenizer, with its special tokens.")
VECTOR = items(NUMBER, "A vector.")


def inputs(description: str) -> dict:
    return {"description": description, "anyOf": [TEXT, items(TEXT), TOKEN_IDS, items(TOKEN_IDS)]}


def dimensions() -> dict:
    return count("Keep the first so many components, before normalization. 0: all. Refused where the model is not trained for it.", default=0)


def failure(message: str, more: dict, description: str) -> dict:
    reason = text("A stable name for what is wrong, such as TOO_MANY_TOKENS.")
    field = {"type": ["string", "null"], "description": "The field of the request that is wrong; null where it is none."}
    parts = {"reason": reason, "field": field}
    return record({message: text("A sentence that names field, value and limit.")} | {more.get(name, name): part for name, part in parts.items()}, description)


# Requests. `options` are fields of longembed.v1's EmbedOptions that a dialect takes unchanged.
REQUESTS = {
    "OpenAIEmbeddingsRequest": {
        "description": "OpenAI's request, and options of longembed.v1 beside it.",
        "required": ["input"],
        "properties": {
            "input": inputs("A text, several texts, one text's token ids, or those of several."),
            "model": text("Which model. May be left out when the server has exactly one."),
            "encoding_format": choice("base64 is of float32, little endian: a quarter of the bytes.", ["float", "base64"], default="float"),
            "dimensions": dimensions(),
            "user": text("Taken, and not used."),
        },
        "options": ["extension", "prompt_name", "prompt", "input_type", "truncate", "max_tokens", "normalize", "force_dimensions", "priority"],
    },
    "TeiEmbedRequest": {
        "description": "TEI's request, and options of longembed.v1 beside it.",
        "required": ["inputs"],
        "properties": {
            "inputs": inputs("A text, several texts, one text's token ids, or those of several."),
            "truncate": flag("Cut inputs that have more tokens than the model takes, instead of refusing them.", False),
            "truncation_direction": choice("Which end is cut away.", ["Right", "Left"], default="Right"),
            "prompt_name": text("A name of the model's prompts. Left out: the server's tei.default_prompt."),
            "normalize": flag("Scale vectors to Euclidean length 1.", True),
            "dimensions": dimensions(),
        },
        "options": ["extension", "max_tokens", "priority"],
    },
    "TeiEmbedAllRequest": {"like": "TeiEmbedRequest", "description": "As of /embed; a vector a token comes back, as the model gives it."},
    "TeiEmbedSparseRequest": {
        "like": "TeiEmbedRequest",
        "without": ["normalize", "dimensions"],
        "description": "As of /embed, for a model with a sparse head.",
    },
    "TeiTokenizeRequest": {
        "description": "TEI's request.",
        "required": ["inputs"],
        "properties": {
            "inputs": {"description": "A text, or several texts.", "anyOf": [TEXT, items(TEXT)]},
            "add_special_tokens": flag("Put the model's special tokens around each text.", True),
            "prompt_name": text("A name of the model's prompts, which is put before each text."),
        },
    },
    "TeiDecodeRequest": {
        "description": "TEI's request.",
        "required": ["ids"],
        "properties": {
            "ids": {"description": "One text's token ids, or those of several.", "anyOf": [TOKEN_IDS, items(TOKEN_IDS)]},
            "skip_special_tokens": flag("Leave the model's special tokens out of the text.", True),
        },
    },
    "CohereEmbedRequest": {
        "description": "Cohere's request, and options of longembed.v1 beside it.",
        "required": ["texts"],
        "properties": {
            "texts": inputs("A text, several texts, or token ids."),
            "model": text("Which model. May be left out when the server has exactly one."),
            "input_type": choice(
                "search_query and search_document stand for the model's QUERY and DOCUMENT prompts, where it has them; the others for none of their own.",
                ["search_query", "search_document", "classification", "clustering"],
            ),
            "embedding_types": items(
                {"type": "string", "enum": ["float", "int8", "uint8", "binary", "ubinary", "base64"]},
                "Each vector comes in each of these forms.",
                default=["float"],
                minItems=1,
            ),
            "truncate": choice("Which end of an input with too many tokens is cut away; NONE refuses it.", ["NONE", "START", "END"], default="END"),
            "output_dimension": dimensions(),
            "max_tokens": count("The most tokens of an input, specials and prompt included. 0: no limit but the capacity's.", default=0),
        },
        "options": ["extension", "normalize", "force_dimensions", "priority"],
    },
}

RECIPE = text("Equal recipes mean comparable vectors.")
OPENAI_MODEL = record({
    "id": text("To be named in a request: a model, or a model and a profile, NAME:PROFILE."),
    "object": {"const": "model"},
    "created": {"const": 0},
    "owned_by": {"const": "longembed"},
})
INTEGERS = items(items({"type": "integer"}))

ANSWERS = {
    "OpenAIEmbeddings": record({
        "object": {"const": "list"},
        "data": items(record({
            "object": {"const": "embedding"},
            "index": count("Of the input."),
            "embedding": {"oneOf": [VECTOR, text("With encoding_format base64.", contentEncoding="base64")]},
        })),
        "model": text("As the request names it, else its name."),
        "usage": record({"prompt_tokens": count("Of all inputs, as encoded."), "total_tokens": count("The same.")}),
        "recipe": RECIPE,
    }),
    "OpenAIModel": OPENAI_MODEL,
    "OpenAIModels": record({"object": {"const": "list"}, "data": items(ref("OpenAIModel"))}),
    "TeiVectors": items(VECTOR, "One an input."),
    "TeiTokenVectors": items(items(VECTOR, "One a token."), "One list an input."),
    "TeiSparseVectors": items(items(record({"index": count("Of the vocabulary."), "value": NUMBER})), "One list of weights an input."),
    "TeiTokens": items(items(record({
        "id": count(),
        "text": text("As it stands in the input."),
        "special": {"type": "boolean", "description": "Added, not found in the text."},
        "start": {"type": ["integer", "null"], "description": "The first byte of the input."},
        "stop": {"type": ["integer", "null"], "description": "The byte behind the last."},
    })), "One list an input."),
    "TeiTexts": items(TEXT, "One an input."),
    "TeiInfo": record({
        "model_id": text(),
        "model_sha": {"type": "null"},
        "model_dtype": text("Such as float32."),
        "model_type": record({"embedding": record({"pooling": choice("", ["cls", "last_token", "mean"])})}),
        "max_concurrent_requests": {"type": "null"},
        "max_input_length": count("The most tokens of an input."),
        "max_batch_tokens": count(),
        "max_batch_requests": {"type": ["integer", "null"]},
        "max_client_batch_size": count("The most inputs of a request."),
        "auto_truncate": {"const": False},
        "tokenization_workers": count(),
        "version": text("Of the server."),
        "sha": {"type": "null"},
        "docker_label": {"type": "null"},
    }),
    "CohereEmbeddings": record({
        "id": text("Of this answer."),
        "response_type": {"const": "embeddings_by_type"},
        "embeddings": record({
            "float": items(VECTOR),
            "int8": INTEGERS | {"description": "-127 to 127, the largest component of a vector at one end."},
            "uint8": INTEGERS | {"description": "int8 and 128."},
            "binary": INTEGERS | {"description": "ubinary less 128."},
            "ubinary": INTEGERS | {"description": "A bit a component, 1 where it is above 0, the first in the highest bit of the first byte."},
            "base64": items(text(contentEncoding="base64"), "float32, little endian."),
        }, "Under each type that was asked for, a vector an input.", required=[]),
        "texts": items(TEXT, "Those of the request; empty for token ids."),
        "meta": record({
            "api_version": record({"version": {"const": "2"}}),
            "billed_units": record({"input_tokens": count("Of all inputs, as encoded.")}),
        }),
        "recipe": RECIPE,
    }),
    "Healthy": {"type": "object", "description": "Empty."},
    "OpenAIError": record({"error": failure("message", {"reason": "code", "field": "param"}, "What is wrong.")}),
    "TeiError": failure("error", {}, "What is wrong."),
    "CohereError": failure("message", {}, "What is wrong."),
    "HealthError": failure("error", {}, "What is wrong."),
}
ANSWERS["OpenAIError"]["properties"]["error"]["properties"]["type"] = choice(
    "", ["authentication_error", "invalid_request_error", "rate_limit_error", "server_error"])
ANSWERS["TeiError"]["properties"]["error_type"] = choice("", ["Backend", "Overloaded", "Unhealthy", "Validation"])

# One API: its name, the schema of its errors, and its routes. A route has its method, path, operation, description, request, answer and an example.
NILE = "The Nile is about 6,650 km long."
APIS = [
    {
        "name": "OpenAI",
        "description": "OpenAI's embeddings API for its clients, with longembed.v1's options beside its own.",
        "error": "OpenAIError",
        "routes": [
            ("post", "/v1/embeddings", "createEmbedding", "Embed texts, a vector each", "OpenAIEmbeddingsRequest", "OpenAIEmbeddings",
             {"input": [NILE, "How long is the Nile?"]}),
            ("get", "/v1/models", "listOpenAIModels", "List the models, and each with each of its profiles", None, "OpenAIModels", None),
            ("get", "/v1/models/{model}", "getOpenAIModel", "Look a model up", None, "OpenAIModel", None),
        ],
    },
    {
        "name": "TEI",
        "description": "The HTTP API of Hugging Face's text-embeddings-inference, answered by the model of tei.model.",
        "error": "TeiError",
        "routes": [
            ("post", "/embed", "teiEmbed", "Embed texts, a vector each", "TeiEmbedRequest", "TeiVectors", {"inputs": [NILE]}),
            ("post", "/", "teiRoot", "The same, for clients that are given no path", "TeiEmbedRequest", "TeiVectors", {"inputs": [NILE]}),
            ("post", "/invocations", "teiInvocations", "The same, where SageMaker's clients look for it", "TeiEmbedRequest", "TeiVectors", {"inputs": [NILE]}),
            ("post", "/embed_all", "teiEmbedAll", "Embed texts, a vector a token", "TeiEmbedAllRequest", "TeiTokenVectors", {"inputs": NILE}),
            ("post", "/embed_sparse", "teiEmbedSparse", "Weigh entries of the vocabulary", "TeiEmbedSparseRequest", "TeiSparseVectors", {"inputs": NILE}),
            ("post", "/tokenize", "teiTokenize", "Split texts into tokens", "TeiTokenizeRequest", "TeiTokens", {"inputs": NILE}),
            ("post", "/decode", "teiDecode", "Make texts of token ids", "TeiDecodeRequest", "TeiTexts", {"ids": [101, 1996, 17549, 102]}),
            ("get", "/info", "teiInfo", "Tell of the model and its limits", None, "TeiInfo", None),
        ],
    },
    {
        "name": "Cohere",
        "description": "Version 2 of Cohere's embed API for its clients.",
        "error": "CohereError",
        "routes": [
            ("post", "/v2/embed", "cohereEmbed", "Embed texts, in one or several number formats", "CohereEmbedRequest", "CohereEmbeddings",
             {"texts": [NILE], "input_type": "search_document", "embedding_types": ["float", "int8"]}),
        ],
    },
    {
        "name": "longembed.v1",
        "description": "The messages of the gRPC API as JSON, with the names of the proto; requests may write them in lowerCamelCase, too. "
                       "Fields with their default value are left out of answers.",
        "error": "Status",
        "routes": [
            ("post", "/longembed/v1/embed", "embed", None, "EmbedRequest", "EmbedResponse",
             {"options": {"extension": {"windows": {}}}, "inputs": [{"text": NILE}]}),
            ("post", "/longembed/v1/explain", "explain", None, "ExplainRequest", "ExplainResponse",
             {"options": {"extension": {"windows": {}}}, "inputs": [{"text": NILE}]}),
            ("post", "/longembed/v1/tokenize", "tokenize", None, "TokenizeRequest", "TokenizeResponse", {"texts": [NILE]}),
            ("get", "/longembed/v1/models", "listModels", "List the models", None, "ListModelsResponse", None),
            ("get", "/longembed/v1/models/{model}", "getModel", "Look a model up: family, trained window, prompts, limits", None, "Model", None),
        ],
    },
    {
        "name": "Health",
        "description": "For probes and load balancers.",
        "error": "HealthError",
        "open": True,
        "routes": [("get", "/health", "health", "Tell whether the server serves: 503 while it starts, drains, or cannot encode", None, "Healthy", None)],
    },
]

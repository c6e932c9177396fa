"""The HTTP routes, and the requests and answers of the dialects that have their own: OpenAI's, TEI's and Cohere's. openapi.py generates openapi.json from this file.

The C++ that it describes is in this folder: openai.cc, tei.cc, cohere.cc, proto_json.cc, health_route.cc. openapi_test.cc compares both.
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


def dimensions(any_number: bool = False) -> dict:
    refused = "" if any_number else " Refused if the model is not trained for this number, unless force_dimensions is set."
    return count(f"Keep this many leading components, before normalization. Absent: all.{refused}", minimum=1)


def failure(message: str, more: dict, description: str) -> dict:
    reason = text("A stable name for what is wrong, such as TOO_MANY_TOKENS.")
    field = {"type": ["string", "null"], "description": "The field of the request that is wrong. Null if no single field is."}
    parts = {"reason": reason, "field": field}
    return record({message: text("A sentence that names field, value and limit.")} | {more.get(name, name): part for name, part in parts.items()}, description)


INFERENCE_OPTIONS = {
    "type": "object",
    "description": "Accepted, but ignored: options of Hugging Face's Inference API, which some clients send to TEI, too.",
    "properties": {name: {"type": "boolean"} for name in ("wait_for_model", "use_cache", "use_gpu")},
    "additionalProperties": False,
}

# Requests. `options` are fields of longembed.v1's EmbedOptions that a dialect takes unchanged.
REQUESTS = {
    "OpenAIEmbeddingsRequest": {
        "description": "OpenAI's request, with additional options of longembed.v1.",
        "required": ["input"],
        "properties": {
            "input": inputs("A text, several texts, one text's token ids, or those of several."),
            "model": text("The name of a model or an alias. May be left out if the server has exactly one model."),
            "encoding_format": choice("base64 encodes float32, little endian, in about a quarter of the bytes of float.", ["float", "base64"], default="float"),
            "dimensions": dimensions(),
            "user": text("Accepted, but ignored."),
            "drop_params": flag("Accepted, but ignored: an option of litellm that some of its clients send on.", False),
        },
        "options": ["extension", "prompt_name", "prompt", "input_type", "truncate", "max_tokens", "normalize", "force_dimensions", "priority"],
    },
    "TeiEmbedRequest": {
        "description": "TEI's request, with additional options of longembed.v1.",
        "required": ["inputs"],
        "properties": {
            "inputs": inputs("A text, several texts, one text's token ids, or those of several."),
            "truncate": flag("Cut inputs that have more tokens than the model accepts, instead of refusing them.", False),
            "truncation_direction": choice("Which end is cut away.", ["Right", "Left", "right", "left"], default="Right"),
            "prompt_name": text("The name of a prompt of the model. Default: the server's tei.default_prompt, else the model's default prompt."),
            "normalize": flag("Scale vectors to Euclidean length 1.", True),
            "dimensions": dimensions(any_number=True),
            "options": INFERENCE_OPTIONS,
        },
        "options": ["extension", "max_tokens", "priority"],
    },
    "TeiEmbedAllRequest": {
        "like": "TeiEmbedRequest",
        "without": ["normalize"],
        "description": "The same as for /embed. The answer has one vector per token, as the model gives it.",
    },
    "TeiEmbedSparseRequest": {
        "like": "TeiEmbedRequest",
        "without": ["normalize", "dimensions"],
        "description": "The same as for /embed, for a model with a sparse head.",
    },
    "TeiTokenizeRequest": {
        "description": "TEI's request.",
        "required": ["inputs"],
        "properties": {
            "inputs": {"description": "A text, or several texts.", "anyOf": [TEXT, items(TEXT)]},
            "add_special_tokens": flag("Put the model's special tokens around each text.", True),
            "prompt_name": text("The name of a prompt of the model. The prompt is put before each text."),
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
        "description": "Cohere's request, with additional options of longembed.v1.",
        "required": ["texts"],
        "properties": {
            "texts": inputs("A text, several texts, or token ids."),
            "model": text("The name of a model or an alias. May be left out if the server has exactly one model."),
            "input_type": choice(
                "search_query and search_document choose the model's QUERY and DOCUMENT prompts, if it has them; then token ids, which hold their prompt already, are "
                "refused. The other values choose no prompt of their own.",
                ["search_query", "search_document", "classification", "clustering"],
            ),
            "embedding_types": items(
                {"type": "string", "enum": ["float", "int8", "uint8", "binary", "ubinary", "base64"]},
                "The number formats in which each vector is returned.",
                default=["float"],
                minItems=1,
            ),
            "truncate": choice("Which end of an input with too many tokens is cut away; NONE refuses it.", ["NONE", "START", "END"], default="END"),
            "output_dimension": dimensions(),
            "max_tokens": count("Maximum number of tokens of an input, special tokens and prompt included. Absent: no limit other than the capacity.", minimum=1),
            "priority": {
                "description": "0 is INTERACTIVE. From 1 on it is BULK, which runs only while no interactive work waits.",
                "anyOf": [{"type": "integer", "minimum": 0, "maximum": 999}, {"type": "string", "enum": ["INTERACTIVE", "BULK"]}],
                "default": 0,
            },
        },
        "options": ["extension", "normalize", "force_dimensions"],
    },
}

RECIPE = text("Equal recipes mean comparable vectors.")
OPENAI_MODEL = record({
    "id": text("The name for requests: a model, or a model with a profile, NAME:PROFILE."),
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
            "index": count("The index of the input."),
            "embedding": {"oneOf": [VECTOR, text("With encoding_format base64.", contentEncoding="base64")]},
        })),
        "model": text("The model as the request names it, or else its name."),
        "usage": record({"prompt_tokens": count("The tokens of all inputs, as encoded."), "total_tokens": count("The same as prompt_tokens.")}),
        "recipe": RECIPE,
    }),
    "OpenAIModel": OPENAI_MODEL,
    "OpenAIModels": record({"object": {"const": "list"}, "data": items(ref("OpenAIModel"))}),
    "TeiVectors": items(VECTOR, "One vector per input."),
    "TeiTokenVectors": items(items(VECTOR, "One vector per token."), "One list per input."),
    "TeiSparseVectors": items(items(record({"index": count("An index into the vocabulary."), "value": NUMBER})), "One list of weights per input."),
    "TeiTokens": items(items(record({
        "id": count(),
        "text": text("The token as it is written in the input."),
        "special": {"type": "boolean", "description": "The token was added and is not part of the text."},
        "start": {"type": ["integer", "null"], "description": "The offset of the token's first byte in the input."},
        "stop": {"type": ["integer", "null"], "description": "The offset of the byte after the token's last."},
    })), "One list per input."),
    "TeiTexts": items(TEXT, "One text per input."),
    "TeiInfo": record({
        "model_id": text(),
        "model_sha": {"type": "null"},
        "model_dtype": text("Such as float32."),
        "model_type": record({"embedding": record({"pooling": choice("", ["cls", "last_token", "mean", "splade"])})}),
        "max_concurrent_requests": {"type": "null"},
        "max_input_length": count("Maximum number of tokens of an input."),
        "max_batch_tokens": count(),
        "max_batch_requests": {"type": ["integer", "null"]},
        "max_client_batch_size": count("Maximum number of inputs of a request."),
        "auto_truncate": {"const": False},
        "tokenization_workers": count(),
        "version": text("The version of the server."),
        "sha": {"type": "null"},
        "docker_label": {"type": "null"},
    }),
    "CohereEmbeddings": record({
        "id": text("The id of this answer."),
        "response_type": {"const": "embeddings_by_type"},
        "embeddings": record({
            "float": items(VECTOR),
            "int8": INTEGERS | {"description": "-127 to 127, scaled so that the largest component of a vector is at one end."},
            "uint8": INTEGERS | {"description": "int8 plus 128."},
            "binary": INTEGERS | {"description": "ubinary minus 128."},
            "ubinary": INTEGERS | {"description": "One bit per component: 1 if the component is above 0. The first component is the highest bit of the first byte."},
            "base64": items(text(contentEncoding="base64"), "float32, little endian."),
        }, "For each requested type, one vector per input.", required=[]),
        "texts": items(TEXT, "The texts of the request. Empty for token ids."),
        "meta": record({
            "api_version": record({"version": {"const": "2"}}),
            "billed_units": record({"input_tokens": count("The tokens of all inputs, as encoded.")}),
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
ANSWERS["TeiError"]["properties"]["error_type"] = choice("", ["Backend", "Empty", "Overloaded", "Unhealthy", "Validation"])

# One API: its name, the schema of its errors, and its routes. A route has its method, path, operation, description, request, answer and an example.
NILE = "The Nile is about 6,650 km long."
APIS = [
    {
        "name": "OpenAI",
        "description": "OpenAI's embeddings API for its clients, with additional options of longembed.v1.",
        "error": "OpenAIError",
        "routes": [
            ("post", "/v1/embeddings", "createEmbedding", "Embed texts, with one vector per text", "OpenAIEmbeddingsRequest", "OpenAIEmbeddings",
             {"input": [NILE, "How long is the Nile?"]}),
            ("get", "/v1/models", "listOpenAIModels", "List the models and their aliases NAME:PROFILE", None, "OpenAIModels", None),
            ("get", "/v1/models/{model}", "getOpenAIModel", "Describe a model", None, "OpenAIModel", None),
            ("post", "/embeddings", "createEmbeddingUnversioned", "The same as /v1/embeddings, for clients whose base URL lacks /v1", "OpenAIEmbeddingsRequest",
             "OpenAIEmbeddings", {"input": [NILE, "How long is the Nile?"]}),
            ("get", "/models", "listOpenAIModelsUnversioned", "The same as /v1/models", None, "OpenAIModels", None),
            ("get", "/models/{model}", "getOpenAIModelUnversioned", "The same as /v1/models/{model}", None, "OpenAIModel", None),
        ],
    },
    {
        "name": "TEI",
        "description": "The HTTP API of Hugging Face's text-embeddings-inference, answered by the model of tei.model.",
        "error": "TeiError",
        "routes": [
            ("post", "/embed", "teiEmbed", "Embed texts, with one vector per text", "TeiEmbedRequest", "TeiVectors", {"inputs": [NILE]}),
            ("post", "/", "teiRoot", "The same, for clients that are given no path; of a SPLADE model as /embed_sparse", "TeiEmbedRequest", "TeiVectors", {"inputs": [NILE]}),
            ("post", "/invocations", "teiInvocations", "The same, at the path of SageMaker's clients; of a SPLADE model as /embed_sparse", "TeiEmbedRequest", "TeiVectors", {"inputs": [NILE]}),
            ("post", "/embed_all", "teiEmbedAll", "Embed texts, with one vector per token", "TeiEmbedAllRequest", "TeiTokenVectors", {"inputs": NILE}),
            ("post", "/embed_sparse", "teiEmbedSparse", "Embed texts as sparse vectors", "TeiEmbedSparseRequest", "TeiSparseVectors", {"inputs": NILE}),
            ("post", "/tokenize", "teiTokenize", "Split texts into tokens", "TeiTokenizeRequest", "TeiTokens", {"inputs": NILE}),
            ("post", "/decode", "teiDecode", "Convert token ids to texts", "TeiDecodeRequest", "TeiTexts", {"ids": [101, 1996, 17549, 102]}),
            ("get", "/info", "teiInfo", "Describe the model and its limits", None, "TeiInfo", None),
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
        "description": "The messages of the gRPC API as JSON, with the field names of the proto. Requests may also use lowerCamelCase. "
                       "Fields with their default value are left out of answers.",
        "error": "Status",
        "routes": [
            ("post", "/longembed/v1/embed", "embed", None, "EmbedRequest", "EmbedResponse",
             {"options": {"extension": {"windows": {}}}, "inputs": [{"text": NILE}]}),
            ("post", "/longembed/v1/explain", "explain", None, "ExplainRequest", "ExplainResponse",
             {"options": {"extension": {"windows": {}}}, "inputs": [{"text": NILE}]}),
            ("post", "/longembed/v1/tokenize", "tokenize", None, "TokenizeRequest", "TokenizeResponse", {"texts": [NILE]}),
            ("get", "/longembed/v1/models", "listModels", "List the models", None, "ListModelsResponse", None),
            ("get", "/longembed/v1/models/{model}", "getModel", "Describe a model: family, trained window, prompts, limits", None, "Model", None),
        ],
    },
    {
        "name": "Health",
        "description": "For probes and load balancers.",
        "error": "HealthError",
        "open": True,
        "routes": [
            ("get", "/health", "health", "Report whether the server is serving: 503 while it drains or cannot encode, no answer while models load", None, "Healthy", None),
            ("get", "/ping", "ping", "The same, at the path of SageMaker's probe", None, "Healthy", None),
        ],
    },
]

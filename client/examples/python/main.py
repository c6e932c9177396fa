"""Embeds texts over longembed.v1 with gRPC alone: one call, a stream, and an error with its details.

README.md in the folder above says how to build and run it. The package in client/python does all of this in fewer lines.
"""

import os

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from longembed.v1 import embedding_pb2 as messages
from longembed.v1 import embedding_pb2_grpc as services

MAX_RECEIVE_BYTES = 64 << 20  # The window vectors of a long text exceed the default limit of 4 MiB.
TIMEOUT_SECONDS = 60


def text(content):
    return messages.Input(text=content)


def embed(client):
    request = messages.EmbedRequest(options={"prompt_name": "query"}, inputs=[text("how long is the Nile?")])
    response = client.Embed(request, timeout=TIMEOUT_SECONDS)
    (result,) = response.results
    print(f"Embed: {response.model}, {len(result.embeddings[0].values)} dimensions, {result.tokens} tokens")


def embed_stream(client):
    """Streams texts. The first message holds the options. Answers arrive as soon as they are ready, each with the id of its text."""
    requests = [
        messages.EmbedStreamRequest(options={"prompt_name": "passage"}, id="nile", input=text("The Nile is about 6,650 km long.")),
        messages.EmbedStreamRequest(id="amazon", input=text("The Amazon is about 6,400 km long.")),
    ]
    for answer in client.EmbedStream(iter(requests), timeout=TIMEOUT_SECONDS):
        if answer.result.HasField("error"):
            print(f"EmbedStream: {answer.id} failed: {answer.result.error.message}")
        else:
            print(f"EmbedStream: {answer.id}, {len(answer.result.embeddings[0].values)} dimensions")


def refused(client):
    """Shows an error: a text longer than the model's window is refused, unless the request sets `extension` or `truncate`."""
    try:
        client.Embed(messages.EmbedRequest(inputs=[text("The Nile is about 6,650 km long. " * 100)]), timeout=TIMEOUT_SECONDS)
    except grpc.RpcError as error:
        reason, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        for detail in rpc_status.from_call(error).details:
            detail.Unpack(reason) or detail.Unpack(bad)
        field = bad.field_violations[0].field
        print(f"Refused: {error.code().name}, reason {reason.reason}, field {field}: {error.details()}")
        return
    raise SystemExit("the text was not refused")


def main():
    address = os.environ.get("LONGEMBED_SERVER", "127.0.0.1:50051")
    options = [("grpc.max_receive_message_length", MAX_RECEIVE_BYTES)]
    with grpc.insecure_channel(address, options=options) as channel:
        client = services.EmbeddingServiceStub(channel)
        embed(client)
        embed_stream(client)
        refused(client)


if __name__ == "__main__":
    main()

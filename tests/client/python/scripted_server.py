"""A gRPC server in this process whose EmbedStream and Embed are functions of the test. It reproduces behavior that a real server shows only by
chance."""

from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager

import grpc
from longembed import messages

SERVICE = "longembed.v1.EmbeddingService"


def answer(request: messages.EmbedStreamRequest, text: str | None = None) -> messages.EmbedStreamResponse:
    """Returns an answer with one component, which is the length of the text."""
    result = messages.EmbedResult(tokens=1)
    result.embeddings.add(values=[float(len(text if text is not None else request.input.text))], dimensions=1)
    return messages.EmbedStreamResponse(id=request.id, result=result, model="scripted", recipe="r")


@contextmanager
def serving(stream: Callable | None = None, embed: Callable | None = None) -> Iterator[str]:
    """Yields HOST:PORT. `stream(requests, context)` yields responses. `embed(request, context)` returns one."""
    handlers = {}
    if stream is not None:
        handlers["EmbedStream"] = grpc.stream_stream_rpc_method_handler(
            stream, messages.EmbedStreamRequest.FromString, messages.EmbedStreamResponse.SerializeToString
        )
    if embed is not None:
        handlers["Embed"] = grpc.unary_unary_rpc_method_handler(embed, messages.EmbedRequest.FromString, messages.EmbedResponse.SerializeToString)
    server = grpc.server(futures.ThreadPoolExecutor(16))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def overloaded(seconds: float | None) -> messages.Status:
    """Returns the status of a server without room. `seconds` is its retry delay."""
    status = messages.Status(code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], message="the queue is full")
    if seconds is not None:
        delay = messages.RetryInfo()
        delay.retry_delay.FromNanoseconds(int(seconds * 1e9))
        status.details.add().Pack(delay)
    return status


def refusal(request: messages.EmbedStreamRequest, seconds: float | None) -> messages.EmbedStreamResponse:
    """Returns the answer to an item that the server has no room for."""
    return messages.EmbedStreamResponse(id=request.id, result=messages.EmbedResult(error=overloaded(seconds)))


def abort_overloaded(context, seconds: float) -> None:
    """Ends a call as the server does when it is overloaded."""
    status = overloaded(seconds)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full")

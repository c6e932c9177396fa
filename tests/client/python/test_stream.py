"""Tests embed_stream of Client and AsyncClient against servers that break, stall, refuse and end early."""

import asyncio
import threading
import time

import grpc
import pytest

longembed = pytest.importorskip("longembed", reason="the Python package is not installed; run tests/run.sh")

from longembed import AsyncClient, Client, DeadlineExceeded, InvalidArgument, Overloaded, Unavailable, messages  # noqa: E402
from longembed.pending import PART_CODE_POINTS  # noqa: E402
from longembed.retry import Attempts  # noqa: E402
from scripted_server import abort_overloaded, answer, refusal, serving  # noqa: E402


def test_the_delay_stays_bounded_after_any_number_of_failures():
    attempts = Attempts(float("inf"))
    attempts.succeeded()
    delays = [attempts.delay_after(Unavailable("gone", "UNAVAILABLE"), 0) for _ in range(1100)]
    assert max(delays) <= 6 and min(delays[10:]) >= 4


def collect_blocking(address, items, answers=None, **options):
    """Returns the answers, which are also in the list `answers` if the stream ends with an error."""
    answers = [] if answers is None else answers
    with Client(address, timeout=options.pop("client_timeout", 20)) as client:
        answers.extend(client.embed_stream(items, **options))
    return answers


def collect_async(address, items, answers=None, **options):
    answers = [] if answers is None else answers

    async def run():
        async with AsyncClient(address, timeout=options.pop("client_timeout", 20)) as client:
            async for found in client.embed_stream(items, **options):
                answers.append(found)

    asyncio.run(run())
    return answers


COLLECTORS = pytest.mark.parametrize("collect", [collect_blocking, collect_async], ids=["blocking", "async"])


def echo(requests, context):
    for request in requests:
        yield answer(request)


def texts(count):
    return [(f"id {i}", "x" * (i + 1)) for i in range(count)]


def check_all(found, count):
    """Checks that every text occurs once, with its own answer."""
    assert sorted((e.id, float(e.vector[0])) for e in found) == sorted((f"id {i}", i + 1.0) for i in range(count))


@COLLECTORS
def test_every_text_is_answered_once_with_its_id(collect):
    with serving(echo) as address:
        check_all(collect(address, texts(1000)), 1000)


@COLLECTORS
def test_without_texts_there_are_no_answers(collect):
    with serving(echo) as address:
        assert collect(address, []) == []


@COLLECTORS
def test_options_go_with_the_first_message_alone_and_ids_default_to_numbers(collect):
    seen = []

    def record(requests, context):
        for request in requests:
            seen.append((request.options.prompt_name, request.HasField("options")))
            yield answer(request)

    with serving(record) as address:
        found = collect(address, ["a", "b", "c"], prompt_name="passage")
    assert seen == [("passage", True), ("", False), ("", False)]
    assert sorted(e.id for e in found) == [0, 1, 2]


@COLLECTORS
@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, None], ids=["unavailable", "ended early"])
def test_a_stream_that_breaks_is_opened_again_and_sends_what_has_no_answer(collect, code):
    streams, sent = [], []

    def breaks(requests, context):
        streams.append(1)
        last = len(streams) == 4
        for number, request in enumerate(requests):
            sent.append(request.id)
            if not last and number == 5:
                if code is not None:
                    context.abort(code, "the server shuts down")
                return
            yield answer(request)

    with serving(breaks) as address:
        check_all(collect(address, texts(40)), 40)
    assert len(streams) == 4
    assert len(sent) >= 43  # At least three were sent twice.


@COLLECTORS
def test_answers_in_any_order_find_their_texts(collect):
    def backwards(requests, context):
        held = list(requests)
        yield from (answer(request) for request in reversed(held))

    with serving(backwards) as address:
        check_all(collect(address, texts(50)), 50)


@COLLECTORS
def test_no_more_than_in_flight_are_read_ahead(collect):
    read, greatest, lock = [0], [0], threading.Lock()

    def counted():
        for item in texts(60):
            read[0] += 1
            yield item

    def slow(requests, context):
        answered = 0
        for request in requests:
            time.sleep(0.005)
            with lock:
                greatest[0] = max(greatest[0], read[0] - answered)
            yield answer(request)
            answered += 1

    with serving(slow) as address:
        check_all(collect(address, counted(), in_flight=7), 60)
    assert greatest[0] <= 7 + 2  # One more is read before it waits for room, and one is counted before its answer is taken.


@COLLECTORS
def test_skip_takes_out_one_text_for_each_earlier_answer(collect):
    with serving(echo) as address:
        found = collect(address, [("a", "1"), ("a", "22"), ("b", "333"), ("c", "4444")], skip=["a", "c"])
    assert [(e.id, float(e.vector[0])) for e in found] == [("a", 2.0), ("b", 3.0)]


@COLLECTORS
def test_an_error_of_the_callers_iterable_is_raised_after_the_answers(collect):
    found = []

    def items():
        yield "a"
        yield "b"
        raise KeyError("mine")

    def keep(requests, context):
        for request in requests:
            found.append(request.id)
            yield answer(request)

    with serving(keep) as address, pytest.raises(KeyError, match="mine"):
        collect(address, items())
    assert found == ["0", "1"]


@COLLECTORS
def test_a_refusal_is_raised_at_once_and_not_tried_again(collect):
    streams = []

    def refuses(requests, context):
        streams.append(1)
        next(requests)
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "options.model: is wrong")

    with serving(refuses) as address, pytest.raises(InvalidArgument, match="is wrong"):
        collect(address, texts(3))
    assert len(streams) <= (1 if collect is collect_blocking else 2)  # grpc.aio may lose the first refusal.


@COLLECTORS
def test_overload_waits_as_long_as_the_server_says(collect):
    streams = []

    def overloaded(requests, context):
        streams.append(time.monotonic())
        if len(streams) < 3:
            next(requests)
            abort_overloaded(context, 0.3)
        yield from echo(requests, context)

    with serving(overloaded) as address:
        check_all(collect(address, texts(4)), 4)
    waits = [b - a >= 0.3 for a, b in zip(streams, streams[1:])]
    assert waits == [True, True] if collect is collect_blocking else waits[-1]  # grpc.aio may lose the first refusal.


@COLLECTORS
def test_a_text_without_room_is_sent_again_after_the_delay(collect):
    times = {}

    def first_refused(requests, context):
        for request in requests:
            seen = times.setdefault(request.id, [])
            seen.append(time.monotonic())
            yield refusal(request, 0.3) if len(seen) == 1 and int(request.id) % 4 == 0 else answer(request)

    with serving(first_refused) as address:
        check_all(collect(address, texts(40)), 40)
    again = [b - a for a, b in (seen for seen in times.values() if len(seen) == 2)]
    assert len(again) == 10 and min(again) >= 0.29
    assert all(len(seen) == 1 for id, seen in times.items() if int(id) % 4)


@COLLECTORS
def test_a_text_without_room_outlasts_the_stream_that_refused_it(collect):
    streams = []

    def refuses_then_ends(requests, context):
        streams.append(1)
        if len(streams) > 1:
            yield from (answer(request) for request in requests)
            return
        for number, request in enumerate(requests):
            yield refusal(request, 0.2)
            if number == 4:
                return

    with serving(refuses_then_ends) as address:
        check_all(collect(address, texts(5)), 5)
    assert len(streams) == 2


@COLLECTORS
def test_a_text_that_is_refused_six_times_fails_alone(collect):
    sent = []

    def refuses_one(requests, context):
        for request in requests:
            if request.id == "3":
                sent.append(1)
            yield refusal(request, 0.01) if request.id == "3" else answer(request)

    with serving(refuses_one) as address:
        found = {e.id: e for e in collect(address, texts(8))}
    assert len(sent) == 6
    assert isinstance(found["id 3"].error, Overloaded) and sum(e.error is not None for e in found.values()) == 1


@COLLECTORS
@pytest.mark.parametrize("hint", [None, 1000.0], ids=["no hint", "beyond the timeout"])
def test_a_text_over_a_limit_is_not_sent_again(collect, hint):
    sent = []

    def refuses_one(requests, context):
        for request in requests:
            sent.append(request.id)
            yield refusal(request, hint) if request.id == "3" else answer(request)

    with serving(refuses_one) as address:
        found = {e.id: e for e in collect(address, texts(8))}
    assert len(sent) == 8
    assert isinstance(found["id 3"].error, Overloaded)


@COLLECTORS
def test_resource_exhausted_without_a_hint_is_a_limit(collect):
    streams = []

    def limit(requests, context):
        streams.append(1)
        next(requests)
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "message too large")
        yield

    with serving(limit) as address, pytest.raises(Overloaded, match="too large") as raised:
        collect(address, texts(2))
    assert raised.value.retry_delay is None and len(streams) <= (1 if collect is collect_blocking else 2)  # grpc.aio may lose the first refusal.


@COLLECTORS
def test_a_server_that_does_not_answer_is_given_up_after_the_timeout(collect):
    hang = threading.Event()

    def silent(requests, context):
        request = next(requests)
        yield answer(request)
        hang.wait(20)

    with serving(silent) as address:
        with pytest.raises(DeadlineExceeded, match="no answer for 0.6 seconds"):
            collect(address, texts(3), client_timeout=0.6)
        hang.set()


@COLLECTORS
def test_time_in_which_nothing_is_to_be_answered_does_not_count(collect):
    def slow_source():
        for item in texts(3):
            time.sleep(0.6)
            yield item

    async def slow_async_source():
        for item in texts(3):
            await asyncio.sleep(0.6)
            yield item

    streams = []

    def drains(requests, context):
        streams.append(1)
        if len(streams) == 1:
            yield answer(next(requests))
            time.sleep(0.3)
            context.abort(grpc.StatusCode.UNAVAILABLE, "drains while nothing is to be answered")
        yield from echo(requests, context)

    for serve in (echo, drains):
        with serving(serve) as address:
            check_all(collect(address, slow_source() if collect is collect_blocking else slow_async_source(), client_timeout=0.5), 3)
    assert len(streams) == 2


def test_time_that_the_caller_takes_does_not_count_against_retries():
    streams = []

    def drains(requests, context):
        streams.append(1)
        for number, request in enumerate(requests):
            if len(streams) == 1 and number == 2:
                context.abort(grpc.StatusCode.UNAVAILABLE, "drains")
            yield answer(request)

    found = []
    with serving(drains) as address, Client(address, timeout=1) as client:
        for e in client.embed_stream(texts(6), in_flight=2):
            found.append(e)
            time.sleep(1.2 if len(found) == 2 else 0)
    check_all(found, 6)


@COLLECTORS
def test_a_server_that_never_ends_the_stream_does_not_hold_the_caller(collect, monkeypatch):
    for module in (longembed.stream, longembed.aio):
        monkeypatch.setattr(module, "SECONDS_TO_END", 0.2)
    hang = threading.Event()

    def never_ends(requests, context):
        yield from echo(requests, context)
        hang.wait(20)

    with serving(never_ends) as address:
        check_all(collect(address, texts(5)), 5)
        hang.set()


@COLLECTORS
def test_the_server_is_given_time_to_end_the_stream_itself(collect):
    ended = []

    def watched(requests, context):
        context.add_callback(lambda: ended.append(context.code()))
        yield from echo(requests, context)
        time.sleep(0.2)
        context.set_code(grpc.StatusCode.OK)

    with serving(watched) as address:
        check_all(collect(address, texts(5)), 5)
    assert ended == [grpc.StatusCode.OK]


@COLLECTORS
def test_an_answer_without_a_request_is_an_error(collect):
    def confused(requests, context):
        for request in requests:
            yield answer(request)
            yield answer(request)

    with serving(confused) as address, pytest.raises(longembed.LongEmbedError, match="not asked for: '0'") as raised:
        collect(address, texts(3))
    assert raised.value.code == "INTERNAL"


@COLLECTORS
@pytest.mark.parametrize("id", ["first", "\u00b2", "9" * 5000], ids=["no number", "superscript", "long"])
def test_an_answer_to_an_id_that_was_never_sent_is_an_error(collect, id):
    def confused(requests, context):
        yield messages.EmbedStreamResponse(id=id, result=answer(next(requests)).result)

    with serving(confused) as address, pytest.raises(longembed.LongEmbedError, match="not asked for") as raised:
        collect(address, texts(1))
    assert raised.value.code == "INTERNAL"


@COLLECTORS
@pytest.mark.parametrize("encoding, packed", [("FLOAT16", b"abc"), ("FLOAT16", b"abcd"), ("FLOAT32", b"abcd"), ("INT8", b""), ("BINARY", b"ab")])
def test_an_answer_that_is_not_in_the_encoding_is_an_error(collect, encoding, packed):
    """Half of a float16 at the end, or another encoding, as a proxy or another server might send it."""

    def torn(requests, context):
        for request in requests:
            result = messages.EmbedResult(tokens=1)
            result.embeddings.add(packed=packed, dimensions=1)
            yield messages.EmbedStreamResponse(id=request.id, result=result)

    with serving(torn) as address, pytest.raises(longembed.LongEmbedError, match=f"not {encoding}") as raised:
        collect(address, texts(1), encoding=encoding)
    assert raised.value.code == "INTERNAL"


@COLLECTORS
def test_an_answer_without_a_vector_is_an_error_of_the_stream(collect):
    """Also the last answer, after which nothing would be waited for."""

    def empty(requests, context):
        for request in requests:
            yield messages.EmbedStreamResponse(id=request.id, result=messages.EmbedResult(tokens=1))

    with serving(empty) as address, pytest.raises(longembed.LongEmbedError, match="without a vector"):
        collect(address, texts(1))


@COLLECTORS
def test_details_that_cannot_be_read_do_not_hide_the_error(collect):
    """As a proxy or another server might send them, beside an answer and at the end of a stream."""

    def torn(requests, context):
        status = messages.Status(code=grpc.StatusCode.INVALID_ARGUMENT.value[0], message="too long")
        status.details.add(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff\xff")
        yield messages.EmbedStreamResponse(id=next(requests).id, result=messages.EmbedResult(error=status))
        next(requests)
        context.set_trailing_metadata((("grpc-status-details-bin", b"\xff\xff"),))
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no more")

    answers = []
    with serving(torn) as address, pytest.raises(InvalidArgument, match="no more"):
        collect(address, texts(2), answers=answers)
    (first,) = answers
    assert str(first.error) == "too long" and first.error.code == "INVALID_ARGUMENT" and first.error.reason is None


def test_a_refused_text_is_answered_while_the_iterable_waits():
    told = threading.Event()

    def items():
        yield "bad", "\ud800"
        assert told.wait(10)
        yield "good", "x"

    with serving(echo) as address, Client(address) as client:
        for e in client.embed_stream(items()):
            told.set()
    assert e.id == "good"


def test_a_cancelled_iterable_ends_an_async_stream():
    async def cancelled():
        yield "a"
        task = asyncio.ensure_future(asyncio.sleep(9))
        task.cancel()
        await task

    with serving(echo) as address, pytest.raises(asyncio.CancelledError):
        collect_async(address, cancelled())


@COLLECTORS
def test_no_server_is_unavailable_after_the_attempts(collect):
    with pytest.raises(Unavailable):
        collect("127.0.0.1:1", texts(1), client_timeout=20)


@COLLECTORS
def test_a_long_text_comes_in_parts_that_join_to_it(collect):
    text = "né漢😀" * (PART_CODE_POINTS // 2)
    parts = []

    def join(requests, context):
        joined = ""
        for request in requests:
            parts.append((len(request.input.text), request.HasField("options")))
            joined += request.input.text
            if not request.more_parts:
                assert joined == text
                yield answer(request, joined)

    with serving(join) as address:
        found = collect(address, [text])
    assert float(found[0].vector[0]) == len(text)
    assert parts == [(PART_CODE_POINTS, True), (PART_CODE_POINTS, False)]


@COLLECTORS
def test_items_that_are_no_texts_are_named(collect):
    with serving(echo) as address, pytest.raises(TypeError, match="not dict"):
        collect(address, [{"text": "a"}])


@COLLECTORS
@pytest.mark.parametrize("count", [0, 3])
def test_a_text_that_is_not_unicode_fails_alone(collect, count):
    items = [("bad", "a\ud800"), *texts(count), ("worse", "\udfff")]
    with serving(echo) as address:
        found = collect(address, items)
    errors = {e.id: str(e.error) for e in found if e.error}
    assert errors == {"bad": "a text has the lone surrogate U+D800 at character 1", "worse": "a text has the lone surrogate U+DFFF at character 0"}
    check_all([e for e in found if not e.error], count)


@COLLECTORS
@pytest.mark.parametrize(("items", "words"), [("one text", "list of texts"), (b"bytes", "list of texts"), ([(1, "a", "b")], "tuple of 3")])
def test_items_that_are_not_a_list_of_texts_are_refused(collect, items, words):
    with serving(echo) as address, pytest.raises(TypeError, match=words):
        collect(address, items)


@COLLECTORS
def test_wrong_options_are_refused_before_anything_is_read(collect):
    def never():
        raise AssertionError("was read")
        yield

    with serving(echo) as address, pytest.raises(ValueError, match="windws"):
        collect(address, never(), extension={"windws": {}})
    with serving(echo) as address, pytest.raises(ValueError, match="in_flight is 0"):
        collect(address, never(), in_flight=0)
    with serving(echo) as address, pytest.raises(TypeError, match="skip takes a list of ids, not one str"):
        collect(address, never(), skip="GPL-3")


def test_a_caller_that_breaks_off_ends_the_stream():
    ended = threading.Event()

    def watched(requests, context):
        context.add_callback(ended.set)
        yield from echo(requests, context)

    def endless():
        while True:
            yield "text"

    with serving(watched) as address, Client(address) as client:
        for count, _ in enumerate(client.embed_stream(endless())):
            if count == 3:
                break
        assert ended.wait(10)


def test_an_async_caller_that_breaks_off_ends_the_stream_and_its_own_iterable():
    ended, closed = threading.Event(), []

    def watched(requests, context):
        context.add_callback(ended.set)
        yield from echo(requests, context)

    async def endless():
        try:
            while True:
                yield "text"
                await asyncio.sleep(0)
        finally:
            closed.append(True)

    async def run(address):
        async with AsyncClient(address) as client:
            stream = client.embed_stream(endless())
            async for _ in stream:
                break
            await stream.aclose()

    with serving(watched) as address:
        asyncio.run(run(address))
        assert ended.wait(10)
    assert closed == [True]


def test_a_client_that_is_closed_ends_its_streams():
    def slow(requests, context):
        for request in requests:
            yield answer(request)
            time.sleep(0.3)

    def run_blocking(address):
        client = Client(address, timeout=10)
        for _ in client.embed_stream(texts(9)):
            client.close()

    async def run(address):
        client = AsyncClient(address, timeout=10)
        async for _ in client.embed_stream(texts(9)):
            await client.close()

    with serving(slow) as address:
        for call in (run_blocking, lambda address: asyncio.run(run(address))):
            with pytest.raises(ValueError, match="Cannot invoke RPC"):
                call(address)


def test_unary_calls_are_retried_by_grpc(monkeypatch):
    calls = []

    def flaky(request, context):
        calls.append(1)
        if len(calls) < 3:
            context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")
        return longembed.messages.EmbedResponse()

    with serving(embed=flaky) as address, Client(address) as client:
        assert len(client.embed(["a"])) == 0
    assert len(calls) == 3

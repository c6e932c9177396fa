"""Runs a soak test: clients of every kind, with random lengths and options, for half an hour. At intervals all clients pause for a moment, and
what the server holds then must not grow beyond measurement noise.

A line is fitted through the means of 20 sections of the run's last two thirds. Growth is the slope times the length of these two thirds. Noise is
the same for the 99 % bound of the slope that scatter alone would produce."""

import argparse
import contextlib
import math
import random
import threading
import time
from collections import Counter
from pathlib import Path

import grpc
import numpy as np
import yaml

from harness import Missing, Replica, Report, python_client, run, text_of, until
from history import LEAST_COSINE, History, Outcome, judge, likeness, outcome_of

KEYS = {"alpha": "soak-key-of-alpha", "beta": "soak-key-of-beta"}
BUSY = {"OK", "RESOURCE_EXHAUSTED"}
# The number of answers of each client that are requested again when nothing else runs.
ASKED_AGAIN = 5


class Pace:
    """Lets clients run, and pauses all of them for a moment."""

    def __init__(self):
        self.condition, self.paused, self.stopped, self.active = threading.Condition(), False, False, 0

    @contextlib.contextmanager
    def operation(self):
        with self.condition:
            self.condition.wait_for(lambda: not self.paused)
            self.active += 1
        try:
            yield
        finally:
            with self.condition:
                self.active -= 1
                self.condition.notify_all()

    def rest(self, seconds: float) -> bool:
        with self.condition:
            self.paused = True
            return self.condition.wait_for(lambda: self.active == 0, seconds)

    def go_on(self) -> None:
        with self.condition:
            self.paused = False
            self.condition.notify_all()


class Client(threading.Thread):
    """Runs random operations one after the other. Each operation lists the status codes that are correct for it."""

    def __init__(self, address: str, modules, tei, pace: Pace, history: History, part: int, parts: int):
        super().__init__(daemon=True)
        self.address, (self.pb, self.stubs), (self.tei, self.tei_stubs) = address, modules, tei
        self.pace, self.rng, self.part, self.parts = pace, random.Random(part), part, parts
        self.done, self.wrong = Counter(), Counter()
        self.history, self.calls, self.kept = history, 0, []
        self.channel = None
        self.connect()

    def connect(self) -> None:
        if self.channel is not None:
            self.channel.close()
        self.channel = grpc.insecure_channel(self.address, [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)])
        self.stub = self.stubs.EmbeddingServiceStub(self.channel)
        self.metadata = [("authorization", f"Bearer {KEYS[self.rng.choice(list(KEYS))]}")]

    def run(self) -> None:
        operations = {
            self.embed: 10, self.windows: 3, self.positions: 2, self.spans: 1, self.stream: 3, self.abandoned_stream: 1, self.cancelled: 2,
            self.late: 2, self.refused: 2, self.garbage: 1, self.wrong_key: 1, self.inspect: 2, self.tei_embed: 2, self.tei_stream: 1,
            self.reconnect: 1,
        }  # fmt: skip
        first = list(operations)[self.part :: self.parts]  # Together the clients begin with one operation of each kind.
        while not self.pace.stopped:
            operation = first.pop() if first else self.rng.choices(list(operations), list(operations.values()))[0]
            with self.pace.operation():
                try:
                    code, allowed, words = "OK", *operation(), ""
                except Wrong as outcome:
                    code, allowed, words = outcome.code, outcome.allowed, outcome.words
                except Exception as error:  # A mistake in this script must not end its thread unnoticed.
                    code, allowed, words = type(error).__name__, BUSY, str(error)
            self.done[operation.__name__] += 1
            if code not in allowed:
                self.wrong[f"{operation.__name__}: {code} {words[:100]}"] += 1

    def call(self, method, request, allowed: set[str], timeout: float = 60):
        id, now = f"{self.part}-{self.calls}", time.monotonic()
        self.calls += 1
        self.history.send(id, id, now, now + timeout)
        try:
            answer = method(request, timeout=timeout, metadata=self.metadata)
        except grpc.RpcError as error:
            self.history.finish(id, outcome_of(error, time.monotonic()))
            raise Wrong(error.code().name, allowed, error.details() or "") from None
        # TEI's answers have other fields.
        embedded = isinstance(answer, self.pb.EmbedResponse)
        self.history.finish(id, Outcome(time.monotonic(), "OK", tokens=sum(result.tokens for result in answer.results) if embedded else 0))
        if embedded and len(self.kept) < ASKED_AGAIN:
            self.kept.append((request, answer))
        return answer

    def words(self, least: int, most: int) -> str:
        """Lengths are uniform in their logarithm."""
        return text_of(int(math.exp(self.rng.uniform(math.log(least), math.log(most)))), self.rng)

    def options(self):
        options = self.pb.EmbedOptions(
            truncate=self.rng.randrange(1, 3), encoding=self.rng.randrange(5), priority=self.rng.randrange(2), normalize=self.rng.random() < 0.8
        )
        if self.rng.random() < 0.3:
            options.dimensions, options.force_dimensions = self.rng.randrange(8, 385, 8), True
        if self.rng.random() < 0.5:
            options.prompt_name = self.rng.choice(["query", "passage"])
        elif self.rng.random() < 0.3:
            options.prompt = self.words(1, 20) + ": "
        return options

    def inputs(self, least: int, most: int, count: int):
        return [self.pb.Input(text=self.words(least, most)) for _ in range(self.rng.randrange(1, count + 1))]

    def embed(self):
        answer = self.call(
            self.stub.Embed, self.pb.EmbedRequest(options=self.options(), inputs=self.inputs(1, 600, 12), partial_results=self.rng.random() < 0.3), BUSY
        )
        if not all(result.embeddings or result.HasField("error") for result in answer.results):
            raise Wrong("NOTHING", BUSY, "an input without vector and without error")
        return (BUSY,)

    def windows(self):
        options = self.options()
        options.truncate = self.pb.EmbedOptions.NONE
        options.extension.windows.tokens = self.rng.randrange(64, 512)
        options.extension.windows.overlap = self.rng.randrange(0, 16)
        options.output = self.rng.randrange(2)
        if options.output == self.pb.EmbedOptions.ONE_VECTOR:
            options.extension.windows.aggregation = self.rng.randrange(4)
        self.call(self.stub.Embed, self.pb.EmbedRequest(options=options, inputs=self.inputs(300, 4000, 2)), BUSY)
        return (BUSY,)

    def positions(self):
        options = self.options()
        getattr(options.extension, self.rng.choice(["grouped", "recurrent", "interpolation"])).SetInParent()
        self.call(self.stub.Embed, self.pb.EmbedRequest(options=options, inputs=self.inputs(300, 1500, 2)), BUSY)
        return (BUSY,)

    def spans(self):
        options = self.options()
        options.output = self.pb.EmbedOptions.SPAN_VECTORS
        options.spans.every_tokens.tokens = self.rng.randrange(1, 100)
        self.call(self.stub.Embed, self.pb.EmbedRequest(options=options, inputs=self.inputs(10, 400, 4)), BUSY)
        return (BUSY,)

    def stream_requests(self, count: int):
        yield self.pb.EmbedStreamRequest(options=self.options(), id="0", input=self.pb.Input(text=self.words(1, 300)))
        for i in range(1, count):
            yield self.pb.EmbedStreamRequest(id=str(i), input=self.pb.Input(text=self.words(1, 300)))

    def stream(self):
        count = self.rng.randrange(1, 40)
        try:
            ids = [answer.id for answer in self.stub.EmbedStream(self.stream_requests(count), timeout=120, metadata=self.metadata)]
        except grpc.RpcError as error:
            raise Wrong(error.code().name, BUSY, error.details() or "") from None
        if sorted(ids) != sorted(str(i) for i in range(count)):
            raise Wrong("LOST", BUSY, f"{count} inputs, {len(ids)} answers")
        return (BUSY,)

    def abandoned_stream(self):
        call = self.stub.EmbedStream(self.stream_requests(30), timeout=120, metadata=self.metadata)
        with contextlib.suppress(grpc.RpcError, StopIteration):
            next(call)
        call.cancel()
        return (BUSY,)

    def cancelled(self):
        call = self.stub.Embed.future(self.pb.EmbedRequest(options=self.options(), inputs=self.inputs(50, 600, 32)), timeout=60, metadata=self.metadata)
        time.sleep(self.rng.random() * 0.1)
        call.cancel()
        return (BUSY,)

    def late(self):
        self.call(
            self.stub.Embed,
            self.pb.EmbedRequest(options=self.options(), inputs=self.inputs(1, 600, 8)),
            BUSY | {"DEADLINE_EXCEEDED"},
            timeout=self.rng.random() * 0.1,
        )
        return (BUSY,)

    def refused(self):
        wrong = self.rng.choice(["long", "model", "empty", "dimensions"])
        request = self.pb.EmbedRequest(inputs=self.inputs(1, 20, 2))
        if wrong == "long":
            request.inputs[0].text = self.words(600, 2000)
        elif wrong == "model":
            request.options.model = "no-such-model"
        elif wrong == "empty":
            del request.inputs[:]
        else:
            request.options.dimensions = 100000
        self.call(self.stub.Embed, request, {"INVALID_ARGUMENT", "NOT_FOUND"})
        return (set(),)  # OK would be wrong.

    def garbage(self):
        method = self.channel.unary_unary("/longembed.v1.EmbeddingService/Embed")
        # No message of our protos begins with this byte: field 15, group end.
        self.call(method, b"\x7c" + self.rng.randbytes(self.rng.randrange(1, 2000)), {"INVALID_ARGUMENT"})
        return (set(),)

    def wrong_key(self):
        try:
            self.stub.ListModels(self.pb.ListModelsRequest(), timeout=30, metadata=[("authorization", f"Bearer {self.rng.random()}")])
        except grpc.RpcError as error:
            raise Wrong(error.code().name, {"UNAUTHENTICATED"}, error.details() or "") from None
        return (set(),)

    def inspect(self):
        self.call(self.stub.Explain, self.pb.ExplainRequest(options=self.options(), inputs=self.inputs(1, 2000, 8)), BUSY)
        self.call(self.stub.Tokenize, self.pb.TokenizeRequest(texts=[self.words(1, 500) for _ in range(4)]), BUSY)
        self.call(self.stub.ListModels, self.pb.ListModelsRequest(), BUSY)
        return (BUSY,)

    def tei_embed(self):
        stub = self.tei_stubs.EmbedStub(self.channel)
        self.call(stub.Embed, self.tei.EmbedRequest(inputs=self.words(1, 600), truncate=True), BUSY)
        self.call(stub.EmbedAll, self.tei.EmbedAllRequest(inputs=self.words(1, 100), truncate=True), BUSY)
        return (BUSY,)

    def tei_stream(self):
        requests = (self.tei.EmbedRequest(inputs=self.words(1, 100), truncate=True) for _ in range(self.rng.randrange(1, 20)))
        try:
            for _ in self.tei_stubs.EmbedStub(self.channel).EmbedStream(requests, timeout=60, metadata=self.metadata):
                pass
        except grpc.RpcError as error:
            raise Wrong(error.code().name, BUSY, error.details() or "") from None
        return (BUSY,)

    def reconnect(self):
        self.connect()
        return (BUSY,)


class Wrong(Exception):
    """A status code that is neither OK nor allowed, with the allowed codes."""

    def __init__(self, code: str, allowed: set[str], words: str):
        super().__init__(code)
        self.code, self.allowed, self.words = code, allowed, words


class Samples:
    def __init__(self):
        self.seconds, self.heap, self.rss, self.descriptors, self.threads = [], [], [], [], []

    def take(self, replica: Replica, since: float) -> None:
        metrics = replica.metrics()
        self.seconds.append(time.monotonic() - since)
        self.heap.append(metrics.total("process_heap_in_use_bytes"))
        self.rss.append(float(replica.rss()))
        self.descriptors.append(replica.descriptors())
        self.threads.append(metrics.total("process_threads"))

    def growth(self, values: list[float], since: float) -> tuple[float, float, float]:
        """Fits a line to the values from `since` on. Returns the growth, the growth that scatter explains, and the first value of the line."""
        kept = [(t, v) for t, v in zip(self.seconds, values) if t >= since]
        stretches = [np.mean(np.array(part), axis=0) for part in np.array_split(np.array(kept), min(20, len(kept)))]
        t, v = np.array(stretches).T
        slope, base = np.polyfit(t, v, 1)
        scatter = np.sqrt(np.sum((v - base - slope * t) ** 2) / (len(t) - 2) / np.sum((t - t.mean()) ** 2))
        span = kept[-1][0] - kept[0][0]
        # 2.55: Student's t, 18 degrees of freedom, 99 % one-sided.
        return slope * span, 2.55 * scatter * span, base + slope * kept[0][0]


def soak(arguments: argparse.Namespace, replica: Replica, clients: list[Client], pace: Pace) -> Samples:
    samples, began = Samples(), time.monotonic()
    for client in clients:
        client.start()
    while time.monotonic() < began + arguments.seconds:
        time.sleep(arguments.sample_every)
        # The work of cancelled calls must end before the server is checked.
        if not pace.rest(120) or not until(replica.at_rest, 30):
            raise RuntimeError("the clients or the server did not come to rest")
        time.sleep(0.3)
        samples.take(replica, began)
        pace.go_on()
    pace.stopped = True
    for client in clients:
        client.join(120)
    return samples


def body(arguments: argparse.Namespace, folder: Path, report: Report) -> None:
    from generated_client import generate_tei_client

    keys = folder / "keys.yaml"
    keys.write_text(yaml.safe_dump({"keys": [{"name": name, "key": key} for name, key in KEYS.items()]}))
    modules = python_client(folder)
    tei = generate_tei_client(folder / "generated")
    with Replica(folder, arguments, {"api_keys": str(keys), "reflection": False}) as replica:
        if not replica.metrics().has("process_heap_in_use_bytes"):
            raise Missing("the server does not export process_heap_in_use_bytes")
        pace = Pace()
        history = History()
        clients = [Client(replica.address, modules, tei, pace, history, i, arguments.clients) for i in range(arguments.clients)]
        samples = soak(arguments, replica, clients, pace)
        judge_growth(arguments, report, clients, samples, replica.metrics())
        judge(report, "unary calls", history)
        ask_again(clients, report)
        report.bar("exit status 0", replica.terminate() == 0)


def ask_again(clients: list[Client], report: Report) -> None:
    """Checks that answers given under load equal the answers given when nothing else runs."""
    asked, wrong = 0, []
    for client in clients:
        for request, answer in client.kept:
            again = client.stub.Embed(request, timeout=60, metadata=client.metadata)
            asked += 1
            if again.recipe != answer.recipe or [len(result.embeddings) for result in again.results] != [len(result.embeddings) for result in answer.results]:
                wrong.append("another recipe, or another number of vectors")
            elif request.options.encoding == client.pb.EmbedOptions.FLOAT32 and (like := likeness(values(answer), values(again))) < LEAST_COSINE:
                wrong.append(f"cosine {like:.6f}: {str(request.options)[:100]}")
    report.bar("answers under load are those of the same requests alone", asked > 0 and not wrong, f"{asked} asked again, {len(wrong)} differ {wrong[:3]}")


def values(answer) -> np.ndarray:
    return np.array([value for result in answer.results for embedding in result.embeddings for value in embedding.values], np.float32)


def judge_growth(arguments: argparse.Namespace, report: Report, clients: list[Client], samples: Samples, metrics) -> None:
    done, wrong = sum((client.done for client in clients), Counter()), sum((client.wrong for client in clients), Counter())
    report.figure("operations", dict(done))
    report.figure("tokens encoded", int(metrics.total("longembed_tokens_total")))
    mib = 2.0**20
    step = max(1, len(samples.seconds) // 15)
    for i in range(0, len(samples.seconds), step):
        report.figure(
            f"at {samples.seconds[i]:.0f} s",
            f"heap {samples.heap[i] / mib:.2f} MiB, RSS {samples.rss[i] / mib:.1f} MiB, {samples.descriptors[i]} descriptors, {samples.threads[i]:.0f} threads",
        )
    report.bar(
        "every answer was a right one",
        not wrong,
        f"{sum(wrong.values())} wrong of {sum(done.values())}: {dict(wrong.most_common(8))}" if wrong else f"{sum(done.values())} operations",
    )
    report.bar("every kind of operation ran", len(done) == 15, f"{len(done)} of 15")
    window = arguments.seconds / 3
    heap, covered, heap_base = samples.growth(samples.heap, window)
    rss, _, rss_base = samples.growth(samples.rss, window)
    report.figure("window, s", f"{window:.0f} to {samples.seconds[-1]:.0f}, {sum(t >= window for t in samples.seconds)} samples")
    if arguments.seconds >= 600:
        report.bar(
            "heap in use grows by no more than its own noise",
            heap <= covered,
            f"{heap / mib:+.3f} MiB of {heap_base / mib:.1f}, noise covers {covered / mib:.3f}",
        )
        report.bar("RSS grows by <= 1 %", rss <= 0.01 * rss_base, f"{rss / rss_base:+.2%} of {rss_base / mib:.0f} MiB")
    else:
        report.bar("heap in use grows by < 16 MiB (short form)", heap < 16 * mib, f"{heap / mib:+.2f} MiB of {heap_base / mib:.1f}")
        report.figure("RSS (no bar in the short form)", f"{rss / rss_base:+.2%} of {rss_base / mib:.0f} MiB")
    late = [n for t, n in zip(samples.seconds, samples.descriptors) if t >= window]
    # Clients reconnect all the time. A connection that was closed in the pause may stay open for a moment.
    report.bar(
        "descriptors do not grow",
        max(late) <= max(samples.descriptors[: max(1, len(samples.descriptors) - len(late))]) + arguments.clients,
        f"at most {max(late)}",
    )
    report.bar("threads do not grow", samples.threads[-1] <= samples.threads[0] + 16, f"{samples.threads[0]:.0f} to {samples.threads[-1]:.0f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1800, help="figures are of the last two thirds")
    parser.add_argument("--sample-every", type=float, default=10, help="seconds between pauses")
    parser.add_argument("--clients", type=int, default=6)
    run("soak", parser, body)

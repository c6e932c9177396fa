"""Records the history of a load, and checks it: the answers of all callers must be consistent with what the server as a whole can have done.

`operations_load_client --history FILE` writes a history. A Python client records its own with `History.send` and `History.finish`.
Times are seconds of the monotonic clock, which the load client and Python share."""

import json
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from harness import load, until  # isort: skip. Imported before grpc, because it silences grpc's log.
import grpc
from google.rpc import error_details_pb2, status_pb2

# Seconds by which an answer may be seen after its deadline. The client also waits for a core before it reads its clock.
DEADLINE_SLACK = 1.0
# The lowest cosine between a vector and that of the same text alone, if their bits are not equal.
LEAST_COSINE = 0.99999
# Outcomes that the client decides itself. The server may have answered, and counted, something else.
LOCAL = {"CANCELLED", "DEADLINE_EXCEEDED", "UNAVAILABLE", "UNKNOWN"}


@dataclass
class Outcome:
    at: float
    code: str
    reason: str = ""
    retry_seconds: float | None = None  # google.rpc.RetryInfo.
    pushback_seconds: float | None = None  # grpc-retry-pushback-ms.
    recipe: str = ""
    tokens: int = 0
    vectors: str = ""  # A hash of all values.


@dataclass
class Call:
    request: int | str  # Identifies the request. Calls with the same request must get the same answer.
    sent: float
    deadline: float = float("inf")
    outcomes: list[Outcome] = field(default_factory=list)


class History:
    """Calls by id. Several threads may record at the same time."""

    def __init__(self):
        self.calls: dict[int | str, Call] = {}
        self.strays: list[int | str] = []  # Ids with an outcome that were never sent.
        self.values: dict[tuple[int | str, str, str], np.ndarray] = {}  # Keyed by request, recipe and hash.
        self.lock = threading.Lock()

    def send(self, id: int | str, request: int | str, at: float, deadline: float = float("inf")) -> None:
        with self.lock:
            if id in self.calls:
                raise ValueError(f"id {id} was sent before")
            self.calls[id] = Call(request, at, deadline)

    def finish(self, id: int | str, outcome: Outcome, values=None) -> None:
        with self.lock:
            if id not in self.calls:
                self.strays.append(id)
                return
            self.calls[id].outcomes.append(outcome)
            if values is not None:
                self.values[self.calls[id].request, outcome.recipe, outcome.vectors] = np.asarray(values, np.float32)

    @classmethod
    def read(cls, path: Path) -> "History":
        history = cls()
        for line in path.read_text().splitlines():
            event = json.loads(line)
            if "sent" in event:
                history.send(event["sent"], event["request"], event["at"], event["deadline"])
            elif "finished" in event:
                history.finish(event.pop("finished"), Outcome(**event))
            else:
                history.values[event["request"], event["recipe"], event["vectors"]] = np.array(event["values"], np.float32)
        return history

    def finals(self) -> list[tuple[Call, Outcome]]:
        return [(call, call.outcomes[-1]) for call in self.calls.values() if call.outcomes]

    def codes(self) -> Counter:
        return Counter(outcome.code for _, outcome in self.finals())


def ask_alone(server: str, texts: Path, folder: Path, texts_per_call: int = 1, **options) -> History:
    """Returns the answers to each request of `texts` without other load: one call at a time."""
    path, calls = folder / "alone.jsonl", len(texts.read_text().splitlines()) // texts_per_call
    load(server, texts, concurrency=1, seconds=600, calls=calls, texts_per_call=texts_per_call, history=path, **options)
    return History.read(path)


def outcome_of(error: grpc.RpcError, at: float) -> Outcome:
    """Returns the outcome of a failed call of the Python library."""
    outcome, details = Outcome(at, error.code().name), status_pb2.Status()
    for name, value in error.trailing_metadata() or ():
        if name == "grpc-retry-pushback-ms":
            outcome.pushback_seconds = int(value) / 1000
        elif name == "grpc-status-details-bin":
            details.ParseFromString(value)
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    for detail in details.details:
        if detail.Unpack(info):
            outcome.reason = info.reason
        elif detail.Unpack(retry):
            outcome.retry_seconds = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    return outcome


# Each check returns a list of violations, which is empty if there are none.


def one_outcome_each(history: History) -> list[str]:
    wrong = [f"id {id} has {len(call.outcomes)} outcomes" for id, call in history.calls.items() if len(call.outcomes) != 1]
    return wrong + [f"id {id} was answered and never sent" for id in history.strays]


def vectors_as_alone(history: History, alone: History) -> list[str]:
    """Checks that the vectors of every answer equal those of the request alone: bit by bit, or by cosine, number of components, and length."""
    reference = {request: (recipe, values) for (request, recipe, _), values in alone.values.items()}
    wrong = []
    for (request, recipe, _), values in history.values.items():
        if request not in reference:
            wrong.append(f"request {request} was never asked for alone")
        elif recipe != reference[request][0]:
            wrong.append(f"request {request} has recipe {recipe}, alone {reference[request][0]}")
        elif (like := likeness(values, reference[request][1])) < LEAST_COSINE:
            wrong.append(f"request {request} has cosine {like:.6f} with its vectors alone")
    known = set(history.values)
    wrong += [
        f"request {call.request} was answered OK without vectors"
        for call, outcome in history.finals()
        if outcome.code == "OK" and (call.request, outcome.recipe, outcome.vectors) not in known
    ]
    return wrong


def likeness(values: np.ndarray, reference: np.ndarray) -> float:
    """Returns the cosine over all values together, since all vectors of a request have the same length. It is 1 for equal bits, and -1 if the
    values cannot be compared."""
    if values.shape != reference.shape or not values.size:
        return -1.0
    if np.array_equal(values, reference):
        return 1.0
    lengths = float(np.linalg.norm(values)), float(np.linalg.norm(reference))
    if min(lengths) == 0 or not 1 / 1.001 < lengths[0] / lengths[1] < 1.001:  # This also rejects values that are not numbers.
        return -1.0
    return float(values.astype(np.float64) @ reference.astype(np.float64)) / (lengths[0] * lengths[1])


def equal_bits(history: History, alone: History) -> tuple[int, int]:
    """Returns the number of answers that are bit-identical to that of the request alone, and the number of all answers."""
    hashes = {(request, recipe, vectors) for request, recipe, vectors in alone.values}
    ok = [(call.request, outcome.recipe, outcome.vectors) for call, outcome in history.finals() if outcome.code == "OK"]
    return sum(key in hashes for key in ok), len(ok)


def refusals_carry_hints(history: History) -> list[str]:
    wrong = []
    for id, call in history.calls.items():
        for outcome in call.outcomes:
            if outcome.code == "RESOURCE_EXHAUSTED" and (not outcome.retry_seconds or outcome.pushback_seconds is None or not outcome.reason):
                wrong.append(f"id {id} ({outcome.reason or 'no reason'}): RetryInfo {outcome.retry_seconds}, pushback {outcome.pushback_seconds}")
    return wrong


def nothing_ok_late(history: History, slack: float = DEADLINE_SLACK) -> list[str]:
    return [
        f"id {id} was OK {outcome.at - call.deadline:.2f} s after its deadline"
        for id, call in history.calls.items()
        for outcome in call.outcomes
        if outcome.code == "OK" and outcome.at > call.deadline + slack
    ]


def counters_add_up(history: History, before, after, method: str = "Embed", alone: bool = True) -> list[str]:
    """Compares the server's counters (two `harness.Metrics`) with the callers' records. `alone` means that no other caller used the method in the
    meantime."""

    def grown(name: str, **labels: str) -> float:
        return after.total(name, **labels) - before.total(name, **labels)

    told, wrong = history.codes(), []
    unsure = sum(told[code] for code in LOCAL)
    for code in sorted((set(told) | {"OK", "RESOURCE_EXHAUSTED"}) - LOCAL):
        counted = grown("longembed_requests_total", method=method, code=code)
        if not told[code] <= counted <= (told[code] + unsure if alone else float("inf")):
            wrong.append(f"requests_total of {code} grew by {counted:.0f}, callers received {told[code]}, and {unsure} calls had no answer")
    total = grown("longembed_requests_total", method=method)
    if alone and total > len(history.calls):
        wrong.append(f"requests_total grew by {total:.0f}, callers sent {len(history.calls)}")
    if alone and (refused := grown("longembed_rejected_total")) != (counted := grown("longembed_requests_total", code="RESOURCE_EXHAUSTED")):
        wrong.append(f"rejected_total grew by {refused:.0f}, requests_total of RESOURCE_EXHAUSTED by {counted:.0f}")
    tokens = sum(outcome.tokens for _, outcome in history.finals())
    counted = grown("longembed_tokens_total")
    if not tokens <= counted or alone and unsure == 0 and tokens != counted:
        wrong.append(f"tokens_total grew by {counted:.0f}, callers' answers have {tokens} tokens")
    return wrong


def judge(report, what: str, history: History, reference: History | None = None, metrics: Callable | None = None, before=None, **counters) -> None:
    """Reports one line per check. `reference` comes from `ask_alone`. `metrics` scrapes the server, and is repeated for a while, because a call is
    counted after it is answered."""

    def bar(name: str, violations: list[str]) -> None:
        report.bar(f"{what}, history: {name}", not violations, f"{len(violations)} wrong, {violations[:3]}" if violations else f"{len(history.calls)} calls")

    bar("one final outcome per id", one_outcome_each(history))
    bar("refusals carry RetryInfo, pushback and a reason", refusals_carry_hints(history))
    bar(f"nothing OK more than {DEADLINE_SLACK:g} s after its deadline", nothing_ok_late(history))
    if reference is not None:
        bar("vectors are those of the texts alone", vectors_as_alone(history, reference))
        report.figure(f"{what}: answers with the same bits as the text alone", "{} of {}".format(*equal_bits(history, reference)))
    if metrics is not None:
        until(lambda: not counters_add_up(history, before, metrics(), **counters), 5, 0.2)
        bar("the server's counters add up", counters_add_up(history, before, metrics(), **counters))

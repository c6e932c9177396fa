"""Tests that the history checker reports each violation in a manipulated history, and nothing in a correct one."""

import json

import pytest

import history as h
from harness import Metrics

ALONE, OTHER = [0.6, 0.8], [0.8, 0.6]


def right(codes=("OK", "OK", "RESOURCE_EXHAUSTED")) -> h.History:
    """Returns a history with one call per code, each with request 0 and a deadline 10 s after it was sent."""
    history = h.History()
    for id, code in enumerate(codes):
        history.send(id, 0, at=float(id), deadline=id + 10.0)
        history.finish(id, outcome(code, at=id + 1.0), ALONE if code == "OK" else None)
    return history


def outcome(code: str = "OK", at: float = 1.0, **changed) -> h.Outcome:
    given = {"OK": {"recipe": "r", "tokens": 5, "vectors": "a"}, "RESOURCE_EXHAUSTED": {"reason": "QUEUE_FULL", "retry_seconds": 0.5, "pushback_seconds": 0.5}}
    return h.Outcome(**{"at": at, "code": code, **given.get(code, {}), **changed})


def metrics(ok=0, refused=0, late=0, tokens=0, rejected=None) -> Metrics:
    counts = {"OK": ok, "RESOURCE_EXHAUSTED": refused, "DEADLINE_EXCEEDED": late}
    lines = [f'longembed_requests_total{{method="Embed",code="{code}",model="m"}} {n}' for code, n in counts.items()]
    lines += [f'longembed_rejected_total{{model="m",reason="queue_wait"}} {refused if rejected is None else rejected}']
    return Metrics("\n".join([*lines, f'longembed_tokens_total{{model="m"}} {tokens}']))


def add_up(history: h.History, **counted) -> list[str]:
    return h.counters_add_up(history, metrics(ok=100, tokens=1000), metrics(**{**counted, "ok": 100 + counted["ok"], "tokens": 1000 + counted["tokens"]}))


def test_a_right_history_has_no_violation():
    history = right()
    assert h.one_outcome_each(history) == h.refusals_carry_hints(history) == h.nothing_ok_late(history) == []
    assert h.vectors_as_alone(history, right(["OK"])) == []
    assert h.equal_bits(history, right(["OK"])) == (2, 2)
    assert add_up(history, ok=2, refused=1, tokens=10) == []


def test_no_outcome():
    history = right()
    history.send("lost", 0, at=3.0)
    assert h.one_outcome_each(history) == ["id lost has 0 outcomes"]


def test_two_outcomes():
    history = right()
    history.finish(1, outcome("UNAVAILABLE"))
    assert h.one_outcome_each(history) == ["id 1 has 2 outcomes"]


def test_outcome_of_an_id_that_was_not_sent():
    history = right()
    history.finish("stray", outcome())
    assert h.one_outcome_each(history) == ["id stray was answered and never sent"]


def test_id_sent_twice():
    history = right()
    with pytest.raises(ValueError, match="sent before"):
        history.send(1, 0, at=9.0)


@pytest.mark.parametrize(
    "values",
    [OTHER, [6.0, 8.0], [-0.6, -0.8], [1.0], [0.6, float("nan")], [0.0, 0.0], []],
    ids=["another vector", "longer", "opposite", "fewer components", "not a number", "zero", "none"],
)
def test_vectors_that_differ_from_those_alone(values):
    history = right()
    history.send("odd", 0, at=3.0)
    history.finish("odd", outcome(vectors="b"), values)
    assert len(h.vectors_as_alone(history, right(["OK"]))) == 1


def test_vectors_may_differ_in_their_last_bits():
    history = right()
    history.send("near", 0, at=3.0)
    history.finish("near", outcome(vectors="b"), [0.6000001, 0.7999999])
    assert h.vectors_as_alone(history, right(["OK"])) == []
    assert h.equal_bits(history, right(["OK"])) == (2, 3)


def test_another_recipe_than_alone():
    history = right([])
    history.send(0, 0, at=0.0)
    history.finish(0, outcome(recipe="other"), ALONE)
    assert "recipe other, alone r" in h.vectors_as_alone(history, right(["OK"]))[0]


def test_a_request_that_was_never_asked_alone():
    history = right([])
    history.send(0, 7, at=0.0)
    history.finish(0, outcome(), ALONE)
    assert h.vectors_as_alone(history, right(["OK"])) == ["request 7 was never asked for alone"]


def test_ok_without_vectors():
    history = right()
    history.send("empty", 0, at=3.0)
    history.finish("empty", outcome(vectors="nothing"))
    assert h.vectors_as_alone(history, right(["OK"])) == ["request 0 was answered OK without vectors"]


@pytest.mark.parametrize("changed", [{"retry_seconds": None}, {"retry_seconds": 0.0}, {"pushback_seconds": None}, {"reason": ""}], ids=str)
def test_refusal_without_a_hint(changed):
    history = right(["OK"])
    history.send("refused", 0, at=1.0)
    history.finish("refused", outcome("RESOURCE_EXHAUSTED", **changed))
    assert len(h.refusals_carry_hints(history)) == 1


def test_ok_after_the_deadline():
    history = right()
    history.send("late", 0, at=0.0, deadline=10.0)
    history.finish("late", outcome(at=10.0 + h.DEADLINE_SLACK + 0.1), ALONE)
    assert h.nothing_ok_late(history) == ["id late was OK 1.10 s after its deadline"]


@pytest.mark.parametrize(
    ("counted", "said"),
    [
        ({"ok": 1, "refused": 1, "tokens": 10}, "requests_total of OK grew by 1"),
        ({"ok": 3, "refused": 1, "tokens": 10}, "requests_total of OK grew by 3"),
        ({"ok": 2, "refused": 0, "tokens": 10}, "requests_total of RESOURCE_EXHAUSTED grew by 0"),
        ({"ok": 2, "refused": 1, "late": 1, "tokens": 10}, "requests_total grew by 4, callers sent 3"),
        ({"ok": 2, "refused": 1, "rejected": 0, "tokens": 10}, "rejected_total grew by 0"),
        ({"ok": 2, "refused": 1, "tokens": 9}, "tokens_total grew by 9"),
        ({"ok": 2, "refused": 1, "tokens": 11}, "tokens_total grew by 11"),
    ],
    ids=["lost", "too many", "refusal not counted", "more than sent", "rejected_total", "too few tokens", "too many tokens"],
)
def test_counters_that_do_not_add_up(counted, said):
    assert any(said in violation for violation in add_up(right(), **counted))


def test_a_call_that_its_client_gave_up_may_be_counted_as_anything():
    history = right(["OK", "DEADLINE_EXCEEDED"])
    assert add_up(history, ok=2, tokens=10) == []
    assert add_up(history, ok=1, late=1, tokens=5) == []
    assert add_up(history, ok=3, tokens=15) != []


def test_beside_others_counters_may_be_higher():
    after = metrics(ok=50, refused=3, tokens=999)
    assert h.counters_add_up(right(), metrics(), after, alone=False) == []
    assert h.counters_add_up(right(), metrics(), metrics(ok=1, refused=3, tokens=999), alone=False) != []
    assert h.counters_add_up(right(), metrics(), metrics(ok=50, refused=3, tokens=9), alone=False) != []


def test_reads_what_the_load_client_writes(tmp_path):
    lines = [
        {"sent": 0, "request": 3, "at": 1.0, "deadline": 2.0},
        {"sent": 1, "request": 3, "at": 1.1, "deadline": 2.1},
        {"vectors": "ab", "request": 3, "recipe": "r", "values": ALONE},
        {"finished": 0, "at": 1.5, "code": "OK", "recipe": "r", "tokens": 4, "vectors": "ab"},
        {"finished": 1, "at": 1.6, "code": "RESOURCE_EXHAUSTED", "reason": "QUEUE_FULL", "retry_seconds": 0.1, "pushback_seconds": 0.1},
    ]
    (tmp_path / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    history = h.History.read(tmp_path / "history.jsonl")
    assert history.codes() == {"OK": 1, "RESOURCE_EXHAUSTED": 1}
    assert h.one_outcome_each(history) == h.refusals_carry_hints(history) == h.vectors_as_alone(history, history) == []

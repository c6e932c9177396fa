"""Tests the training loop with a recipe of a single number: time budget, learning rate and state. Also tests how it runs the exporter's graphs."""

from __future__ import annotations

import math
import random
import signal

import pytest
import torch
import torch.nn.functional as F
from train_cases import STRIDE, read, tiny

from model.export import bert
from model.train import checkpoint, loop
from model.train.encoder import Sequence, TextWrapper, encode, log_scale
from model.train.errors import TrainError
from model.train.positions import Positions, Settings


class OneNumber:
    """Its gradient is 1 at every step. Adam then makes steps of the learning rate."""

    learning_rate = 0.5

    def __init__(self):
        self.number = torch.nn.Parameter(torch.zeros(1))
        self.parameters = [self.number]
        self.numbers = []

    def loss(self, step: int, done: float) -> loop.Outcome:
        self.numbers.append(self.number.item())
        return loop.Outcome(self.number.sum(), "only", 1.0, 1)

    def state(self) -> dict:
        return {"number": self.number.detach()}

    def restore(self, state: dict) -> None:
        with torch.no_grad():
            self.number.copy_(state["number"])


def test_the_learning_rate_warms_up_and_falls_to_zero(tmp_path):
    recipe = OneNumber()
    assert loop.train(recipe, loop.Budget(steps=40), tmp_path / "state.pt", {}) == 40
    moved = [before - after for before, after in zip(recipe.numbers, [*recipe.numbers[1:], recipe.number.item()])]
    expected = [0.5 * min(1.0, (step + 1) / loop.WARM_UP_STEPS) * (1 - step / 40) for step in range(40)]
    assert moved == pytest.approx(expected, rel=1e-3)


def test_minutes_of_earlier_runs_count(tmp_path):
    file = tmp_path / "state.pt"
    loop.train(OneNumber(), loop.Budget(minutes=0.001), file, {})
    again = OneNumber()
    loop.train(again, loop.Budget(minutes=0.001), file, {})
    assert again.numbers == [] and again.number.item() != 0, "the budget was used up before; only the state is read"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("PytorchStreamWriter failed writing file\nmore")])
def test_a_full_disk_is_reported_and_keeps_the_last_state(tmp_path, monkeypatch, error):
    file = tmp_path / "state.pt"
    loop.train(OneNumber(), loop.Budget(steps=1), file, {})
    before = file.read_bytes()

    def full(content, path):
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TrainError, match=r"the state cannot be written to .*state.pt \(.*\); make room"):
        loop.train(OneNumber(), loop.Budget(steps=2), file, {})
    assert [one.name for one in tmp_path.iterdir()] == ["state.pt"] and file.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"PK half", None])
def test_a_damaged_state_is_refused(tmp_path, content):
    file = tmp_path / "state.pt"
    loop.train(OneNumber(), loop.Budget(steps=1), file, {})
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(TrainError, match="state.pt cannot be read .*; choose another --out or remove it"):
        loop.train(OneNumber(), loop.Budget(steps=2), file, {})


def test_a_second_interruption_stops_at_once_and_keeps_the_last_state(tmp_path):
    file = tmp_path / "state.pt"
    loop.train(OneNumber(), loop.Budget(steps=1), file, {})
    before = file.read_bytes()
    recipe = OneNumber()
    plain = recipe.loss

    def stopping(step: int, done: float) -> loop.Outcome:
        if step == 2:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM if signal.getsignal(signal.SIGTERM) is signal.default_int_handler else signal.SIGINT)
            raise AssertionError("the second signal is raised at once")
        return plain(step, done)

    recipe.loss = stopping
    with pytest.raises(KeyboardInterrupt):
        loop.train(recipe, loop.Budget(steps=5), file, {})
    assert file.read_bytes() == before
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_loss_that_is_nan_stops_the_training(tmp_path):
    recipe = OneNumber()
    recipe.number.data.fill_(math.nan)
    with pytest.raises(TrainError, match="loss of step 0 is nan"):
        loop.train(recipe, loop.Budget(steps=2), tmp_path / "state.pt", {})


def test_a_state_of_another_request_is_refused_with_the_setting_that_differs(tmp_path):
    loop.train(OneNumber(), loop.Budget(steps=1), tmp_path / "state.pt", {"seed": 1, "stride": 8})
    with pytest.raises(TrainError, match="stride = 8 instead of 4"):
        loop.train(OneNumber(), loop.Budget(steps=2), tmp_path / "state.pt", {"seed": 1, "stride": 4})


@pytest.fixture(scope="module", params=["mean", "cls"])
def original(request, tmp_path_factory) -> checkpoint.Original:
    return checkpoint.load(str(tiny(tmp_path_factory.mktemp("train") / "tiny", pooling=request.param)))


def reference_vector(original: checkpoint.Original, tokens: list[int]) -> torch.Tensor:
    """Computes the vector of one text alone, with transformers' model."""
    with torch.inference_mode():
        hidden = bert.reference(original.config, original.tensors)(input_ids=torch.tensor([tokens])).last_hidden_state[0]
    return F.normalize(hidden[0] if original.pooling == "CLS" else hidden.mean(dim=0), dim=0)


def recipe_of(original: checkpoint.Original) -> Positions:
    return Positions(original, read(original), Settings(STRIDE, batch_tokens=256), 0, bfloat16=False)


def test_the_teacher_of_a_short_text_is_the_model_itself(original):
    sequences = [[3, 7, 9, 2], [3, *range(10, 40), 2], [3, 8, 2]]
    expected = torch.stack([reference_vector(original, ids) for ids in sequences])
    torch.testing.assert_close(recipe_of(original)._teacher(sequences), expected, atol=1e-5, rtol=1e-5)


def test_the_teacher_of_a_long_text_is_the_mean_of_its_windows_by_their_tokens(original):
    """The windows have 32 tokens: [CLS], `p:` (two characters, two tokens), 28 of the text, [SEP]."""
    text = list(range(10, 90))
    prompt = original.tokenizer.encode("p: ", add_special_tokens=False).ids
    room = 32 - 2 - len(prompt)
    windows = [text[i : i + room] for i in range(0, 80, room)]
    assert len(prompt) == 2 and [len(window) for window in windows] == [28, 28, 24]
    mean = sum(len(window) / 80 * reference_vector(original, [3, *prompt, *window, 2]).double() for window in windows)
    torch.testing.assert_close(recipe_of(original)._mean_of_windows(text).double(), F.normalize(mean, dim=0), atol=1e-5, rtol=1e-5)


def test_queries_and_passages_have_their_own_prompts(original):
    text = TextWrapper(original.tokenizer, {"query": "q: ", "document": "d: "})
    ids = {letter: original.tokenizer.encode(letter + ": ", add_special_tokens=False).ids for letter in "qd"}
    assert text.wrap([9, 8], "query") == [3, *ids["q"], 9, 8, 2]
    assert text.wrap([9, 8], "passage") == [3, *ids["d"], 9, 8, 2]
    assert text.room(32) == 28
    assert TextWrapper(original.tokenizer, {}).wrap([9], "query") == [3, 9, 2]


def test_attention_is_scaled_by_the_logarithm_of_the_length(original):
    assert log_scale(4096, 512) == pytest.approx(4 / 3)
    assert log_scale(512, 512) == log_scale(20, 512) == 1.0
    plain = recipe_of(original)._plain
    tokens = list(range(10, 40))
    positions = torch.arange(30, dtype=torch.float32)
    with torch.inference_mode():
        one, two = (encode(plain, [Sequence(tokens, positions, scale)], original.pooling, False) for scale in (1.0, 2.0))
    assert not torch.allclose(one, two, atol=1e-3)


def test_long_texts_are_read_as_they_are_served_or_scattered_with_log_scaling_or_without(original):
    recipe = recipe_of(original)
    seen = set()
    for seed in range(40):
        sequences = recipe._long_sequences(random.Random(seed), [list(range(100)), list(range(60))])
        for sequence, n in zip(sequences, (100, 60)):
            served = torch.equal(sequence.positions, torch.arange(n, dtype=torch.float32))
            assert sequence.query_scale in (1.0, math.log(n) / math.log(32))
            seen.add((served, sequence.query_scale != 1.0))
    assert seen == {(served, scaled) for served in (True, False) for scaled in (True, False)}

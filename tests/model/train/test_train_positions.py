"""Tests the position recipe: what it may change, the vectors of short texts afterwards, and that an interruption changes nothing."""

from __future__ import annotations

import io
import random
import signal

import numpy as np
import pytest
import torch
import yaml
from train_cases import STRIDE, read, tiny

from model.export import architectures, check, export, sources
from model.train import checkpoint, loop
from model.train.positions import CONTRAST, Positions, Rows, Settings, contrast, stretch


def recipe_of(original: checkpoint.Original, seed: int = 0, learning_rate: float = 1e-3) -> Positions:
    return Positions(original, read(original), Settings(STRIDE, learning_rate, batch_tokens=256), seed, bfloat16=False)


def table_of(tensors: dict) -> torch.Tensor:
    return next(tensor for name, tensor in tensors.items() if name.endswith("position_embeddings.weight"))


@pytest.fixture(scope="module", params=["bert", "xlm-roberta"])
def original(request, tmp_path_factory) -> checkpoint.Original:
    return checkpoint.load(str(tiny(tmp_path_factory.mktemp("train") / "tiny", request.param)))


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> checkpoint.Original:
    return checkpoint.load(str(tiny(tmp_path_factory.mktemp("train") / "tiny")))


def test_a_stretched_table_is_the_linear_interpolation_of_its_rows():
    table = torch.randn(10, 6, dtype=torch.float64)
    stretched = stretch(table, 3)
    expected = np.stack([np.interp(np.arange(30) / 3, np.arange(10), column) for column in table.T.numpy()], axis=1)
    np.testing.assert_allclose(stretched.numpy(), expected, atol=1e-12)
    assert all(torch.equal(stretched[3 * i], table[i]) for i in range(10))


def test_new_rows_begin_as_the_repeated_table_and_old_rows_pass_no_gradient():
    table = torch.randn(10, 6)
    rows = Rows(table, 4)
    grown = rows()
    assert all(torch.equal(grown[i], table[i // 4 if i % 4 == 0 else i % 10]) for i in range(40))
    for is_old in (True, False):
        rows.zero_grad()
        rows()[torch.arange(40) % 4 == 0 if is_old else torch.arange(40) % 4 != 0].pow(2).sum().backward()
        assert all(bool((parameter.grad != 0).any()) != is_old for parameter in rows.parameters())


@pytest.mark.parametrize("kind", ["_short", "_long"])
def test_a_step_changes_new_rows_and_nothing_else(original, kind, tmp_path):
    recipe = recipe_of(original)
    _, before = recipe.finished()
    recipe.loss = lambda step, done: getattr(recipe, kind)(random.Random(step))
    loop.train(recipe, loop.Budget(steps=3), tmp_path / "state.pt", {})
    _, after = recipe.finished()
    assert before.keys() == after.keys()
    name = next(name for name in before if name.endswith("position_embeddings.weight"))
    assert all(torch.equal(before[key], after[key]) for key in before if key != name)
    rows = original.architecture.longest_position(original.config, original.tensors)
    padding = len(before[name]) - STRIDE * rows
    changed = (before[name] != after[name]).any(dim=1)
    assert not changed[:padding].any()
    assert not changed[padding::STRIDE].any()
    assert changed[padding:].sum() > rows, "only a few of the new rows have moved: the losses do not reach them"


def encoder_of(folder_or_original) -> torch.nn.Module:
    """Returns the TorchScript graph that the exporter writes."""
    config, tensors = folder_or_original.config, folder_or_original.tensors
    loaded = sources.Checkpoint(config, tensors, "")
    return torch.jit.load(io.BytesIO(export.script(architectures.find(config), loaded)))


def test_short_vectors_of_the_tuned_export_are_bit_equal_to_the_originals(original, tmp_path):
    recipe = recipe_of(original)
    loop.train(recipe, loop.Budget(steps=4), tmp_path / "state.pt", {})
    checkpoint.write(tmp_path / "tuned", original, *recipe.finished())
    tuned = sources.read_directory(tmp_path / "tuned")
    before, after = encoder_of(original), encoder_of(tuned)
    generator = torch.Generator().manual_seed(7)
    sequences = [torch.randint(0, 300, (n,), generator=generator).tolist() for n in (1, 2, 5, 5, 17, 31, 32)]
    with torch.inference_mode():
        expected = check.encode(before, sequences, "MEAN")
        strided = check.encode(after, sequences, "MEAN", lambda lengths: check.table_rows(lengths, STRIDE))
        every_row = check.encode(after, sequences, "MEAN")
    assert torch.equal(expected, strided)
    assert not torch.equal(expected, every_row), "the table's new rows are the old ones: the comparison above shows nothing"


def test_the_written_folder_exports_with_its_stride_and_the_originals_rules(bert, tmp_path):
    from model.export.__main__ import main as export_main
    from model.export.manifest import FILE

    recipe = recipe_of(bert)
    loop.train(recipe, loop.Budget(steps=1), tmp_path / "state.pt", {})
    checkpoint.write(tmp_path / "tuned", bert, *recipe.finished())
    assert export_main([str(tmp_path / "tuned"), "--position-stride", str(STRIDE), "--out", str(tmp_path / "model")]) == 0
    content = yaml.safe_load((tmp_path / "model" / FILE).read_text())
    assert (content["trained_window"], content["plain_limit"], content["position_stride"]) == (32, 32 * STRIDE, STRIDE)
    assert (content["pooling"], content["prompts"]) == ("MEAN", {"query": "q: ", "passage": "p: "})


def test_a_window_shorter_than_the_table_keeps_only_its_trained_rows(tmp_path):
    """This is the case of MiniLM: the table has 512 rows, but sentence-transformers' limit says that fewer are trained."""
    folder = tiny(tmp_path / "tiny")
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 24}')
    original = checkpoint.load(str(folder))
    _, tensors = recipe_of(original).finished()
    assert len(table_of(tensors)) == 24 * STRIDE
    assert torch.equal(table_of(tensors)[::STRIDE], table_of(original.tensors)[:24])


@pytest.mark.parametrize("kind", ["_short", "_long"])
def test_a_training_that_was_stopped_ends_as_one_that_was_not(bert, tmp_path, kind):
    """The signal comes in the middle of a step: a batch of long texts has already joined what is remembered, but the rows have not changed."""
    straight = recipe_of(bert)
    loop.train(straight, loop.Budget(steps=12), tmp_path / "straight.pt", {})
    first = recipe_of(bert)
    outcomes, steps = getattr(first, kind), []

    def stopping(draw: random.Random):
        outcome = outcomes(draw)
        steps.append(outcome)
        if len(steps) == 2:
            signal.raise_signal(signal.SIGINT)
        return outcome

    setattr(first, kind, stopping)
    with pytest.raises(KeyboardInterrupt):
        loop.train(first, loop.Budget(steps=12), tmp_path / "stopped.pt", {})
    assert len(steps) == 2
    second = recipe_of(bert)
    assert loop.train(second, loop.Budget(steps=12), tmp_path / "stopped.pt", {}) == 12
    assert torch.equal(table_of(straight.finished()[1]), table_of(second.finished()[1]))
    other_seed = recipe_of(bert, seed=1)
    loop.train(other_seed, loop.Budget(steps=12), tmp_path / "other.pt", {})
    assert not torch.equal(table_of(straight.finished()[1]), table_of(other_seed.finished()[1]))


def test_training_brings_scattered_texts_back_to_their_vectors(bert, tmp_path):
    recipe = recipe_of(bert, learning_rate=1e-2)

    def cosine() -> float:
        with torch.no_grad():
            return sum(recipe._short(random.Random(f"held out {i}")).cosine for i in range(6)) / 6

    before = cosine()
    loop.train(recipe, loop.Budget(steps=60), tmp_path / "state.pt", {})
    assert cosine() > before + 0.01


def test_contrast_is_the_mean_negative_log_probability_of_the_right_candidate():
    vectors, candidates = (torch.nn.functional.normalize(torch.randn(n, 8, dtype=torch.float64), dim=1) for n in (3, 5))
    powers = np.exp(vectors.numpy() @ candidates.numpy().T / CONTRAST)
    expected = -np.log([powers[i, i] / powers[i].sum() for i in range(3)]).mean()
    assert contrast(vectors, candidates, CONTRAST).item() == pytest.approx(expected, rel=1e-6)

"""Tests the rotary recipe: the written folder contains the trained student, and the student approaches its teacher."""

from __future__ import annotations

import signal

import io

import pytest
import torch
import torch.nn.functional as F
from train_cases import read, tiny

from model.export import architectures, check, export, sources
from model.train import checkpoint, loop
from model.train.encoder import Sequence, encode, plain
from model.train.errors import TrainError
from model.train.rotary import Rotary


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> checkpoint.Original:
    return checkpoint.load(str(tiny(tmp_path_factory.mktemp("train") / "tiny")))


def recipe_of(original: checkpoint.Original) -> Rotary:
    return Rotary(original, read(original), 2e-3, seed=0, bfloat16=False)


@pytest.fixture(scope="module")
def trained(original, tmp_path_factory) -> Rotary:
    recipe = recipe_of(original)
    loop.train(recipe, loop.Budget(steps=40), tmp_path_factory.mktemp("state") / "state.pt", {})
    return recipe


def held_out(original) -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    return [[3, *torch.randint(4, 190, (n,), generator=generator).tolist(), 2] for n in (4, 9, 20, 30)]


def student_vectors(recipe: Rotary, sequences: list[list[int]]) -> torch.Tensor:
    return recipe._student_vectors(sequences)


def test_the_student_approaches_its_teacher(original, trained):
    sequences = held_out(original)
    with torch.inference_mode():
        teacher = encode(trained._plain, plain(sequences), "MEAN", False)
        before, after = (student_vectors(recipe, sequences) for recipe in (recipe_of(original), trained))
    assert (after * teacher).sum(dim=1).mean() > (before * teacher).sum(dim=1).mean() + 0.02


def test_the_exported_graph_is_the_student(original, trained, tmp_path):
    checkpoint.write(tmp_path / "student", original, *trained.finished())
    loaded = sources.read_directory(tmp_path / "student")
    architecture = architectures.find(loaded.config)
    assert architecture.ARCHITECTURE == "e5-rope"
    graph = torch.jit.load(io.BytesIO(export.script(architecture, loaded)))
    sequences = held_out(original)
    sizes = architecture.sizes(loaded.config, loaded.tensors)
    with torch.inference_mode():
        expected = student_vectors(trained, sequences)
        exported = check.encode(graph, sequences, "MEAN", lambda lengths: check.rotations(lengths, sizes["rotary_dim"], sizes["rotary_base"]))
    torch.testing.assert_close(F.normalize(exported), expected, atol=1e-6, rtol=1e-5)


def test_word_embeddings_stay_and_every_other_weight_learns(original, trained):
    _, before = recipe_of(original).finished()
    _, after = trained.finished()
    assert before.keys() == after.keys() and not any("position" in name for name in after)
    same = {name for name in after if torch.equal(before[name], after[name])}
    assert same == {"embeddings.word_embeddings.weight", "embeddings.token_type_embeddings.weight"}


def test_an_untrained_student_holds_the_originals_weights(original):
    _, tensors = recipe_of(original).finished()
    assert all(torch.equal(tensor, original.tensors[name]) for name, tensor in tensors.items())


def test_the_position_table_fades_out_over_the_first_quarter(original):
    recipe = recipe_of(original)
    shares = []
    for done in (0.0, 0.125, 0.25, 0.9):
        recipe.loss(0, done)
        shares.append(recipe._student.table_share)
    assert shares == [1.0, 0.5, 0.0, 0.0]


def test_with_the_whole_table_the_student_adds_what_the_original_adds(original):
    """Rotations are neutral here, so that the student computes what the original's encoder computes."""
    recipe = recipe_of(original)
    recipe._student.table_share = 1.0
    still = torch.stack([torch.ones_like(recipe._turns[0, 0]), torch.zeros_like(recipe._turns[0, 0])]).unsqueeze(0)
    sequences = held_out(original)
    with torch.inference_mode():
        expected = encode(recipe._plain, plain(sequences), "MEAN", False)
        actual = encode(recipe._student, [Sequence(ids, still[:, :, : len(ids)]) for ids in sequences], "MEAN", False)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def test_a_training_that_was_stopped_ends_as_one_that_was_not(original, tmp_path):
    straight = recipe_of(original)
    loop.train(straight, loop.Budget(steps=4), tmp_path / "straight.pt", {})
    first = recipe_of(original)
    outcomes = first.loss

    def stopping(step: int, done: float):
        if step == 2:
            signal.raise_signal(signal.SIGINT)
        return outcomes(step, done)

    first.loss = stopping
    with pytest.raises(KeyboardInterrupt):
        loop.train(first, loop.Budget(steps=4), tmp_path / "stopped.pt", {})
    second = recipe_of(original)
    loop.train(second, loop.Budget(steps=4), tmp_path / "stopped.pt", {})
    expected, actual = straight.finished()[1], second.finished()[1]
    assert all(torch.equal(expected[name], actual[name]) for name in expected)


def test_only_a_bert_has_a_rotary_student(tmp_path):
    original = checkpoint.load(str(tiny(tmp_path / "tiny", "xlm-roberta")))
    with pytest.raises(TrainError, match="made from a BERT"):
        recipe_of(original)

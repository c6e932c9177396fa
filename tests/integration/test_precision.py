"""Tests precisions and engines through the server: their errors, and that the answer names what was used."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import grpc
import numpy as np
import pytest
from generated_client import generate_client
from running_server import BUILD, start_server

MODEL = "e5-small-v2"
FLAGS = Path("/proc/cpuinfo").read_text().split()
TEXTS = ["how long is the Nile?", "The Nile is about 6,650 km long.", "a " * 300, "東京", "one two three four five six seven eight nine ten " * 20]


@pytest.fixture(scope="module")
def embed(tmp_path_factory):
    """Returns a function embed(model options) -> (vectors, model, recipe). The last of the default texts has 1,000 tokens, and interpolated positions."""
    pb, pb_grpc = generate_client(tmp_path_factory.mktemp("client"))

    def run(model_options: str, name: str = MODEL, config: str = "", texts: Sequence[str] = (*TEXTS, "far " * 1000)):
        folder = tmp_path_factory.mktemp("server")
        server = start_server(folder, [name], config, model_options=model_options)
        try:
            with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
                stub = pb_grpc.EmbeddingServiceStub(channel)
                request = pb.EmbedRequest(inputs=[pb.Input(text=text) for text in texts])
                request.options.extension.interpolation.SetInParent()
                response = stub.Embed(request, timeout=120)
                model = stub.GetModel(pb.GetModelRequest())
                return np.array([result.embeddings[0].values for result in response.results]), model, response.recipe
        finally:
            assert server.stop() == 0

    return run


@pytest.fixture(scope="module")
def reference(embed):
    return embed("engine: torchscript")


def needs_native() -> None:
    if "avx2" not in FLAGS and "asimd" not in FLAGS:
        pytest.skip("this processor has neither AVX2 nor NEON")


def kernel_sets() -> list[str]:
    return subprocess.run([BUILD / "longembed-server", "--cpu-features"], check=True, capture_output=True, text=True).stdout.split()


def test_libtorch_runs_the_graph_as_exported(reference):
    _, model, _ = reference
    assert (model.engine, model.precision) == ("torchscript", "fp32")
    assert not model.HasField("precision_check")


def test_our_kernels_run_fp32_by_default(embed, reference):
    needs_native()
    vectors, model, recipe = embed("")
    assert (model.engine, model.precision, model.kernels) == ("native", "fp32", kernel_sets()[0])
    assert (vectors * reference[0]).sum(axis=1).min() >= 0.999999
    assert recipe == reference[2]  # Vectors are comparable, whichever engine computed them.


@pytest.mark.parametrize("precision, least, mean", [("bf16", 0.9995, 0.9998), ("int8", 0.99, 0.9975)])
def test_narrow_precisions(embed, reference, precision, least, mean):
    needs_native()
    vectors, model, recipe = embed(f"precision: {precision}")
    assert (model.engine, model.precision) == ("native", precision)
    cosines = (vectors * reference[0]).sum(axis=1)
    assert cosines.min() >= least and cosines.mean() >= mean
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    check = model.precision_check
    assert least <= check.lowest_cosine <= check.mean_cosine < 1 and check.texts >= 32
    assert recipe != reference[2]


@pytest.mark.parametrize("name", ["e5-small-rope", "SmolLM2-135M-Instruct"])
def test_rotary_models_in_bf16(embed, name):
    needs_native()
    expected, model, _ = embed("", name, texts=TEXTS)
    assert model.engine == "native"
    vectors, _, _ = embed("precision: bf16", name, texts=TEXTS)
    assert (vectors * expected).sum(axis=1).min() >= 0.999


# The lowest set of kernels stands for processors that are less capable than this machine.
@pytest.mark.parametrize("precision, least, mean", [("fp32", 0.999999, 0.999999), ("bf16", 0.9995, 0.9998), ("int8", 0.99, 0.999)])
def test_the_lowest_kernels_can_be_chosen(embed, reference, precision, least, mean):
    needs_native()
    lowest = kernel_sets()[-1]
    vectors, model, _ = embed(f"precision: {precision}", config=f"cpu_kernels: {lowest}\n")
    assert (model.engine, model.kernels) == ("native", lowest)
    cosines = (vectors * reference[0]).sum(axis=1)
    assert cosines.min() >= least and (precision != "int8" or model.precision_check.mean_cosine >= mean)


def test_unavailable_kernels_end_the_start(tmp_path):
    with pytest.raises(RuntimeError, match="no kernels .*avx9.*; it has"):
        start_server(tmp_path, [MODEL], "cpu_kernels: avx9\n")


def test_an_unavailable_precision_ends_the_start(tmp_path):
    with pytest.raises(RuntimeError, match="fp16 is for CUDA"):
        start_server(tmp_path, [MODEL], model_options="precision: fp16")

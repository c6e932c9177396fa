"""Tests late chunking of a text of 131,072 tokens: it needs the memory of only one window, and its states equal those of transformers."""

import random
import re
import sys
from pathlib import Path

import grpc
import numpy as np
import torch
import transformers
from google.protobuf.json_format import ParseDict
from running_server import ROOT, start_server

sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tests/testing"))
import tiny_checkpoints  # noqa: E402

from model.export.__main__ import main  # noqa: E402

TOKENS, SPAN, WINDOW, OVERLAP, WIDTH = 131072, 128, 512, 64, 128
MEBIBYTE = 1 << 20


def memory(pid: int, field: str) -> int:
    """Returns a value in bytes."""
    return int(re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[1]) * 1024


def save(folder: Path) -> torch.nn.Module:
    """Saves a small model. The export check runs it on texts that fill the window."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=4, intermediate_size=256, vocab_size=300, max_position_embeddings=WINDOW, initializer_range=0.2
    )
    model = transformers.BertModel(config, add_pooling_layer=False).eval()
    model.save_pretrained(folder)
    tiny_checkpoints.tiny_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    return model


def test_a_very_long_text_takes_the_memory_of_a_window(tmp_path, pb):
    model = save(tmp_path / "checkpoint")
    assert main([str(tmp_path / "checkpoint"), "--out", str(tmp_path / "models/long"), "--pooling", "mean"]) == 0
    content = [random.Random(1).randrange(4, 190) for _ in range(TOKENS)]
    running = start_server(tmp_path, ["long"], models_folder=tmp_path / "models")
    options = {"output": "SPAN_VECTORS", "spans": {"everyTokens": {"tokens": SPAN}}, "extension": {"windows": {"tokens": WINDOW, "overlap": OVERLAP}}}
    request = pb[0].EmbedRequest(options=ParseDict(options, pb[0].EmbedOptions()))
    request.inputs.add().token_ids.ids.extend(content[:1000])
    with grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel:
        stub = pb[1].EmbeddingServiceStub(channel)
        stub.Embed(request)
        idle = memory(running.process.pid, "VmRSS")
        request.inputs[0].token_ids.ids.extend(content[1000:])
        result = stub.Embed(request, timeout=300).results[0]
        grown = memory(running.process.pid, "VmHWM") - idle
    assert running.stop() == 0
    print(f"grew by {grown / MEBIBYTE:.0f} MiB over {idle / MEBIBYTE:.0f}")
    assert grown < 1024 * MEBIBYTE
    assert [(e.range.start, e.range.end) for e in result.embeddings] == [(a, a + SPAN) for a in range(0, TOKENS, SPAN)]

    room = WINDOW - 2
    starts = [sequence.content.start for sequence in result.sequences]
    assert starts == [min(i * (room - OVERLAP), TOKENS - room) for i in range(len(starts))]
    for number in (0, 3, 512, len(result.embeddings) - 1):
        a, b = number * SPAN, (number + 1) * SPAN
        states = np.zeros((SPAN, WIDTH))
        margins = np.full(SPAN, -1.0)
        for start in (s for s in starts if s < b and s + room > a):
            with torch.inference_mode():
                hidden = model(input_ids=torch.tensor([[3, *content[start : start + room], 2]])).last_hidden_state[0, 1:-1].double().numpy()
            for p in range(max(a, start), min(b, start + room)):
                margin = min(np.inf if start == 0 else p - start, np.inf if start + room == TOKENS else start + room - 1 - p)
                if margin > margins[p - a]:
                    states[p - a], margins[p - a] = hidden[p - start], margin
        mean = states.mean(axis=0)
        assert np.dot(result.embeddings[number].values, mean / np.linalg.norm(mean)) >= 0.99999

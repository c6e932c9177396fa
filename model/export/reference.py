"""The client of reference_process.py, which runs the checkpoint as its users do.

A single child process serves all requests, because loading its libraries takes seconds. `start` loads them in the background.
"""

import atexit
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from model.export.errors import ExportError

QUIET = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false"}
REPOSITORY = Path(__file__).resolve().parents[2]

_process: subprocess.Popen | None = None
_log = tempfile.TemporaryFile("w+")


def start() -> subprocess.Popen:
    """Returns the child process. Starts it if it does not run."""
    global _process
    if _process is None or _process.poll() is not None:
        path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
        _process = subprocess.Popen(
            [sys.executable, "-m", "model.export.reference_process"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=_log, text=True,
            env={**os.environ, **QUIET, "PYTHONPATH": path},
        )  # fmt: skip
        atexit.register(_stop, _process)
    return _process


def tokenizer(folder: Path) -> dict:
    """Returns AutoTokenizer's result for a folder: {"tokenizer": the text of its tokenizer.json, "eos": an id or None, ...}."""
    found = _ask({"do": "tokenizer", "folder": str(folder)})
    if "error" in found:
        raise ExportError(
            f"transformers cannot load configuration and tokenizer of {folder.name} ({found['error']}); correct its files, or add a tokenizer.json."
        )
    return found


def embed(request: dict) -> dict:
    """Returns the result of the checkpoint's own library for each sample. See `embed` in reference_process.py."""
    found = _ask({"do": "embed", **request})
    if "ignore_mismatched_sizes" in found.get("error", ""):  # transformers names the tensors in its log only.
        raise ExportError(
            "a tensor of the weights has another size than config.json says (vocab_size, max_position_embeddings or the like); take both from the same checkpoint."
        )
    if "error" in found:
        raise ExportError(f"the checkpoint's own library cannot embed with it ({found['error']}); nothing was written, correct its files.")
    return found


def _ask(request: dict) -> dict:
    process = start()
    try:
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
    except OSError:
        line = ""
    if not line:
        status = process.wait()
        reason = "was killed, perhaps because memory ran out" if status < 0 else f"ended with status {status}"
        raise ExportError(f"the process that loads the checkpoint as its users do {reason} ({_last_words()}); nothing was written.")
    return json.loads(line)


def _last_words() -> str:
    _log.seek(0)
    return (_log.read().strip().splitlines() or ["it said nothing"])[-1][:200]


def _stop(process: subprocess.Popen) -> None:
    process.kill()  # It has no state that could be lost.
    process.wait()

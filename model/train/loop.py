"""The training loop of all recipes: a budget, progress reports, and a state on disk from which the same command continues."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Protocol

import torch
from torch import Tensor, nn

from model.train.errors import TrainError

FORMAT_VERSION = 1
WARM_UP_STEPS = 20
SAVE_SECONDS = 60.0
SAY_SECONDS = 10.0


class Recipe(Protocol):
    """A training recipe. `loss` depends only on the recipe's state, the step, and `done`, the fraction of the budget that is used up. With a budget of
    steps, a training that is interrupted and continued therefore has the same result as one without interruption."""

    parameters: list[nn.Parameter]
    learning_rate: float

    def loss(self, step: int, done: float) -> Outcome: ...

    def state(self) -> dict: ...

    def restore(self, state: dict) -> None: ...

    def finished(self) -> tuple[dict, dict[str, Tensor]]:
        """Returns config.json and the tensors of the trained model."""
        ...


@dataclass(frozen=True)
class Outcome:
    """The result of one batch. `kind` is its name in progress reports. `cosine` is the mean cosine between its vectors and the teacher's."""

    loss: Tensor
    kind: str
    cosine: float
    tokens: int


@dataclass(frozen=True)
class Budget:
    """Minutes of training, over all runs and without loading, or steps. Exactly one is given."""

    minutes: float | None = None
    steps: int | None = None

    def done(self, step: int, seconds: float) -> float:
        return min(1.0, step / self.steps if self.steps is not None else seconds / (60 * self.minutes))


def train(recipe: Recipe, budget: Budget, state_file: Path, request: dict) -> int:
    """Trains until the budget is used up. Returns the total number of steps. `request` identifies the training; a state of another request is
    refused.

    The state is written every minute, at the end, and when the program is interrupted: after the step, which may be half done. A second
    interruption, and an error within a step, leave the state as it was written last.
    """
    _make_folder(state_file.parent)
    optimizer = torch.optim.AdamW(recipe.parameters, lr=recipe.learning_rate, weight_decay=0.0)
    step, seconds = _restore(recipe, optimizer, state_file, request)
    progress = Progress(budget)
    saved = time.monotonic()
    with _interruptions() as received:
        while (done := budget.done(step, seconds)) < 1.0 and not received:
            started = time.monotonic()
            outcome = _step(recipe, optimizer, step, done)
            step += 1
            seconds += time.monotonic() - started
            progress.add(outcome, step, seconds)
            if time.monotonic() - saved > SAVE_SECONDS:
                _save(recipe, optimizer, state_file, request, step, seconds)
                saved = time.monotonic()
        _save(recipe, optimizer, state_file, request, step, seconds)
        if received:
            raise KeyboardInterrupt
    return step


@contextmanager
def _interruptions() -> Iterator[list[int]]:
    """Collects signals that would raise KeyboardInterrupt, which must not stop a step in the middle. The second one raises it at once."""
    received: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            raise KeyboardInterrupt
        say("stopping after this step; a second interruption stops at once")

    main = threading.current_thread() is threading.main_thread()
    numbers = [number for number in (signal.SIGINT, signal.SIGTERM) if main and signal.getsignal(number) is signal.default_int_handler]
    for number in numbers:
        signal.signal(number, receive)
    try:
        yield received
    finally:
        for number in numbers:
            signal.signal(number, signal.default_int_handler)


def _step(recipe: Recipe, optimizer: torch.optim.Optimizer, step: int, done: float) -> Outcome:
    """Runs one step. The learning rate rises over the first steps and then falls linearly to 0 at the end of the budget."""
    for group in optimizer.param_groups:
        group["lr"] = recipe.learning_rate * min(1.0, (step + 1) / WARM_UP_STEPS) * (1.0 - done)
    outcome = recipe.loss(step, done)
    if not torch.isfinite(outcome.loss):
        raise TrainError(f"the loss of step {step} is {outcome.loss.item()}; lower --learning-rate and start again in another folder.")
    optimizer.zero_grad(set_to_none=True)
    outcome.loss.backward()
    optimizer.step()
    return outcome


def _save(recipe: Recipe, optimizer: torch.optim.Optimizer, file: Path, request: dict, step: int, seconds: float) -> None:
    fresh = file.with_name(file.name + ".new")
    own = {"recipe": recipe.state(), "optimizer": optimizer.state_dict()}
    try:
        torch.save({"format_version": FORMAT_VERSION, "request": request, "step": step, "seconds": seconds, **own}, fresh)
        os.replace(fresh, file)
    except (OSError, RuntimeError) as error:  # torch.save raises RuntimeError for a full disk.
        fresh.unlink(missing_ok=True)
        raise TrainError(f"the state cannot be written to {file} ({str(error).splitlines()[0]}); make room, and start the same command again.") from error


def _restore(recipe: Recipe, optimizer: torch.optim.Optimizer, file: Path, request: dict) -> tuple[int, float]:
    if not file.exists():
        return 0, 0.0
    try:
        content = torch.load(file, weights_only=True)
    except Exception as error:  # Of a damaged file: RuntimeError, EOFError, KeyError, UnpicklingError and others.
        raise TrainError(f"{file} cannot be read ({(str(error) or type(error).__name__).splitlines()[0]}); choose another --out or remove it.") from error
    if content["format_version"] != FORMAT_VERSION:
        raise TrainError(f"{file} was written by another version of this program; choose another --out or remove it.")
    for key, value in request.items():
        there = content["request"].get(key)
        if there != value:
            raise TrainError(f"{file.parent} has the state of a training run with {key} = {there!r} instead of {value!r}; choose another --out or remove it.")
    recipe.restore(content["recipe"])
    optimizer.load_state_dict(content["optimizer"])
    say(f"going on after step {content['step']}, {content['seconds'] / 60:.1f} minutes of training")
    return content["step"], content["seconds"]


def _make_folder(folder: Path) -> None:
    """Creates the folder of the state before the first step, not a minute later."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainError(f"{folder} cannot be created ({error.strerror}); choose another --out.") from error


class Progress:
    """Prints a line every ten seconds: loss and cosine per kind of batch (running means), tokens per second, and the time left."""

    def __init__(self, budget: Budget):
        self._budget = budget
        self._means: dict[str, tuple[float, float]] = {}
        self._tokens = 0
        self._since = self._said = time.monotonic()

    def add(self, outcome: Outcome, step: int, seconds: float) -> None:
        loss, cosine = outcome.loss.item(), outcome.cosine
        old_loss, old_cosine = self._means.get(outcome.kind, (loss, cosine))
        self._means[outcome.kind] = (0.9 * old_loss + 0.1 * loss, 0.9 * old_cosine + 0.1 * cosine)
        self._tokens += outcome.tokens
        done = self._budget.done(step, seconds)
        if time.monotonic() - self._said >= SAY_SECONDS or done >= 1.0:
            self._say(step, seconds, done)

    def _say(self, step: int, seconds: float, done: float) -> None:
        now = time.monotonic()
        kinds = ", ".join(f"{kind} {loss:.3f} cosine {cosine:.4f}" for kind, (loss, cosine) in sorted(self._means.items()))
        left = seconds * (1 / done - 1)
        rate = self._tokens / (now - self._since)
        say(f"step {step}, {100 * done:.0f} %: loss {kinds}; {rate:,.0f} tokens/s; {int(left // 60)}:{int(left % 60):02d} left")
        self._said = now


def say(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)

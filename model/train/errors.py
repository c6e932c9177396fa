"""The trainer's exception whose message is shown to users."""

from __future__ import annotations


class TrainError(Exception):
    """Training failed. The message is one sentence with the problem and the remedy."""

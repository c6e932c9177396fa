"""The one exception of the trainer that is meant for people."""

from __future__ import annotations


class TrainError(Exception):
    """A training that fails. Its text is one sentence that names the problem and the remedy."""

"""The one exception of the trainer that is meant for people."""

from __future__ import annotations


class TrainError(Exception):
    """A training that cannot start or go on. Its text is one sentence that says what is wrong and what to do."""

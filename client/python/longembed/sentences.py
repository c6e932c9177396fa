"""Splits a text into sentences, for queries whose sentences are scored separately."""

from __future__ import annotations

import re

# Matches the end of a sentence: its mark, closing quotes or brackets, and a blank before something that may begin another sentence. Also matches a
# blank line.
_END = re.compile(r"(?<=[.!?。！？])[\"'”’)\]]*(?:\s+(?=[\"'“‘(\[]?[^\sa-z])|(?<=[。！？])(?=\S))|\n\s*\n")
_ABBREVIATIONS = frozenset("mr mrs ms dr prof sr jr st vs e.g i.e etc al no vol fig inc ltd co u.s".split())


def split(text: str) -> list[str]:
    """Returns the sentences of `text`, stripped, none of them empty. A text without any letter or digit is one sentence."""
    sentences: list[str] = []
    start = 0
    for end in _END.finditer(text):
        piece = text[start : end.start()]
        last_word = piece.rsplit(None, 1)[-1].rstrip(".").lower() if piece.strip() else ""
        is_short = last_word in _ABBREVIATIONS or (len(last_word) == 1 and last_word.isalpha())
        if is_short and not re.search(r"\n\s*\n", end.group()):
            continue
        sentences.append(text[start : end.end()])
        start = end.end()
    sentences.append(text[start:])
    kept = [sentence.strip() for sentence in sentences if re.search(r"\w", sentence)]
    return kept or [text]

"""Prepares tokenizer.json for the server: without truncation and padding, and with its special tokens listed separately."""

import json

from tokenizers import AddedToken, Tokenizer

from model.export.errors import ExportError


def strip(tokenizer_json: str) -> str:
    """Returns the tokenizer without truncation and padding, which the server decides. Raises ExportError for a tokenizer that splits words at random."""
    content = json.loads(tokenizer_json)
    if dropout := content["model"].get("dropout"):
        raise ExportError(
            f"tokenizer.json splits words at random (model.dropout = {dropout}), so that a text would get another vector each time; set it to null if the model is "
            "used without it."
        )
    content["truncation"] = None
    content["padding"] = None
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def lower_cased(tokenizer_json: str) -> str:
    """Returns the tokenizer with a normalizer that lower-cases, before its own ones. sentence-transformers adds it likewise, unless there is one already."""
    content = json.loads(tokenizer_json)
    own = content["normalizer"]
    parts = [] if own is None else own["normalizers"] if own["type"] == "Sequence" else [own]
    if not any(part["type"] == "Lowercase" for part in parts):
        content["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, *parts]}
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def without_rowless_tokens(tokenizer_json: str, rows: int) -> tuple[str, list[str]]:
    """Returns the tokenizer without added tokens for which the model has no row, and their spellings. EmbeddingGemma and Qwen3-Embedding-4B have such tokens.
    Their users' library fails for a text that spells one. Here such a spelling is split like any other word."""
    content = json.loads(tokenizer_json)
    vocabulary = content["model"].get("vocab") or []
    own = set(vocabulary) if isinstance(vocabulary, dict) else {word for word, *_ in vocabulary}
    beyond = [token["content"] for token in content["added_tokens"] if token["id"] >= rows and token["content"] not in own]
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] not in beyond]
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")), beyond


def parse(tokenizer_json: str) -> Tokenizer:
    """Returns the tokenizer. Raises ExportError if it cannot be read, or has no token for unknown words."""
    try:
        tokenizer = Tokenizer.from_str(tokenizer_json)
        tokenizer.encode("a \ua66e")  # A letter that few vocabularies have, which fails if the token for unknown ones is missing, too.
        return tokenizer
    except Exception as error:  # The library raises plain Exceptions.
        words = " ".join(str(error).split())[:200]
        raise ExportError(f"the tokenizer that transformers makes of the checkpoint's files cannot be used ({words}); download them again.") from error


def largest_id(tokenizer: Tokenizer) -> int:
    """Returns the largest id that a text can get, or -1. A vocabulary may have gaps, so this may exceed the number of tokens."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)


def special_tokens(tokenizer: Tokenizer) -> dict[str, list[int]]:
    """Returns the ids that the tokenizer's post-processor puts before and after a text."""
    probe = tokenizer.encode("a")
    mask = probe.special_tokens_mask
    before = mask.index(0) if 0 in mask else len(mask)
    after = mask[::-1].index(0) if 0 in mask else 0
    prefix, suffix = probe.ids[:before], probe.ids[len(mask) - after :]
    if tokenizer.encode("").ids != prefix + suffix:
        raise ExportError("the tokenizer's special tokens depend on the text, but only fixed ones before and after it are exported; choose another checkpoint.")
    return {"prefix": prefix, "suffix": suffix}


def with_markers(tokenizer_json: str, prompts: list[str]) -> str:
    """Returns the tokenizer with the vocabulary tokens at the beginning of prompts ("[unused0]", "[Q] ") registered as special tokens, which are never split.
    sentence-transformers registers them as well."""
    tokenizer = Tokenizer.from_str(tokenizer_json)
    for prompt in prompts:
        known = [marker for marker in (prompt, *prompt.split(None, 1)[:1]) if tokenizer.token_to_id(marker) is not None]
        if known and tokenizer.encode(known[0], add_special_tokens=False).tokens != [known[0]]:
            tokenizer.add_special_tokens([AddedToken(known[0], normalized=False, special=True)])
    return tokenizer.to_str()

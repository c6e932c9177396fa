"""Embeds a corpus of any size over one stream, with bounded memory. Answers are written as soon as they are ready. A second run embeds only what is missing.
Each vector is written with its recipe. A run stops if the server's model or its settings are not those of the vectors that are there.

    pip install longembed
    LONGEMBED_SERVER=127.0.0.1:50051 python streaming.py vectors.jsonl
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from longembed import Client, Options
from license_texts import read_licenses

OPTIONS = Options(input_type="DOCUMENT", extension={"windows": {}}, priority="BULK")


def paragraphs() -> Iterator[tuple[str, str]]:
    """Yields (id, text) for each paragraph of each license, and for each whole license. Texts are read only as fast as they are embedded."""
    for name, text in read_licenses().items():
        for number, paragraph in enumerate(filter(str.strip, text.split("\n\n"))):
            yield f"{name}:{number}", paragraph
        yield name, text


def lines_in(out: Path) -> list[dict]:
    """Returns an earlier run's answers. A last line that a killed run left without its end is cut off, and embedded again."""
    if not out.exists():
        return []
    lines = out.read_bytes().splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        os.truncate(out, out.stat().st_size - len(lines.pop()))
    return [json.loads(line) for line in lines]


def refuse_another(recipe: str, wanted: str, out: Path) -> None:
    """Ends the program if vectors of the two recipes cannot be compared."""
    if recipe != wanted:
        sys.exit(f"{out} has vectors of recipe {wanted}, and the server's is {recipe}: its model or the options changed; embed into another file")


def main(out: Path) -> None:
    there = lines_in(out)
    written = tokens = 0
    with Client() as client, out.open("a", encoding="utf-8") as file:
        now = client.explain(["a"], OPTIONS).recipe
        recipe = there[0]["recipe"] if there else now
        refuse_another(now, recipe, out)
        for answer in client.embed_stream(paragraphs(), OPTIONS, skip=[line["id"] for line in there]):
            if answer.error is not None:
                print(f"{answer.id}: {answer.error}", file=sys.stderr)
                continue
            refuse_another(answer.recipe, recipe, out)  # The server may restart with another model.
            file.write(json.dumps({"id": answer.id, "recipe": answer.recipe, "vector": answer.vector.tolist()}) + "\n")
            written, tokens = written + 1, tokens + answer.tokens
    print(f"{len(there)} were there, {written} texts of {tokens} tokens written to {out}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "vectors.jsonl"))
